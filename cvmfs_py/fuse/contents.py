"""Reads file contents out of the objects of the cache: what is in memory at once, what is on a slow disk in a thread.

Keeps the descriptors of the objects read last, because opening one costs more than reading from it. Fetches what comes
next of a large file that is read in order. Plans nothing itself: spans come from the file system core.

Concurrency: for tasks of one event loop. A thread reads from a descriptor of its own.
"""

from __future__ import annotations

import os
import resource
import time
from collections import OrderedDict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import trio

from cache.errors import CacheError, ObjectCorruptError
from cache.ref import NotLocal
from cache.store import open_all
from catalog.content import spans_between
from cvmfs_py.fuse.files_ahead import FilesAhead
from cvmfs_py.vfs.recent import Recent

if TYPE_CHECKING:
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.content import Span
    from catalog.opened import OpenObject
    from cvmfs_py.fuse.volume import Volume
    from cvmfs_py.vfs.inodes import Inode

DESCRIPTORS = 128
PLANS = 4096
GROUP = 16  # objects that one read has open at once
GROUPED_READS = 2  # at once, of those that need more: each is waited for with its descriptors in hand
FETCHED_AHEAD_BYTES = 32 << 20  # of a file that is read in order; at least the next object
FETCHED_AHEAD_OBJECTS = 64
LOADED_AHEAD_BYTES = 2 << 20  # from the disk
LOADED_AHEAD_OBJECTS = 8
SHORT_WAITS = 3  # for a disk, while nothing else is done
_SHORT_WAIT_S = 20e-6
READS_AFTER_SLOW = 32
_THREADS = trio.CapacityLimiter(16)  # that wait for disks: more would not make one faster


class Piece(NamedTuple):
    """A part of what was asked for that lies in one object."""

    span: Span
    offset: int  # in the object
    length: int


def plan_pieces(spans: tuple[Span, ...], offset: int, length: int) -> list[Piece]:
    """What to read for these bytes of a file; nothing beyond its end."""
    if len(spans) == 1:  # most files
        span = spans[0]
        length = min(length, span.length - offset)
        return [Piece(span, offset, length)] if length > 0 and offset >= 0 else []
    pieces = []
    end = offset + length
    for span in spans_between(spans, offset, length):
        begin = max(span.offset, offset)
        pieces.append(Piece(span, begin - span.offset, min(span.end, end) - begin))
    return pieces


