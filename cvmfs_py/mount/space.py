"""The inodes of a mount that shows one repository, which may still be on its way when the first requests come.

A container runtime hands over a descriptor that is mounted already and expects no handshake: requests then wait here,
with a deadline. Concurrency: tasks of one event loop.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from cvmfs_py.errors import FetchError, FsError, in_full

if TYPE_CHECKING:
    from cvmfs_py.fuse.volume import Volume

PATIENCE_S = 120.0


class SingleSpace:
    """One volume, which owns every inode."""

    def __init__(self, volume: Volume | None = None) -> None:
        self._volume = volume
        self._failure: BaseException | None = None
        self._decided = trio.Event()
        if volume is not None:
            self._decided.set()

    def open(self, volume: Volume) -> None:
        self._volume = volume
        self._decided.set()

    def fail(self, failure: BaseException) -> None:
        """There will be no volume: whoever waits is told."""
        self._failure = failure
        self._decided.set()

    @property
    def is_ready(self) -> bool:
        return self._volume is not None

    async def ready(self) -> None:
        if self._volume is not None:
            return
        with trio.move_on_after(PATIENCE_S):
            await self._decided.wait()
        if self._failure is not None:
            raise FetchError(in_full(self._failure))
        if self._volume is None:
            raise FetchError(f"the repository was not opened within {PATIENCE_S:g} s")

    def owner(self, ino: int) -> Volume:
        if self._volume is None:
            raise FsError(errno.ESTALE, f"inode {ino} is not known")
        return self._volume
