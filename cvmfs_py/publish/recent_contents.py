"""Which contents were packed a short while ago, and what became of them: a small table shared by processes.

Trees with several versions of one program have most files twice; finding them here saves compressing them again. A
fixed number of slots, each with one content: a new one displaces an old one.

Concurrency: any number of processes and threads, without locks. A slot that two of them write at once, or that is read
while it is written, fails its checksum and counts as empty.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvmfs_py.publish.packed import FileRecipe

_SLOTS = 1 << 17
_KEY_BYTES = 24
_DIGEST_BYTES = 20
_CHECKED_BYTES = _KEY_BYTES + _DIGEST_BYTES
_SLOT_BYTES = _CHECKED_BYTES + 4
TABLE_BYTES = _SLOTS * _SLOT_BYTES  # 6.3 MB of which only used pages exist


def new_table() -> int:
    """The descriptor of a new table in memory, to be handed to other processes."""
    fd = os.memfd_create("recent-contents", os.MFD_CLOEXEC)
    os.ftruncate(fd, TABLE_BYTES)
    return fd


class RecentContents:
    """One process's view of a table."""

    def __init__(self, fd: int) -> None:
        """Maps the table; the descriptor stays the caller's."""
        self._slots = mmap.mmap(fd, TABLE_BYTES)

    def close(self) -> None:
        self._slots.close()

    def digest(self, key: bytes) -> bytes | None:
        """The digest of the object that a content became; None: not known."""
        at = _place(key)
        slot = self._slots[at : at + _SLOT_BYTES]
        if slot[:_KEY_BYTES] != key or slot[_CHECKED_BYTES:] != _checksum(slot[:_CHECKED_BYTES]):
            return None
        return slot[_KEY_BYTES:_CHECKED_BYTES]

    def remember(self, key: bytes, digest: bytes) -> None:
        at = _place(key)
        checked = key + digest
        self._slots[at : at + _SLOT_BYTES] = checked + _checksum(checked)


def content_key(content: bytes | bytearray | memoryview, recipe: FileRecipe, letter: str) -> bytes:
    """What a content is known by.

    Not SHA-1, although objects may be: two contents that were made to collide have different objects.
    """
    digester = hashlib.sha256(f"{recipe.algorithm.value} {recipe.compression} {recipe.is_external} {letter}\n".encode())
    digester.update(content)
    return digester.digest()[:_KEY_BYTES]


def _place(key: bytes) -> int:
    return int.from_bytes(key[:4], "little") % _SLOTS * _SLOT_BYTES


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data, 1).to_bytes(4, "little")
