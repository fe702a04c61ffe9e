"""What the kernel is answered: reply messages and their parts, put together. Pure; sends nothing.

A function whose name ends in `_reply` makes a whole message, the others make parts of one. Large bodies are sent after
`pack_reply_head` with one gathering write, without being copied.
"""

from __future__ import annotations

import struct
from errno import ERANGE
from typing import NamedTuple

from cvmfs_py.fuse.wire import ATTR_BYTES, ENTRY_BYTES, OUT_HEADER_BYTES, RECORD_ALIGNMENT_BYTES

FOREVER_S = float(1 << 31)  # 68 years: the kernel counts in ticks and would make less of a much larger number
NO_ENTRY = bytes(ENTRY_BYTES)  # where READDIRPLUS gives a name without inode and attributes

_HEAD = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QQ24s88s")
_ENTRY_REPLY = struct.Struct("<IiQ128s")
_ATTR_REPLY = struct.Struct("<IiQ16s88s")
_OPEN_REPLY = struct.Struct("<IiQQI4x")
_STATFS_REPLY = struct.Struct("<IiQQQQQQIII28x")
_SIZE_REPLY = struct.Struct("<IiQI4x")
_LSEEK_REPLY = struct.Struct("<IiQQ")
_ENTRY_VALIDITY = struct.Struct("<QQII")
_ATTR_VALIDITY = struct.Struct("<QI4x")

_LONGEST_PREPARED_NAME_BYTES = 256
_DIRENT = struct.Struct("<QQII")


class Validity(NamedTuple):
    """How long the kernel may rely on an answer, as it is written into answers."""

    of_entry: bytes  # of a name, and of the attributes that come with it
    of_attr: bytes  # of attributes alone


def pack_validity(entry_timeout_s: float, attr_timeout_s: float) -> Validity:
    entry_s, entry_ns = _split(entry_timeout_s)
    attr_s, attr_ns = _split(attr_timeout_s)
    return Validity(_ENTRY_VALIDITY.pack(entry_s, attr_s, entry_ns, attr_ns), _ATTR_VALIDITY.pack(attr_s, attr_ns))


def _split(timeout_s: float) -> tuple[int, int]:
    timeout_ns = round(min(max(timeout_s, 0.0), FOREVER_S) * 1e9)
    return divmod(timeout_ns, 1_000_000_000)


def pack_error_reply(unique: int, errno: int) -> bytes:
    return _HEAD.pack(OUT_HEADER_BYTES, -errno, unique)


def pack_empty_reply(unique: int) -> bytes:
    """Success, with nothing to tell."""
    return _HEAD.pack(OUT_HEADER_BYTES, 0, unique)


def pack_reply_head(unique: int, body_bytes: int) -> bytes:
    """What comes before a body of this size."""
    return _HEAD.pack(OUT_HEADER_BYTES + body_bytes, 0, unique)


def pack_reply(unique: int, body: bytes) -> bytes:
    """The answer to READLINK, READ, READDIR, READDIRPLUS: nothing but content."""
    return _HEAD.pack(OUT_HEADER_BYTES + len(body), 0, unique) + body


def pack_entry(ino: int, validity: Validity, attr: bytes) -> bytes:
    """An inode as the answer to a lookup, or before a record of READDIRPLUS; each counts as one lookup.

    The generation is always 0, because a number never stands for another inode later.
    """
    return _ENTRY.pack(ino, 0, validity.of_entry, attr)


def pack_negative_entry(validity: Validity) -> bytes:
    """There is no such name, and that may be remembered; an error with ENOENT may not."""
    return _ENTRY.pack(0, 0, validity.of_entry, bytes(ATTR_BYTES))


def pack_entry_reply(unique: int, entry: bytes) -> bytes:
    return _ENTRY_REPLY.pack(_ENTRY_REPLY.size, 0, unique, entry)


def pack_attr_reply(unique: int, validity: Validity, attr: bytes) -> bytes:
    return _ATTR_REPLY.pack(_ATTR_REPLY.size, 0, unique, validity.of_attr, attr)


def pack_open_reply(unique: int, fh: int, fopen_flags: int) -> bytes:
    """The answer to OPEN and OPENDIR."""
    return _OPEN_REPLY.pack(_OPEN_REPLY.size, 0, unique, fh, fopen_flags)


class FileSystemStatistics(NamedTuple):
    """What statfs answers, in the order of the protocol."""

    blocks: int
    free_blocks: int
    available_blocks: int
    inodes: int
    free_inodes: int
    io_bytes: int
    longest_name_bytes: int
    block_bytes: int


def pack_statfs_reply(unique: int, statistics: FileSystemStatistics) -> bytes:
    return _STATFS_REPLY.pack(_STATFS_REPLY.size, 0, unique, *statistics)


def pack_xattr_reply(unique: int, room_bytes: int, value: bytes) -> bytes:
    """The answer to GETXATTR and LISTXATTR: the value, its size when there is no room asked for, or ERANGE."""
    if room_bytes == 0:
        return _SIZE_REPLY.pack(_SIZE_REPLY.size, 0, unique, len(value))
    if len(value) > room_bytes:
        return pack_error_reply(unique, ERANGE)
    return pack_reply(unique, value)


def pack_lseek_reply(unique: int, offset: int) -> bytes:
    return _LSEEK_REPLY.pack(_LSEEK_REPLY.size, 0, unique, offset)


def _prepare(head_format: str) -> list[struct.Struct]:
    """One format for every multiple of the alignment: `struct` fills a shorter name up with NULs by itself."""
    steps = range(0, _LONGEST_PREPARED_NAME_BYTES + 1, RECORD_ALIGNMENT_BYTES)
    return [struct.Struct(f"{head_format}{step}s") for step in steps]


_DIRENTS = _prepare(_DIRENT.format)
_ENTRY_RECORDS = _prepare(_ENTRY.format + _DIRENT.format.removeprefix("<"))


def pack_dirent(ino: int, offset: int, name: bytes, kind: int) -> bytes:
    """A record of READDIR. `offset` is where the listing goes on after it, `kind` is the file's type (mode >> 12)."""
    name_bytes = len(name)
    if name_bytes > _LONGEST_PREPARED_NAME_BYTES:
        return _DIRENT.pack(ino, offset, name_bytes, kind) + name + bytes(-name_bytes % RECORD_ALIGNMENT_BYTES)
    return _DIRENTS[(name_bytes + 7) >> 3].pack(ino, offset, name_bytes, kind, name)


def pack_entry_record(ino: int, validity: Validity, attr: bytes, offset: int, name: bytes, kind: int) -> bytes:
    """A record of READDIRPLUS: `pack_entry`, which counts as one lookup, and `pack_dirent` in one."""
    name_bytes = len(name)
    if name_bytes > _LONGEST_PREPARED_NAME_BYTES:
        return pack_entry(ino, validity, attr) + pack_dirent(ino, offset, name, kind)
    prepared = _ENTRY_RECORDS[(name_bytes + 7) >> 3]
    return prepared.pack(ino, 0, validity.of_entry, attr, ino, offset, name_bytes, kind, name)


def pack_name_record(ino: int, offset: int, name: bytes, kind: int) -> bytes:
    """A record of READDIRPLUS that tells no more than READDIR would: whoever wants to know looks the name up."""
    return NO_ENTRY + pack_dirent(ino, offset, name, kind)
