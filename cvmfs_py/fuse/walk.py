"""Which directories a program that walks through a tree will list next. Pure; one for each program.

A guess, never an answer: whoever is wrong has done some work in vain. Concurrency: one thread at a time.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cvmfs_py.vfs.inodes import Inode

_LEVELS = 64
_MOST_SIBLINGS = 1024  # that are kept of one directory: the search among them must stay cheap


class Walk:
    """Directories that were found in listings and not listed themselves yet, deepest last."""

    def __init__(self) -> None:
        self._levels: deque[deque[Inode]] = deque(maxlen=_LEVELS)
        self._current: Inode | None = None
        self._following: int | None = None
        self._goes_down = False  # it has come to a directory that it was told of
        self._is_backward = False  # it takes the directories of a listing from the end, as from a stack

    def listed(self, ino: Inode, subdirectories: Sequence[Inode], following: int | None) -> None:
        """A part of a listing was given to the program. `following`: where that goes on; None: nowhere."""
        self._following = following
        if ino != self._current:
            self._current = ino
            self._enter(ino)
            self._levels.append(deque(maxlen=_MOST_SIBLINGS))
        self._levels[-1].extend(subdirectories)

    def expected(self, count: int) -> Iterator[tuple[Inode, int]]:
        """The next parts of listings, directory and position, the most likely first."""
        if self._following is not None and self._current is not None:
            yield self._current, self._following
            count -= 1
        if not self._goes_down:
            return
        for level in reversed(self._levels):
            siblings = reversed(level) if self._is_backward else iter(level)
            for ino in islice(siblings, count):
                yield ino, 0
                count -= 1
            if count <= 0:
                return

    def _enter(self, ino: Inode) -> None:
        while self._levels:
            level = self._levels[-1]
            if ino in level:
                if len(level) > 1:
                    self._is_backward = level[0] != ino
                level.remove(ino)
                self._goes_down = True
                return
            self._levels.pop()
        self._goes_down = False
