"""Catalog rows as values: `Entry`, and the check that turns a row into one or refuses it. Pure.

An `Entry` is a tuple underneath, because catalogs are read row by row at listing speed: making one costs a fifth of a
frozen dataclass of the same fields. What is rarely asked for is computed from the stored columns when it is.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.address import Algorithm, ContentHash
from catalog import flags as bits
from catalog.errors import show_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.errors import CatalogError, Subject

_FILE_TYPES = frozenset(
    kind >> 12
    for kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
)
_DIRECTORY = stat.S_IFDIR >> 12
_DEVICES = frozenset((stat.S_IFCHR >> 12, stat.S_IFBLK >> 12))
_NO_NAMES = frozenset((b"", b".", b".."))
_ID_LIMIT = 1 << 32
_SECOND_NS = 1_000_000_000
_DIGEST_BYTES = 20


class Entry(NamedTuple):
    """One name in a directory, as its catalog has it. The first fields are in the order in which rows are read."""

    rowid: int
    name: bytes
    mode: int
    size: int  # of a device: its number
    mtime_s: int
    mtime_ns: int  # 0..999999999, to be added
    uid: int | None  # None: the owner of the client's process (schema < 2.1)
    gid: int | None
    hardlinks: int  # as stored: group << 32 | link count
    flags: int
    digest: bytes | None
    symlink: bytes  # the raw target, variables and all
    xattr_blob: bytes | None

    @property
    def link_count(self) -> int:
        return self.hardlinks & 0xFFFFFFFF

    @property
    def hardlink_group(self) -> int:
        """The group inside the catalog; 0: not hard-linked."""
        return 0 if self.is_directory else self.hardlinks >> 32

    @property
    def algorithm(self) -> Algorithm:
        return bits.ALGORITHMS[(self.flags >> bits.ALGORITHM_SHIFT) & 7]

    @property
    def compression(self) -> int:
        return (self.flags >> bits.COMPRESSION_SHIFT) & 7

    @property
    def is_verbatim(self) -> bool:
        """The stored object is the content itself, whatever it begins with."""
        return self.compression == bits.COMPRESSION_NONE

    @property
    def content_hash(self) -> ContentHash | None:
        if self.digest is None or not any(self.digest):
            return None
        return ContentHash(self.algorithm, self.digest)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_nested_mountpoint(self) -> bool:
        return bool(self.flags & bits.NESTED_MOUNTPOINT)

    @property
    def is_nested_root(self) -> bool:
        return bool(self.flags & bits.NESTED_ROOT)

    @property
    def is_bind_mountpoint(self) -> bool:
        return bool(self.flags & bits.BIND_MOUNTPOINT)

    @property
    def is_chunked(self) -> bool:
        return bool(self.flags & bits.CHUNKED)

    @property
    def is_external(self) -> bool:
        return bool(self.flags & bits.EXTERNAL)

    @property
    def is_hidden(self) -> bool:
        return bool(self.flags & bits.HIDDEN)

    @property
    def is_direct_io(self) -> bool:
        return bool(self.flags & bits.DIRECT_IO)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a chunked file; offset and size refer to the content."""

    offset: int
    size: int
    content_hash: ContentHash


_new_entry: Callable[[type[Entry], tuple[Any, ...]], Entry] = tuple.__new__  # half the time of Entry(...)


def entry_from_row(row: tuple[Any, ...], before_2_1: bool, subject: Subject) -> Entry:
    """The entry in a row of thirteen columns in the order of the fields. `subject` is the catalog.

    What makes a name acceptable in a listing is for `check_name`: a row found by its path has the name of that path.
    """
    rowid, name, mode, size, mtime_s, mtime_ns, uid, gid, hardlinks, flags, digest, symlink, xattr_blob = row
    if type(name) is not bytes:
        raise damaged_row(subject, rowid, name, "its name is not text")
    if type(mode) is not int or mode >> 12 not in _FILE_TYPES:
        raise damaged_row(subject, rowid, name, f"{mode!r} is not the mode of any kind of file")
    if type(size) is not int or (size < 0 and mode >> 12 not in _DEVICES):
        raise damaged_row(subject, rowid, name, f"{size!r} is not a size")
    if type(mtime_s) is not int:
        raise damaged_row(subject, rowid, name, f"{mtime_s!r} is not a time")
    if mtime_ns is None:
        mtime_ns = 0
    elif type(mtime_ns) is not int or mtime_ns >= _SECOND_NS:
        raise damaged_row(subject, rowid, name, f"{mtime_ns!r} is not a fraction of a second")
    elif mtime_ns < 0:  # means "absent"
        mtime_ns = 0
    if type(hardlinks) is not int or hardlinks < 0:
        raise damaged_row(subject, rowid, name, f"{hardlinks!r} is not a link count")
    if type(flags) is not int:
        raise damaged_row(subject, rowid, name, "its flags are not a number")
    if before_2_1:
        flags &= bits.KNOWN_BEFORE_2_1
    elif type(uid) is not int or type(gid) is not int or not (0 <= uid < _ID_LIMIT and 0 <= gid < _ID_LIMIT):
        raise damaged_row(subject, rowid, name, f"{uid!r}:{gid!r} is not an owner")
    if (flags >> bits.ALGORITHM_SHIFT) & 7 > 2:
        raise damaged_row(subject, rowid, name, "its flags name an unknown hash algorithm")
    if flags & bits.TRANSITIONS and mode >> 12 != _DIRECTORY:
        raise damaged_row(subject, rowid, name, "it is marked as the top of a catalog but is no directory")
    if digest is not None and (type(digest) is not bytes or len(digest) != _DIGEST_BYTES):
        if digest != b"":
            raise damaged_row(subject, rowid, name, "its hash is of the wrong length")
        digest = None
    if type(symlink) is bytes:
        if b"\0" in symlink:
            symlink = symlink[: symlink.index(b"\0")]
    elif symlink is None:
        symlink = b""
    else:
        raise damaged_row(subject, rowid, name, "its link target is not text")
    if xattr_blob is not None and type(xattr_blob) is not bytes:
        raise damaged_row(subject, rowid, name, "its extended attributes are not a blob")
    return _new_entry(
        Entry,
        (rowid, name, mode, size, mtime_s, mtime_ns, uid, gid, hardlinks, flags, digest, symlink, xattr_blob),
    )


def check_name(name: bytes, rowid: int, subject: Subject) -> None:
    """Refuses what cannot be the name of a directory entry."""
    if b"/" in name or b"\0" in name or name in _NO_NAMES:
        raise damaged_row(subject, rowid, name, "no entry of a directory can have this name")


def damaged_row(subject: Subject, rowid: object, name: object, reason: str) -> CatalogError:
    shown = f'entry "{show_path(name)}"' if type(name) is bytes and name else "an entry"
    return subject.damaged(f"{shown} (row {rowid!r}): {reason}")
