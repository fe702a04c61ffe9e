"""Eviction from a cache directory: keeps the soft limit, makes room on a full disk, cleans up on demand.

Least recently used first, volatile objects before all others, nothing that is pinned. Ordinary eviction goes in
small steps between commits, so that a mount is never busy with it for long. How much to take is decided in `quota`.

Concurrency: one process at a time evicts, under the lock file; another one then simply does not. Files of other
processes' pins may be unlinked: their descriptors stay valid.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.errors import CacheBusyError, CacheError
from cache.layout import PREFIXES, walk_prefix, write_error
from cache.lockfile import dead_files, remove_file, sole_worker
from cache.quota import Candidate, is_large, plan_eviction, room_on_full_disk, target_before_large, threshold_bytes
from cache.reports import CleanupReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.layout import Layout
    from cache.ledger import Ledger
    from cache.named_pins import NamedPins
    from cache.pins import PinCounts
    from cache.quota import Plan

logger = logging.getLogger(__name__)

_FLUSH_INSERTIONS = 256
_STEP_OBJECTS = 256  # unlinking takes 10 us for a small file
_STEP_BYTES = 256 * 2**20  # and milliseconds for a large one
_ALL_USES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Freed:
    """What one eviction removed."""

    objects: int
    size_bytes: int


class Eviction:
    """Keeps one cache directory within its limit."""

    def __init__(
        self, layout: Layout, ledger: Ledger, pins: PinCounts, named: NamedPins, limit_bytes: int | None
    ) -> None:
        self._layout = layout
        self._ledger = ledger
        self._pins = pins
        self._named = named
        self._limit_bytes = limit_bytes
        self._sweep_up_to_use: int | None = None  # set while a sweep is under way: newer uses are safe from it
        self._tolerated_bytes = limit_bytes or 0  # above the limit after a sweep that found too much pinned
        self._made_room = False  # on a full disk
        self._has_told = False  # that it is full: once is enough

    def after_commit(self) -> None:
        """Flush when due; when the limit is exceeded, evict one step."""
        if self._made_room and not self._has_told:
            self._has_told = True
            logger.warning(
                "the disk of the cache %s is full, and objects are evicted to make room; free some space there, or"
                " choose another directory or a lower limit",
                self._layout.directory,
            )
        if self._sweep_up_to_use is not None or self._ledger.is_comparing or self._is_flush_due():
            self.tend()

    def tend(self) -> None:
        """Flush, and do one step of whatever is to be done. Never fails."""
        with self._ledger.lock:
            if not self._ledger.advance() or self._limit_bytes is None:
                return
            try:
                self._sweep(self._limit_bytes)
            except CacheError as error:
                self._sweep_up_to_use = None
                self._ledger.doubt_index(error)
            except OSError as error:
                self._sweep_up_to_use = None
                logger.warning("cannot evict from the cache %s: %s", self._layout.directory, error.strerror)

    def before(self, size_bytes: int | None) -> None:
        """Make room for a large object whose size is known."""
        if self._limit_bytes is None or size_bytes is None or not is_large(size_bytes):
            return
        with self._ledger.lock:
            if not self._ledger.advance():
                return
            target_bytes = target_before_large(self._limit_bytes, self._ledger.used_bytes, size_bytes)
            if target_bytes is None:
                return
            try:
                with sole_worker(self._layout.lock) as alone:
                    if alone:
                        self._free(self._ledger.used_bytes - target_bytes)
            except OSError as error:
                raise write_error(self._layout.directory, error) from error

    def make_room(self, needed_bytes: int) -> bool:
        """The disk is full: free some of it; false when there is nothing to free. May run in a worker thread.

        Not under the lock file: another process that evicts must not make this one fail, and both may.
        """
        with self._ledger.lock:
            excess_bytes = room_on_full_disk(self._ledger.used_bytes, needed_bytes)
            leftovers, freed = 0, _Freed(0, 0)
            try:
                leftovers = sum(remove_file(path) for path in dead_files(self._layout.txn))
                while not leftovers and not freed.size_bytes:
                    plan = plan_eviction(self._candidates(), excess_bytes, self.is_pinned())
                    if not plan.victims:
                        break
                    freed = self._remove(plan)  # nothing, where other processes were faster: then the next ones
                self._ledger.flush()
            except OSError as error:
                logger.warning("cannot evict from the cache %s: %s", self._layout.directory, error.strerror)
            self._made_room = self._made_room or freed.objects > 0
        logger.debug("%d bytes were evicted from a full disk", freed.size_bytes)
        return bool(leftovers or freed.objects)

    def clean_up(self, target_bytes: int) -> CleanupReport:
        """Evict down to a size. Raises CacheBusyError, CacheReadOnlyError."""
        with self._ledger.lock:
            index = self._ledger.complete()
            used_bytes = index.gauge()[0] if index else sum(size for _, size, _ in scan(self._layout))
            try:
                with sole_worker(self._layout.lock) as alone:
                    if not alone:
                        raise CacheBusyError(
                            f"another process is evicting from {self._layout.directory}; try again in a moment"
                        )
                    plan, freed = self._free(used_bytes - target_bytes)
            except OSError as error:
                raise write_error(self._layout.directory, error) from error
            remaining_bytes = max(0, used_bytes - plan.victim_bytes)
            return CleanupReport(freed.objects, freed.size_bytes, remaining_bytes, len(plan.spared))

    def is_pinned(self) -> Callable[[str], bool]:
        """A test for what eviction leaves alone: open here, or pinned by name."""
        named = self._named.hashes()
        return lambda text: text in self._pins or text in named

    def _is_flush_due(self) -> bool:
        ledger, limit_bytes = self._ledger, self._limit_bytes
        if not ledger.may_flush:
            return False
        if limit_bytes is None or ledger.recent.inserted >= _FLUSH_INSERTIONS:
            return ledger.recent.inserted >= _FLUSH_INSERTIONS
        if ledger.recent.inserted_bytes >= max(1, limit_bytes // 64):
            return True
        return ledger.gauge_bytes is not None and ledger.used_bytes > self._tolerated_bytes

    def _sweep(self, limit_bytes: int) -> None:
        ledger = self._ledger
        if ledger.used_bytes <= limit_bytes:
            self._tolerated_bytes = limit_bytes
        index = ledger.readable()
        if index is None:
            return
        if self._sweep_up_to_use is None:
            if ledger.used_bytes <= self._tolerated_bytes:
                return
            self._sweep_up_to_use = index.last_use()
        excess_bytes = ledger.used_bytes - threshold_bytes(limit_bytes)
        plan = None
        if excess_bytes > 0:
            with sole_worker(self._layout.lock) as alone:
                if not alone:
                    return
                candidates = index.oldest(self._sweep_up_to_use)
                plan = plan_eviction(candidates, min(excess_bytes, _STEP_BYTES), self.is_pinned(), _STEP_OBJECTS)
                self._remove(plan)
                # What was spared counts as used now, so that the next step does not meet it again.
                ledger.flush(also_in_use=plan.spared)
        if plan is None or not plan.victims or ledger.used_bytes <= threshold_bytes(limit_bytes):
            self._sweep_up_to_use = None
            if ledger.used_bytes > limit_bytes:
                self._tolerated_bytes = ledger.used_bytes + limit_bytes // 16

    def _free(self, excess_bytes: int) -> tuple[Plan, _Freed]:
        plan = plan_eviction(self._candidates(), excess_bytes, self.is_pinned())
        freed = self._remove(plan)
        self._ledger.flush()
        return plan, freed

    def _remove(self, plan: Plan) -> _Freed:
        with contextlib.suppress(OSError):  # no mark on a full disk; on a read-only one unlink says so
            self._ledger.begin_work()
        objects = size_bytes = 0
        for victim in plan.victims:
            if remove_file(self._layout.object(victim.text)):
                objects += 1
                size_bytes += victim.size_bytes
            self._ledger.removed(victim.text)
        return _Freed(objects, size_bytes)

    def _candidates(self) -> Iterator[Candidate]:
        """Everything, in order of use as far as that is known, also where the index is unusable or behind."""
        recent = dict(self._ledger.recent.oldest_first())
        seen = recent.keys() | self._ledger.removed_recently
        index = self._ledger.readable()
        if index is not None:
            try:
                for candidate in index.oldest(_ALL_USES):
                    if candidate.text not in seen:
                        seen.add(candidate.text)
                        yield candidate
            except CacheError as error:
                self._ledger.doubt_index(error)
        found = sorted((atime_ns, text, size) for text, size, atime_ns in scan(self._layout) if text not in seen)
        yield from (Candidate(text, size) for _, text, size in found)
        yield from (Candidate(text, use.size_bytes) for text, use in recent.items())


def scan(layout: Layout) -> Iterator[tuple[str, int, int]]:
    """Every object in the directory, without the index: hash text, size, time of last access in ns."""
    for prefix in PREFIXES:
        for path, text, content_hash in walk_prefix(layout.objects, prefix):
            if content_hash is not None:
                with contextlib.suppress(OSError):  # evicted meanwhile
                    info = os.stat(path)
                    yield text, info.st_size, info.st_atime_ns
