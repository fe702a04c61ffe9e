"""What the kernel is told without having asked: notices that take back what it was allowed to keep, or add to it. Pure.

A notice is written like a reply. The write fails with ENOENT where the kernel knows nothing of what it is about, and
with EINVAL where it does not know the notice.

Concurrency: the kernel takes the locks of an inode or directory while it handles one, and may hold those while it waits
for an answer: a notice about names or pages must not be written by the only thread that answers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cvmfs_py.fuse.wire import EXPIRE_ONLY, Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = struct.Struct("<IiQ")
_INVAL_INODE = struct.Struct("<IiQQqq")
_INVAL_ENTRY = struct.Struct("<IiQQII")
_DELETE = struct.Struct("<IiQQQI4x")
_STORE = struct.Struct("<IiQQQI4x")
_PRUNE = struct.Struct("<IiQI12x")
_INO_BYTES = 8

ATTRIBUTES_ONLY = -1  # the offset that leaves the pages alone


def pack_inval_inode(ino: int, offset: int = 0, size_bytes: int = 0) -> bytes:
    """Forget attributes and pages from an offset on; a size of 0 means to the end."""
    return _INVAL_INODE.pack(_INVAL_INODE.size, Notice.INVAL_INODE, 0, ino, offset, size_bytes)


def pack_inval_entry(parent: int, name: bytes, expire_only: bool = False) -> bytes:
    """Forget a name; or only let it expire, where the kernel agreed to HAS_EXPIRE_ONLY."""
    flags = EXPIRE_ONLY if expire_only else 0
    size_bytes = _INVAL_ENTRY.size + len(name) + 1
    return _INVAL_ENTRY.pack(size_bytes, Notice.INVAL_ENTRY, 0, parent, len(name), flags) + name + b"\0"


def pack_delete(parent: int, child: int, name: bytes) -> bytes:
    """A name is gone; unlike an invalidation that also holds where it is somebody's working directory."""
    size_bytes = _DELETE.size + len(name) + 1
    return _DELETE.pack(size_bytes, Notice.DELETE, 0, parent, child, len(name)) + name + b"\0"


def pack_inc_epoch() -> bytes:
    """All names are stale and asked for again at their next use. Only what is in use then keeps its inode and pages."""
    return _HEAD.pack(_HEAD.size, Notice.INC_EPOCH, 0)


def pack_store_head(ino: int, offset: int, data_bytes: int) -> bytes:
    """What comes before pages that the kernel shall have without asking."""
    return _STORE.pack(_STORE.size + data_bytes, Notice.STORE, 0, ino, offset, data_bytes)


def pack_prune(inos: Sequence[int]) -> bytes:
    """Let go of inodes that nobody uses."""
    head = _PRUNE.pack(_PRUNE.size + len(inos) * _INO_BYTES, Notice.PRUNE, 0, len(inos))
    return head + struct.pack(f"<{len(inos)}Q", *inos)
