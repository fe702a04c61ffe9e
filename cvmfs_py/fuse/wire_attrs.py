"""Attributes as the kernel reads them: the structures of GETATTR, LOOKUP and STATX. Pure.

No value crashes them: what does not fit into a field becomes what the kernel makes of such a value, or the nearest
one that it accepts. `attr_packer` does the same for the entries of catalogs, faster.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cvmfs_py.fuse.wire import LARGEST_OFFSET, STATX_BASIC_STATS
from cvmfs_py.vfs.attrs import PREFERRED_IO_BYTES

if TYPE_CHECKING:
    from cvmfs_py.fuse.wire_replies import Validity
    from cvmfs_py.vfs.attrs import Attributes

# ino size blocks, atime mtime ctime with a sign, their nanoseconds, mode nlink uid gid, rdev blksize flags
ATTR = struct.Struct("<QQQqqqIIIIIIIIII")

_TIME = "qI4x"  # a time that STATX carries
_STATX_REPLY = struct.Struct(f"<IiQ16s16xIIQIIIH2xQQQQ{_TIME}16x{_TIME}{_TIME}IIII112x")

_SECOND_NS = 1_000_000_000
_U32_MASK = (1 << 32) - 1
_OLDEST_S = -(1 << 63)
_NEWEST_S = (1 << 63) - 1
_OVERFLOW_ID = 65534  # "nobody": what Linux shows for an owner that cannot be expressed


def encode_device(device: int) -> int:
    """A device number of stat(2), which has 64 bits, as the 32 bits of the kernel: 12 of the major, 20 of the minor.

    The C library put the bits of larger numbers above those, and left these where the kernel has them.
    """
    return device & _U32_MASK


def pack_attr(ino: int, attributes: Attributes) -> bytes:
    size_bytes = _clamp(attributes.size_bytes, 0, LARGEST_OFFSET)
    mtime_s, mtime_ns = _split(attributes.mtime_ns)
    return ATTR.pack(
        ino,
        size_bytes,
        _clamp(attributes.blocks, 0, LARGEST_OFFSET),
        mtime_s,
        mtime_s,
        mtime_s,
        mtime_ns,
        mtime_ns,
        mtime_ns,
        attributes.mode,
        attributes.link_count & _U32_MASK,
        _owner(attributes.uid),
        _owner(attributes.gid),
        encode_device(attributes.rdev),
        PREFERRED_IO_BYTES,
        0,
    )


def pack_statx_reply(unique: int, validity: Validity, ino: int, attributes: Attributes) -> bytes:
    """The basic attributes, whatever was asked for; there is no time of birth."""
    mtime_s, mtime_ns = _split(attributes.mtime_ns)
    device = encode_device(attributes.rdev)
    return _STATX_REPLY.pack(
        _STATX_REPLY.size,
        0,
        unique,
        validity.of_attr,
        STATX_BASIC_STATS,
        PREFERRED_IO_BYTES,
        0,
        attributes.link_count & _U32_MASK,
        _owner(attributes.uid),
        _owner(attributes.gid),
        attributes.mode,
        ino,
        _clamp(attributes.size_bytes, 0, LARGEST_OFFSET),
        _clamp(attributes.blocks, 0, LARGEST_OFFSET),
        0,
        mtime_s,
        mtime_ns,
        mtime_s,
        mtime_ns,
        mtime_s,
        mtime_ns,
        device >> 8 & 0xFFF,
        device & 0xFF | device >> 12 & 0xFFF00,
        0,
        0,
    )


def _split(time_ns: int) -> tuple[int, int]:
    """Whole seconds, which may be negative, and what is to be added."""
    time_s, rest_ns = divmod(time_ns, _SECOND_NS)
    return _clamp(time_s, _OLDEST_S, _NEWEST_S), rest_ns


def _owner(number: int) -> int:
    return number if 0 <= number <= _U32_MASK else _OVERFLOW_ID


def _clamp(value: int, lowest: int, highest: int) -> int:
    return min(max(value, lowest), highest)
