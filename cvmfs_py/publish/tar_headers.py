"""The headers of tar archives: the fields of a block, numbers, pax records, maps of sparse files. Pure.

POSIX ustar and pax, and what GNU tar writes. All texts are bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

BLOCK_BYTES = 512
END = bytes(BLOCK_BYTES)
SECOND_NS = 1_000_000_000

_SPARSE_AT = 386
_SPARSE_EXTENSION_ITEMS = 21
_TIME = re.compile(rb"(-?)(\d{1,20})(?:\.(\d*))?\Z")
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."

Spans = list[tuple[int, int]]  # offset and length of what is data in a sparse file


class TarFormatError(ValueError):
    """What is there is no archive, or a damaged one. The message goes on: "the archive is damaged: "."""


class Header(NamedTuple):
    """The fields of one block."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_s: int
    kind: bytes
    link_target: bytes
    device_major: int
    device_minor: int
    is_gnu: bool
    block: bytes


def parse_header(block: bytes) -> Header:
    """The fields of a block that is not `END`."""
    if not _has_checksum(block):
        raise TarFormatError("there is no header where one should be")
    name = _text(block[0:100])
    is_posix = block[257:263] == b"ustar\0"
    if is_posix and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    has_devices = block[257:262] == b"ustar"
    return Header(
        name=name,
        mode=parse_number(block[100:108]),
        uid=parse_number(block[108:116]),
        gid=parse_number(block[116:124]),
        size_bytes=_size(parse_number(block[124:136])),
        mtime_s=parse_number(block[136:148]),
        kind=block[156:157],
        link_target=_text(block[157:257]),
        device_major=parse_number(block[329:337]) if has_devices else 0,
        device_minor=parse_number(block[337:345]) if has_devices else 0,
        is_gnu=block[257:265] == b"ustar  \0",
        block=block,
    )


def parse_number(field: bytes) -> int:
    """Octal digits or, marked by the first bit, a binary number in two's complement."""
    if field[0] & 0x80:
        if field[0] == 0xFF:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise TarFormatError(f"{digits!r} is not a number") from None


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of an extended header, in order."""
    records = []
    at = 0
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 20)
        digits = data[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise TarFormatError("an extended header is malformed")
        records.append((key, value))
        at = end
    return records


def parse_time_ns(text: bytes) -> int:
    """Seconds with any number of decimals; what is below a nanosecond is cut off."""
    match = _TIME.match(text)
    if match is None:
        raise TarFormatError(f"{text!r} is not a time")
    sign, seconds, decimals = match.groups()
    total = int(seconds) * SECOND_NS + int(((decimals or b"") + b"000000000")[:9])
    return -total if sign else total


def xattrs_of(records: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes among pax records. Those of star and GNU tar have values as they are."""
    if not any(b".xattr." in key for key in records):
        return {}
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            try:
                name = unquote_to_bytes(key[len(_LIBARCHIVE) :])
                found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
            except binascii.Error:
                raise TarFormatError("the value of an extended attribute is malformed") from None
        elif key.startswith(_SCHILY):
            found[key[len(_SCHILY) :]] = value
    return found


def parse_gnu_sparse(block: bytes, is_extension: bool) -> tuple[Spans, bool]:
    """The map in an old GNU header or in a block after it, and whether one more block follows."""
    start, count = (0, _SPARSE_EXTENSION_ITEMS) if is_extension else (_SPARSE_AT, 4)
    spans = []
    for at in range(start, start + count * 24, 24):
        if not block[at]:
            break
        spans.append((parse_number(block[at : at + 12]), parse_number(block[at + 12 : at + 24])))
    return spans, bool(block[start + count * 24])


def gnu_real_size(block: bytes) -> int:
    return _size(parse_number(block[483:495]))


def parse_sparse_records(records: list[tuple[bytes, bytes]]) -> Spans | None:
    """The map of a sparse file in pax records (formats 0.0 and 0.1); None: there is none."""
    if any(key == b"GNU.sparse.map" for key, _ in records):
        numbers = [item for key, value in records if key == b"GNU.sparse.map" for item in value.split(b",") if item]
    else:
        numbers = [value for key, value in records if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
        if not numbers:
            return None
    if len(numbers) % 2 or not all(number.isdigit() and len(number) < 20 for number in numbers):
        raise TarFormatError("the map of a sparse file is malformed")
    values = [int(number) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def check_spans(spans: Spans, stored_bytes: int, real_bytes: int) -> Spans:
    """The map without empty spans, in order; refused when it does not fit what is stored."""
    spans = [span for span in spans if span[1]]
    position = 0
    for offset, length in spans:
        if offset < position or length < 0:
            raise TarFormatError("the map of a sparse file is not in order")
        position = offset + length
    if position > real_bytes or sum(length for _, length in spans) != stored_bytes:
        raise TarFormatError("the map of a sparse file does not fit its size")
    return spans


def _has_checksum(block: bytes) -> bool:
    try:
        stored = parse_number(block[148:156])
    except TarFormatError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return stored == sum(rest) or stored == sum(struct.unpack("512b", rest))  # some old programs added signed bytes


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _size(number: int) -> int:
    if number < 0:
        raise TarFormatError(f"{number} is not a size")
    return number