def _descriptors() -> int:
    """How many to keep: an eighth of what this process may have is little enough for all others to go on."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else max(1, min(DESCRIPTORS, soft // 8))


class Contents:
    """The contents of one volume's files."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._limit = _descriptors()
        self._pins: OrderedDict[ObjectRef, Pin] = OrderedDict()
        self._plans: Recent[tuple[Span, ...]] = Recent(PLANS)
        self._files_ahead = FilesAhead(volume, self._plans, self._limit // 2)
        self._memory = memoryview(bytearray(0))
        self._grouped_reads = trio.CapacityLimiter(GROUPED_READS)
        self._reads_in_threads = 0  # so many, before a disk that was slow is waited for again
        self._positions: OrderedDict[Inode, int] = OrderedDict()  # where the next read in order would begin

    def __len__(self) -> int:
        """The number of objects that are kept open."""
        return len(self._pins) + len(self._files_ahead)

    def close(self) -> None:
        self._files_ahead.close()
        while self._pins:
            self._pins.popitem()[1].close()

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]:
        """The objects of a file."""
        found = self._plans.get(ino)
        if found is None:
            found = self._volume.files.spans(ino, open_object)
            self._plans.put(ino, found)
        return found

    def begins(self, process: int, ino: Inode) -> None:
        """A program reads the first bytes of a file."""
        self._files_ahead.begins(process, ino)

    def prepare(self) -> bool:
        """Does a little for files that are likely to be read next. Whether there was something to do."""
        return self._files_ahead.prepare(self._volume.open_object)

    def hold(self, refs: tuple[ObjectRef, ...], open_object: OpenObject) -> None:
        """Makes sure that these objects are open; NotLocal names all that are missing."""
        missing = tuple(dict.fromkeys(ref for ref in refs if ref not in self._pins))
        for ref, pin in zip(missing, open_all(missing, open_object), strict=True):  # type: ignore[arg-type]
            self._pins[ref] = pin
        while len(self._pins) > max(self._limit, len(refs)):
            oldest = next(each for each in self._pins if each not in refs)
            self._pins.pop(oldest).close()

    def read_now(self, pieces: list[Piece]) -> memoryview | None:
        """The bytes when all of them are in memory; the objects must be held. None: a disk has to be waited for.

        They are to be used at once: the next call puts others into the same place.
        """
        data = self._room(sum(piece.length for piece in pieces))
        begin = 0
        for piece in pieces:
            self._pins.move_to_end(piece.span.ref)
            part = data[begin : begin + piece.length]
            if not self._read_soon(self._pins[piece.span.ref].fd, part, piece.offset):
                return None
            begin += piece.length
        return data

    def _room(self, length: int) -> memoryview:
        """Memory that is in use already: new memory of a megabyte costs as much as what is read into it."""
        if length > len(self._memory):
            self._memory = memoryview(bytearray(length))
        return self._memory[:length]

    async def read(
        self, ino: Inode, spans: tuple[Span, ...], offset: int, length: int, process: int = 0
    ) -> bytes | memoryview:
        """The bytes of a file, fetched when needed. Short only at its end."""
        pieces = plan_pieces(spans, offset, length)
        if not pieces:
            return b""
        self.look_ahead(ino, spans, offset, length)
        if process:
            self._files_ahead.fetch(process, self._volume.open_object)
        if len(pieces) <= GROUP:
            return await self._read_group(pieces)
        async with self._grouped_reads:
            groups = [pieces[start : start + GROUP] for start in range(0, len(pieces), GROUP)]
            return b"".join([bytes(await self._read_group(group)) for group in groups])

    async def _read_group(self, pieces: list[Piece]) -> bytes | memoryview:
        refs = tuple(piece.span.ref for piece in pieces)
        await self._volume.run(lambda open_object: self.hold(refs, open_object), is_data=True)
        data = self.read_now(pieces)
        return await self._read_in_thread(pieces) if data is None else data

    def look_ahead(self, ino: Inode, spans: tuple[Span, ...], offset: int, length: int) -> None:
        """When a large file is read in order: lets come what is next, from the servers and from the disk."""
        end = offset + length
        if spans[-1].end <= end:
            return
        expected = self._positions.pop(ino, 0)
        self._positions[ino] = end
        if len(self._positions) > PLANS:
            self._positions.popitem(last=False)
        # The kernel reads ahead with several requests at once, which do not come in order.
        if abs(offset - expected) > max(length, 1 << 20):
            return
        if len(spans) > 1:
            ahead = spans_between(spans, end, FETCHED_AHEAD_BYTES)
            missing = (span.ref for span in ahead if span.ref not in self._pins)
            wanted = tuple(islice(missing, FETCHED_AHEAD_OBJECTS))
            if wanted:
                self._volume.fetch_ahead(wanted)
        if offset // LOADED_AHEAD_BYTES != end // LOADED_AHEAD_BYTES:
            for piece in plan_pieces(spans, end, 2 * LOADED_AHEAD_BYTES)[:LOADED_AHEAD_OBJECTS]:
                self._load(piece)

    def _load(self, piece: Piece) -> None:
        """Lets the kernel read from the disk, and waits for nothing."""
        with suppress(NotLocal, CacheError, OSError):
            self.hold((piece.span.ref,), self._volume.open_object)
            os.posix_fadvise(self._pins[piece.span.ref].fd, piece.offset, piece.length, os.POSIX_FADV_WILLNEED)

    def read_whole(self, process: int, ino: Inode, span: Span, open_object: OpenObject) -> memoryview | None:
        """All of one object, as `read_now`. It is not kept open: the kernel has it now and will not ask again soon."""
        pin = self._files_ahead.take(process, ino) or open_object(span.ref)
        data = self._room(span.length)
        try:
            return data if self._read_soon(pin.fd, data, 0) else None
        finally:
            pin.close()

    def _read_soon(self, fd: int, data: memoryview, offset: int) -> bool:
        """Fills the data, unless a disk has to be waited for."""
        if _read_cached(fd, data, offset):
            return True
        if self._reads_in_threads:
            self._reads_in_threads -= 1
            return False
        # Linux begins to read what it could not give at once. A fast disk has it before a thread would have begun:
        # nine of ten small files after the first of these waits, each of some 75 us.
        for _ in range(SHORT_WAITS):
            time.sleep(_SHORT_WAIT_S)
            if _read_cached(fd, data, offset):
                return True
        self._reads_in_threads = READS_AFTER_SLOW
        return False

    async def _read_in_thread(self, pieces: list[Piece]) -> bytes:
        copies = [self._pins[piece.span.ref].duplicate() for piece in pieces]

        def read() -> bytes:
            parts = [pin.read(piece.length, piece.offset) for pin, piece in zip(copies, pieces, strict=True)]
            return parts[0] if len(parts) == 1 else b"".join(parts)

        try:
            return await trio.to_thread.run_sync(read, limiter=_THREADS)
        except ObjectCorruptError:
            self._drop(pieces)
        finally:
            for pin in copies:
                pin.close()
        # Truncated while it was open, or the disk fails: the driver replaces the object, once.
        return await self._volume.run(lambda open_object: self._read_anew(pieces, open_object), is_data=True)

    def _read_anew(self, pieces: list[Piece], open_object: OpenObject) -> bytes:
        refs = tuple(piece.span.ref for piece in pieces)
        try:
            self.hold(refs, open_object)
            return b"".join(self._pins[piece.span.ref].read(piece.length, piece.offset) for piece in pieces)
        except ObjectCorruptError:
            self._drop(pieces)
            raise

    def _drop(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            pin = self._pins.pop(piece.span.ref, None)
            if pin is not None:
                pin.close()


def _read_cached(fd: int, data: memoryview, offset: int) -> bool:
    """Fills the data when the kernel has all of it in memory."""
    try:
        return os.preadv(fd, (data,), offset, os.RWF_NOWAIT) == len(data)
    except OSError:  # a disk has to be waited for, or the file system cannot tell; a thread finds out which
        return False
