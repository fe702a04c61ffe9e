"""Small files that will be read next, because a program reads those of a directory one after the other.

Their objects are opened and on their way from the disk when they are asked for, or being fetched when they are not
here. A guess, never an answer: whoever is wrong has opened a few files in vain, and fetches little.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from cache.errors import CacheError
from cache.ref import NotLocal
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from catalog.content import Span
    from catalog.opened import OpenObject
    from catalog.sql import LocalObject
    from cvmfs_py.fuse.volume import Volume
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.recent import Recent

_READERS = 8  # programs that are watched at a time
_PLANNED = 16  # files that one query of a catalog tells
_OPENED = 8  # objects that are open ahead of a program: an ordinary disk works on as many at once
_LARGEST_BYTES = 1 << 20  # larger files are read in order by themselves, and the kernel reads ahead in them
_AT_ONCE = 4  # are opened in one step: a program that reads without a pause would always be faster than one
_NEAR = 2  # inode numbers: rows of other kinds lie between files
_STEPS_BEFORE_FETCHING = 3  # what is guessed wrongly costs others' bandwidth


class _Reader:
    """A program that reads files."""

    __slots__ = ("end", "last", "opened", "planned", "steps", "tail")

    def __init__(self) -> None:
        self.last = 0
        self.steps = 0  # from file to file in the order of a directory, without another one between
        self.tail: Inode | None = None  # what comes after this one is not planned yet
        self.end = 0  # nothing comes after this one
        self.planned: deque[tuple[Inode, Span]] = deque()
        self.opened: OrderedDict[Inode, LocalObject] = OrderedDict()

    def comes_to(self, ino: Inode) -> bool:
        """Whether this file is next. Who leaves out more than one is choosing, and what is opened ahead is in vain."""
        known = [*self.opened, *(planned for planned, _ in self.planned)]
        if ino in known:
            return sum(self.last < each < ino for each in known) <= 1
        return 0 < ino - self.last <= _NEAR

    def close(self) -> None:
        while self.opened:
            self.opened.popitem()[1].close()


class FilesAhead:
    """For the files of one volume. What it finds out about files, it puts into `plans`."""

    def __init__(self, volume: Volume, plans: Recent[tuple[Span, ...]], limit: int) -> None:
        """`limit`: so many objects may be open for all programs together."""
        self._limit = limit
        self._volume = volume
        self._plans = plans
        self._readers: OrderedDict[int, _Reader] = OrderedDict()  # by process

    def __len__(self) -> int:
        """The number of objects that are open."""
        return sum(len(reader.opened) for reader in self._readers.values())

    def close(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def begins(self, process: int, ino: Inode) -> None:
        """A program reads the first bytes of a file."""
        reader = self._readers.get(process)
        if reader is None:
            reader = self._readers[process] = _Reader()
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(process)
        is_next = reader.comes_to(ino)
        reader.last = ino
        if not is_next:
            reader.steps = 1 if reader.steps >= _STEPS_BEFORE_FETCHING else 0  # mostly it has come to another directory
            reader.planned.clear()
            reader.close()
            reader.tail, reader.end = ino, 0
            return
        reader.steps += 1
        planned = reader.planned
        while planned and planned[0][0] <= ino:
            planned.popleft()
        if reader.tail is None and not planned and ino > reader.end:
            reader.tail = ino

    def take(self, process: int, ino: Inode) -> LocalObject | None:
        """The object of a small file, when it is open already."""
        reader = self._readers.get(process)
        return None if reader is None else reader.opened.pop(ino, None)

    def prepare(self, open_object: OpenObject) -> bool:
        """Does one step for one program. Whether there was something to do."""
        for reader in reversed(self._readers.values()):
            if not reader.steps:
                continue
            if not reader.planned and reader.tail is not None:
                self._plan(reader, reader.tail, open_object)
            has_opened = False
            for _ in range(_AT_ONCE):
                if not reader.planned or not self._make_room(reader) or not self._open(reader, open_object):
                    break
                has_opened = True
            if has_opened:
                return True
        return False

    def fetch(self, process: int, open_object: OpenObject) -> None:
        """A program waits for a file that is not here: the next ones will not be here, either."""
        reader = self._readers.get(process)
        if reader is None or reader.steps < _STEPS_BEFORE_FETCHING:
            return
        if not reader.planned and reader.tail is not None:
            self._plan(reader, reader.tail, open_object)
        self._fetch(reader)

    def _make_room(self, reader: _Reader) -> bool:
        """Whether one more object may be open for a program. What it has passed by goes, and what others want less."""
        opened = reader.opened
        if len(opened) >= _OPENED:
            oldest = next(iter(opened))
            if oldest > reader.last:
                return False
            opened.pop(oldest).close()
        if len(self) < self._limit:
            return True
        for other in self._readers.values():
            if other is reader:  # those after it have read since
                return False
            if other.opened:
                other.opened.popitem()[1].close()
                return True
        return False

    def _plan(self, reader: _Reader, tail: Inode, open_object: OpenObject) -> None:
        reader.tail = None
        with suppress(NotLocal, CvmfsError, CatalogError, CacheError):  # whoever asks for them will be told
            files, reader.tail = self._volume.files.following(tail, _PLANNED, open_object)
            for ino, spans in files:
                self._plans.put(ino, spans)
                if len(spans) == 1 and spans[0].length <= _LARGEST_BYTES and ino > reader.last:
                    reader.planned.append((ino, spans[0]))
            if reader.tail is None:
                reader.end = files[-1][0] if files else tail

    def _open(self, reader: _Reader, open_object: OpenObject) -> bool:
        """Opens the first object that is planned; whether that can go on."""
        ino, span = reader.planned[0]
        if ino not in reader.opened:
            try:
                pin = open_object(span.ref)
            except NotLocal:
                if reader.steps >= _STEPS_BEFORE_FETCHING:
                    self._fetch(reader)
                return False
            except CacheError:
                return False
            with suppress(OSError):
                os.posix_fadvise(pin.fd, 0, span.length, os.POSIX_FADV_WILLNEED)
            reader.opened[ino] = pin
        reader.planned.popleft()
        return True

    def _fetch(self, reader: _Reader) -> None:
        self._volume.fetch_ahead(tuple(span.ref for _, span in reader.planned))
