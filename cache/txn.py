"""Transactions of a cache directory: an object is written to a locked file in `txn/`, sealed, and given its name.

No fsync: an object can always be fetched again, and an fsync per object would cost more than the download. A crash of
the process loses nothing that was committed; after a power cut a file whose blocks were not written has another size
than its seal, or fails its check.

Losing a race to commit an object is fine: the same name means the same content. The file that was first stays, because
others may use it by its name.

Concurrency: `write` may run in a worker thread; the rest in the thread of the store.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

from cache.errors import CacheError, CacheFullError
from cache.layout import FULL_ERRNOS, full_cure, write_error
from cache.lockfile import create_locked, dead_files, remove_file
from cache.seal import is_sealed, seal_ns
from cache.store import Transaction
from cache.tiers import open_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cache.layout import Layout
    from cache.pins import Pin
    from cache.ref import ObjectRef

    Result = TypeVar("Result")


logger = logging.getLogger(__name__)


def remove_leftovers(layout: Layout) -> int:
    """Remove what dead writers left in `txn/`; what a living process writes is locked and stays."""
    return sum(remove_file(path) for path in dead_files(layout.txn))


class Room:
    """Runs operations that need room on the disk: when it is full, evicts and tries once more."""

    def __init__(self, directory: str, make_room: Callable[[int], bool]) -> None:
        self._directory = directory
        self._make_room = make_room

    def run(self, needed_bytes: int, operation: Callable[[], Result]) -> Result:
        try:
            return operation()
        except OSError as error:
            if error.errno not in FULL_ERRNOS or not self._make_room(needed_bytes):
                raise self._translated(error) from error
        try:
            return operation()
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> CacheError:
        if error.errno in FULL_ERRNOS:
            return CacheFullError(
                f"the disk of the cache {self._directory} is full ({error.strerror}), and nothing more can be evicted;"
                f" {full_cure(self._directory)}"
            )
        return write_error(self._directory, error)


class DirectoryTransaction(Transaction):
    """An object on its way into a cache directory."""

    def __init__(self, ref: ObjectRef, layout: Layout, room: Room, committed: Callable[[int, int, str], Pin]) -> None:
        """`committed(fd, size_bytes, text)` makes the pin of an object that is in place."""
        super().__init__(ref)
        self._layout = layout
        self._room = room
        self._committed = committed
        self._fd, self._temporary = room.run(0, lambda: create_locked(layout.txn, "object"))

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self._room.run(len(view), functools.partial(os.write, self._fd, view)) :]

    def _publish(self) -> Pin:
        text = str(self.ref.content_hash)
        size_bytes = self.written_bytes
        target = self._layout.object(text)
        try:
            self._seal(text, size_bytes)
            # Opened before it has its name: afterwards another process may evict it at any time.
            fd = os.open(self._temporary, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise write_error(self._layout.directory, error) from error
        try:
            if not self._room.run(0, lambda: _give_name(self._temporary, target)):
                twin = self._open_twin(target)
                if twin is None:
                    self._room.run(0, lambda: os.rename(self._temporary, target))
                else:
                    os.close(fd)
                    fd = twin
            return self._committed(fd, size_bytes, text)
        except BaseException:
            os.close(fd)
            raise

    def _open_twin(self, path: str) -> int | None:
        """The same object, which somebody else has committed meanwhile; None if that one is damaged, or gone again."""
        fd = open_object(path)
        if fd is None:
            return None
        there, here = os.fstat(fd), os.fstat(self._fd)
        if (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns):
            return fd
        os.close(fd)
        return None

    def _seal(self, text: str, size_bytes: int) -> None:
        # The time of access orders objects whose recency was lost; it is that of the file's creation.
        atime_ns = os.fstat(self._fd).st_atime_ns
        # Network file systems report a failed write when a descriptor is closed; this keeps the lock.
        os.close(os.dup(self._fd))
        os.utime(self._fd, ns=(atime_ns, seal_ns(text, size_bytes, self._checksum)))
        info = os.fstat(self._fd)
        if info.st_size != size_bytes or not is_sealed(text, info.st_size, info.st_mtime_ns):
            raise CacheError(
                f"the file system of {self._layout.directory} does not keep sizes and modification times; choose"
                " another cache directory"
            )

    def _drop(self) -> None:
        try:
            remove_file(self._temporary)
        except OSError as error:  # not worth hiding why the transaction failed
            logger.warning("cannot remove %s: %s", self._temporary, error.strerror)
        os.close(self._fd)


def _give_name(temporary: str, target: str) -> bool:
    """Makes a file visible; False if the name is taken."""
    try:
        return _link(temporary, target)
    except FileNotFoundError:  # the first object with these two digits
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        return _link(temporary, target)


def _link(temporary: str, target: str) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # there are file systems without hard links
        os.rename(temporary, target)
    return True
