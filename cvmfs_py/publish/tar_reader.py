"""Reads a tar archive as a stream: members one after the other, the content of each where it stands. Reads once, and
keeps nothing: archives may have any number of members.

What is no complete archive is refused, also one that stops between two members: a transfer that broke off must not look
like a smaller tree. Knows no repository. Concurrency: one thread.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_py.publish.tar_acl import ATTRIBUTES, AclError, parse_acl
from cvmfs_py.publish.tar_headers import (
    BLOCK_BYTES,
    END,
    SECOND_NS,
    Header,
    Spans,
    TarFormatError,
    check_spans,
    gnu_real_size,
    parse_gnu_sparse,
    parse_header,
    parse_pax,
    parse_sparse_records,
    parse_time_ns,
    xattrs_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HARD_LINK = 0o1  # a kind beside those of `stat`
_KINDS = {
    b"1": HARD_LINK,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
    b"D": stat.S_IFDIR,
}
_DUMP = b"D"  # with a list of names
_LONG_NAME, _LONG_TARGET = b"L", b"K"
_PAX, _SOLARIS_PAX, _PAX_GLOBAL = b"x", b"X", b"g"
_VOLUME_LABEL, _ACL = b"V", b"A"
_CONTINUATION = b"M"
_GNU_SPARSE = b"S"
_HEADER_LIMIT_BYTES = 16 << 20
_NUMBER_LIMIT = 20  # digits
_MAP_LIMIT = 1 << 22
_SKIP_BYTES = 1 << 20


class TarMember(NamedTuple):
    """One entry of an archive."""

    name: bytes  # as it stands there
    kind: int  # S_IFMT or HARD_LINK
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int  # of the content of a regular file, with its holes
    link_target: bytes  # of a hard link or symlink
    device: int
    xattrs: dict[bytes, bytes]
    left_out: tuple[str, ...] = ()  # what could not be understood, for people


class TarReader:
    """Iterate over it; `read` gives the content of the member that came last."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read` gives as many bytes as it is asked for, less at the end only."""
        self._read_input = read
        self._globals: dict[bytes, bytes] = {}
        self._stored_bytes = 0  # what of the member is still unread in the archive
        self._padding_bytes = 0
        self._spans: Spans = []  # what of the content is still unread, the last first: data only
        self._position = 0
        self._size_bytes = 0

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self._next()) is not None:
            yield member
        while self._read_input(_SKIP_BYTES):  # whoever writes it must not find the pipe closed
            pass

    def read(self, size: int) -> bytes:
        """So much of the content; less at its end."""
        parts = []
        size = min(size, self._size_bytes - self._position)
        while size:
            offset, length = self._spans[-1] if self._spans else (self._size_bytes, 0)
            if self._position < offset:
                count = min(size, offset - self._position)
                parts.append(bytes(count))
            else:
                count = min(size, offset + length - self._position)
                parts.append(self._stored(count))
                if self._position + count == offset + length:
                    self._spans.pop()
            self._position += count
            size -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- members

    def _next(self) -> TarMember | None:
        records: list[tuple[bytes, bytes]] = []
        name = target = None
        while True:
            self._skip_content()
            block = self._block()
            if block == END:
                return None
            header = parse_header(block)
            kind = header.kind
            self._expect(header.size_bytes)
            if kind in (_PAX, _SOLARIS_PAX):
                records = parse_pax(self._header_text())
            elif kind == _PAX_GLOBAL:
                self._globals |= parse_pax(self._header_text())
            elif kind == _LONG_NAME:
                name = self._header_text().rstrip(b"\0")
            elif kind == _LONG_TARGET:
                target = self._header_text().rstrip(b"\0")
            elif kind in (_VOLUME_LABEL, _ACL):
                continue
            elif kind == _CONTINUATION:
                raise TarFormatError("it is one of several volumes, which cannot be read alone")
            else:
                return self._member(header, name, target, records)

    def _member(
        self, header: Header, name: bytes | None, target: bytes | None, pax: list[tuple[bytes, bytes]]
    ) -> TarMember:
        # An empty value takes back what was said before; those of attributes are values.
        records = {key: value for key, value in (self._globals | dict(pax)).items() if value or b".xattr." in key}
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or name or header.name
        kind = _KINDS.get(header.kind, stat.S_IFREG)
        if kind == stat.S_IFREG and name.endswith(b"/"):  # from before there was a kind for directories
            kind = stat.S_IFDIR
        stored_bytes = _number(records, b"size", header.size_bytes)
        if kind != stat.S_IFREG and header.kind != _DUMP:
            stored_bytes = 0  # a size there speaks of the file that a link leads to
        self._expect(stored_bytes)
        if kind == stat.S_IFREG:
            self._begin_content(header, records, pax)
        xattrs, left_out = _xattrs(records)
        return TarMember(
            name=name,
            kind=kind,
            mode=header.mode & 0o7777,
            uid=_number(records, b"uid", header.uid),
            gid=_number(records, b"gid", header.gid),
            mtime_ns=parse_time_ns(records[b"mtime"]) if b"mtime" in records else header.mtime_s * SECOND_NS,
            size_bytes=self._size_bytes,
            link_target=records.get(b"linkpath") or target or header.link_target,
            device=os.makedev(header.device_major, header.device_minor) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            xattrs=xattrs,
            left_out=left_out,
        )

    # --- contents

    def _expect(self, stored_bytes: int) -> None:
        """Says how much of the archive belongs to the header that was read."""
        self._stored_bytes = stored_bytes
        self._padding_bytes = -stored_bytes % BLOCK_BYTES
        self._spans = []
        self._position = self._size_bytes = 0

    def _begin_content(self, header: Header, records: dict[bytes, bytes], pax: list[tuple[bytes, bytes]]) -> None:
        real_bytes = self._stored_bytes
        spans: Spans | None
        if header.kind == _GNU_SPARSE:
            real_bytes = gnu_real_size(header.block)
            spans, more = parse_gnu_sparse(header.block, is_extension=False)
            while more:
                further, more = parse_gnu_sparse(self._block(), is_extension=True)
                spans += further
        elif records.get(b"GNU.sparse.major") == b"1":
            real_bytes = _number(records, b"GNU.sparse.realsize", real_bytes)
            spans = self._map_before_data()
        else:
            spans = parse_sparse_records(pax)
            if spans is not None:
                real_bytes = _number(records, b"GNU.sparse.size", real_bytes)
        if spans is None:
            spans = [(0, real_bytes)]
        self._spans = check_spans(spans, self._stored_bytes, real_bytes)[::-1]
        self._size_bytes = real_bytes

    def _map_before_data(self) -> Spans:
        """The map in format 1.0: numbers a line each, the first is their count, filled up to whole blocks."""
        lines: list[bytes] = []
        rest = b""
        while not lines or len(lines) < 1 + 2 * _digits(lines[0]):
            if len(lines) > _MAP_LIMIT:
                raise TarFormatError("the map of a sparse file is too large")
            *more, rest = (rest + self._stored(BLOCK_BYTES)).split(b"\n")
            lines += more
        values = [_digits(number) for number in lines[1 : 1 + 2 * _digits(lines[0])]]
        return list(zip(values[::2], values[1::2], strict=True))

    def _skip_content(self) -> None:
        while self._stored_bytes:
            self._stored(min(self._stored_bytes, _SKIP_BYTES))
        if self._padding_bytes:
            self._exactly(self._padding_bytes)
            self._padding_bytes = 0

    def _header_text(self) -> bytes:
        if self._stored_bytes > _HEADER_LIMIT_BYTES:
            raise TarFormatError(f"a header of {self._stored_bytes} bytes is too large")
        return self._stored(self._stored_bytes)

    def _stored(self, size: int) -> bytes:
        if size > self._stored_bytes:
            raise TarFormatError("a member is shorter than it says")
        self._stored_bytes -= size
        return self._exactly(size)

    def _block(self) -> bytes:
        return self._exactly(BLOCK_BYTES)

    def _exactly(self, size: int) -> bytes:
        data = self._read_input(size)
        if len(data) < size:
            raise TarFormatError("it ends too early")
        return data


def _xattrs(records: dict[bytes, bytes]) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Extended attributes; access control lists are such, too, where they are not in words only."""
    found = xattrs_of(records)
    left_out = []
    for key, name in ATTRIBUTES.items():
        if key in records and name not in found:
            try:
                value = parse_acl(records[key])
            except AclError as error:
                left_out.append(f"the access control list is left out: {error}")
                continue
            if value is not None:
                found[name] = value
    return found, tuple(left_out)


def _number(records: dict[bytes, bytes], key: bytes, default: int) -> int:
    return _digits(records[key]) if key in records else default


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > _NUMBER_LIMIT:
        raise TarFormatError(f"{text!r} is not a number")
    return int(text)
