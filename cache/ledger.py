"""The ledger of a cache directory: what was used, added and removed, first in memory, in batches in the index.

Whatever is wrong with the index (missing, damaged, locked, disk full, read-only directory), the store goes on: entries
wait here, and a comparison with the files makes up for what was lost. Decides nothing about eviction.

Opening a store does not touch the index. A process that changes files holds a locked mark in `running/`; a mark
without its process tells of unwritten entries, and starts that comparison at the next use of the index.

Concurrency: guarded by `lock`, because a worker thread that meets a full disk evicts.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from cache.address import Kind
from cache.errors import CacheError
from cache.index import Index, IndexDamagedError
from cache.layout import READ_ONLY_ERRNOS
from cache.lockfile import create_locked, dead_files, remove_file, sole_worker
from cache.lru import Lru

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.layout import Layout
    from cache.lru import Use
    from cache.pins import PinCounts
    from cache.ref import ObjectRef

logger = logging.getLogger(__name__)

_FLUSH_USES = 4096
_RETRY_USES = 256  # new entries before the next attempt to write to an index that could not be written
_MOST_USES = 65536  # kept while the index cannot be written
_STEP_FILES = 2048  # compared between two commits: about 20 ms
_LEFT_BEHIND = "left-behind"


class Ledger:
    """The uses of one process, and its connection to the index."""

    def __init__(self, layout: Layout, pins: PinCounts) -> None:
        self.lock = threading.RLock()
        self.recent = Lru()  # not in the index yet
        self.removed_recently: set[str] = set()  # as well
        self.gauge_bytes: int | None = None  # of all processes, when last read
        self._layout = layout
        self._pins = pins
        self._index: Index | None = None
        self._comparison: Iterator[int] | None = None
        self._dead_marks: list[str] = []
        self._mark: tuple[int, str] | None = None
        self._retry_at_uses = 0
        self._has_lost_entries = False
        self._is_read_only = False

    def used(self, text: str, size_bytes: int, ref: ObjectRef) -> None:
        if self._is_read_only:
            return
        with self.lock:
            self.recent.touch(text, size_bytes, ref)
            if len(self.recent) >= _FLUSH_USES and self.may_flush:
                self.flush()

    def inserted(self, text: str, size_bytes: int, ref: ObjectRef) -> None:
        with self.lock:
            self.removed_recently.discard(text)
            self.recent.insert(text, size_bytes, ref)

    def removed(self, text: str) -> None:
        with self.lock:
            self.recent.forget(text)
            self.removed_recently.add(text)

    @property
    def used_bytes(self) -> int:
        """What is stored, as far as this process knows without asking."""
        return (self.gauge_bytes or 0) + self.recent.inserted_bytes

    def read_gauge(self) -> int:
        """What is stored, as all processes have counted it until now."""
        with self.lock:
            index = self.readable()
            if index is not None:
                try:
                    self.gauge_bytes = index.gauge()[0]
                except CacheError as error:
                    self.doubt_index(error)
            return self.used_bytes

    @property
    def may_flush(self) -> bool:
        """False while the index could not be written recently: every attempt may wait for a lock."""
        return len(self.recent) >= self._retry_at_uses

    @property
    def is_comparing(self) -> bool:
        return self._comparison is not None

    def begin_work(self) -> None:
        """Leave a mark that outlives only a crash. Raises OSError."""
        with self.lock:
            if self._mark is None:
                self._mark = create_locked(self._layout.running, "process")

    def directory_was_remade(self) -> None:
        """Everything in the directory vanished, the mark as well."""
        with self.lock:
            if self._mark is not None:
                os.close(self._mark[0])
                self._mark = None
            self._drop_index()

    def flush(self, also_in_use: Iterable[str] = (), create: bool = False) -> bool:
        """Write everything to the index; False where that is not possible now, and then the entries wait."""
        with self.lock:
            try:
                written = self._flush_once(also_in_use, create)
            except IndexDamagedError as error:
                self.doubt_index(error)
                written = self._retry_flush()
            except (CacheError, OSError) as error:
                self._note_failure(error)
                written = False
            if written:
                self._retry_at_uses = 0
            else:
                self._drop_index()
                self._retry_at_uses = len(self.recent) + _RETRY_USES
                if self._is_read_only or len(self.recent) > _MOST_USES:
                    self._has_lost_entries = bool(self.recent.inserted)
                    self.recent.clear()
                    self._retry_at_uses = _RETRY_USES
            return written

    def advance(self) -> bool:
        """Flush, and do a bounded part of a comparison with the files, if one is under way. True when all is known."""
        with self.lock:
            return self.flush() and self._compare(_STEP_FILES)

    def complete(self) -> Index | None:
        """The index in agreement with the files; None where there cannot be one now."""
        with self.lock:
            if not self.flush(create=True):
                return None
            self._look_for_crashes()
            return self._index if self._compare(None) else None

    def readable(self) -> Index | None:
        """The index as it is, which may be read even on a full disk."""
        with self.lock:
            try:
                return self._connect(create=False)
            except (CacheError, OSError) as error:
                self._note_failure(error)
                return None

    def doubt_index(self, error: CacheError) -> None:
        """Something read from the index failed: connect anew next time, to a new index where this one is damaged."""
        with self.lock:
            self._drop_index()
            if not isinstance(error, IndexDamagedError):
                self._note_failure(error)
                return
            logger.warning("%s; it is made anew", error)
            from cache.rebuild import create_index

            try:
                with sole_worker(self._layout.lock) as alone:
                    if alone:
                        create_index(self._layout)
            except (CacheError, OSError) as failure:
                self._note_failure(failure)

    def close(self) -> None:
        with self.lock:
            done = not (self.recent.inserted or self.removed_recently)
            if len(self.recent) or not done:
                done = self.flush() or done
            done = done and not self._has_lost_entries
            self._drop_index()
            if self._mark is None:
                return
            fd, path = self._mark
            self._mark = None
            try:
                if done:
                    remove_file(path)
                else:  # one name for all, so that they do not pile up
                    os.rename(path, os.path.join(self._layout.running, _LEFT_BEHIND))
            except OSError as error:
                logger.debug("the mark %s stays: %s", path, error)
            os.close(fd)

    def _flush_once(self, also_in_use: Iterable[str], create: bool) -> bool:
        index = self._connect(create or self.recent.inserted > 0)
        if index is None:
            return False
        # Of the uses of one batch those of catalogs count as younger: every path needs them.
        uses = sorted(self.recent.oldest_first(), key=_is_catalog)
        index.record(uses, [*also_in_use, *self._pins], self.removed_recently, self._layout.has_object)
        self.recent.clear()
        self.removed_recently.clear()
        self.gauge_bytes = index.gauge()[0]
        return True

    def _retry_flush(self) -> bool:
        try:
            return self._flush_once((), create=True)
        except (CacheError, OSError) as error:
            self._note_failure(error)
            return False

    def _connect(self, create: bool) -> Index | None:
        if self._index is not None and not self._index.is_current():
            self._drop_index()
        if self._index is None:
            from cache.rebuild import create_index, is_complete

            if not os.path.exists(self._layout.index):
                if not create:
                    return None
                create_index(self._layout)
            index = Index(self._layout.index)
            try:
                complete = is_complete(index)
            except CacheError:
                index.close()
                raise
            self._index = index
            self._look_for_crashes(force=not complete or self._has_lost_entries)
        return self._index

    def _look_for_crashes(self, force: bool = False) -> None:
        dead = dead_files(self._layout.running)
        if self._index is not None and (dead or force):
            from cache.rebuild import reconcile

            self._dead_marks = dead
            self._comparison = reconcile(self._index, self._layout)

    def _compare(self, most_files: int | None) -> bool:
        if self._comparison is None or self._index is None:
            return True
        seen = 0
        try:
            for count in self._comparison:
                seen += count
                if most_files is not None and seen >= most_files:
                    return False
            for path in self._dead_marks:
                remove_file(path)
            self._comparison = None
            self._has_lost_entries = False
            self.gauge_bytes = self._index.gauge()[0]
        except CacheError as error:
            self.doubt_index(error)
            return False
        except OSError as error:
            self._note_failure(error)
            self._drop_index()
            return False
        return True

    def _drop_index(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None
        self._comparison = None

    def _note_failure(self, error: CacheError | OSError) -> None:
        if isinstance(error, OSError) and error.errno in READ_ONLY_ERRNOS:
            self._is_read_only = True
        logger.debug("the index of the cache is not used for now: %s", error)


def _is_catalog(item: tuple[str, Use]) -> bool:
    return item[1].ref.kind is Kind.CATALOG
