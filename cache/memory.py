"""The store in memory: for mounts without a disk, and the twin of the store in a directory in tests.

Every object is an anonymous file (memfd), sealed against change; a pin is another descriptor of it. Nothing survives
the process.

Concurrency: as in `store`; used by one process.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
from typing import TYPE_CHECKING

from cache.address import Kind, parse_hash
from cache.checks import check_lower, check_sealed, checksum
from cache.errors import CacheError, CacheFullError
from cache.lru import Lru
from cache.named_pins import named_pin
from cache.pins import Pin, PinCounts
from cache.quota import Candidate, plan_eviction, target_before_large, threshold_bytes
from cache.reports import CacheEntry, CacheStatus, CheckedObject, CleanupReport, Verdict
from cache.smallfiles import require_name
from cache.store import Store, Transaction, exact_size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from cache.reports import NamedPin
    from cache.tiers import LowerTier

logger = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE})
_FIXED = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_STEP_OBJECTS = 64


class MemoryStore(Store):
    """Verified objects in anonymous memory."""

    def __init__(self, limit_bytes: int | None = None, lower: Iterable[LowerTier] = ()) -> None:
        super().__init__(lower)
        self._limit_bytes = limit_bytes
        self._objects: dict[str, tuple[int, int, int]] = {}  # fd, size in bytes, checksum
        self._lru = Lru()
        self._pins = PinCounts()
        self._named: dict[str, NamedPin] = {}
        self._state: dict[str, bytes] = {}
        self._used_bytes = 0

    def begin(self, ref: ObjectRef) -> Transaction:
        target = target_before_large(self._limit_bytes, self._used_bytes, exact_size_bytes(ref) or 0)
        if target is not None:
            self.cleanup(target)
        fd = self._new_descriptor(lambda: os.memfd_create("object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        return MemoryTransaction(ref, fd, functools.partial(self._committed, ref))

    def flush(self) -> None:
        """Everything is where it belongs already."""

    def room(self) -> tuple[int, int | None]:
        return self._used_bytes, self._limit_bytes

    def status(self) -> CacheStatus:
        pinned = self._pins.sizes()
        for pin in self._named.values():
            pinned |= {text: self._objects[text][1] for text in pin.hashes if text in self._objects}
        return CacheStatus(
            directory=None,
            used_bytes=self._used_bytes,
            objects=len(self._objects),
            catalogs=sum(use.ref.kind is Kind.CATALOG for _, use in self._lru.oldest_first()),
            limit_bytes=self._limit_bytes,
            pinned_bytes=sum(pinned.values()),
            disk_free_bytes=None,
            lower_tiers=tuple(tier.directory for tier in self.lower),
            read_only=False,
        )

    @property
    def pin_count(self) -> int:
        return self._pins.total

    def entries(self) -> Iterator[CacheEntry]:
        is_pinned = self._is_pinned()
        uses = list(self._lru.oldest_first())
        for number in range(len(uses) - 1, -1, -1):
            text, use = uses[number]
            ref = use.ref
            yield CacheEntry(
                ref.content_hash, use.size_bytes, ref.kind, ref.volatile, use.label, number + 1, is_pinned(text)
            )

    def cleanup(self, target_bytes: int) -> CleanupReport:
        plan = plan_eviction(self._candidates(), self._used_bytes - target_bytes, self._is_pinned())
        freed_bytes = sum(self._remove(victim.text) for victim in plan.victims)
        return CleanupReport(len(plan.victims), freed_bytes, self._used_bytes, len(plan.spared))

    def check(self) -> Iterator[CheckedObject]:
        for text, (fd, size_bytes, expected) in list(self._objects.items()):
            if text not in self._objects:
                continue
            good = os.fstat(fd).st_size == size_bytes and checksum(fd, size_bytes) == expected
            reason = "" if good else "has another checksum than when it was stored"
            removed = not good and self._remove(text) >= 0
            verdict = Verdict.OK if good else Verdict.CORRUPT
            yield CheckedObject(text, parse_hash(text), size_bytes, verdict, reason, removed)
        for tier in self.lower:
            yield from check_sealed(tier.objects, None) if tier.is_sealed else check_lower(tier.objects)

    def pin(
        self,
        name: str,
        label: str,
        hashes: Iterable[ContentHash],
        *,
        is_complete: bool = True,
        size_bytes: int | None = None,
    ) -> None:
        self._named[name] = named_pin(name, label, hashes, is_complete, size_bytes)

    def unpin(self, name: str) -> bool:
        return self._named.pop(require_name(name), None) is not None

    def named_pins(self) -> tuple[NamedPin, ...]:
        return tuple(pin for _, pin in sorted(self._named.items()))

    def read_state(self, name: str) -> bytes | None:
        return self._state.get(require_name(name))

    def write_state(self, name: str, data: bytes) -> None:
        if data:
            self._state[require_name(name)] = bytes(data)
        else:
            self._state.pop(require_name(name), None)

    def close(self) -> None:
        for text in list(self._objects):
            self._remove(text)

    def _open_own(self, ref: ObjectRef) -> Pin | None:
        text = str(ref.content_hash)
        found = self._objects.get(text)
        if found is None:
            return None
        fd, size_bytes, _ = found
        expected_bytes = exact_size_bytes(ref)
        if expected_bytes is not None and expected_bytes != size_bytes:
            logger.warning("%s in the cache is damaged (%d bytes); it is fetched again", ref, size_bytes)
            self._remove(text)
            return None
        self._lru.touch(text, size_bytes, ref)
        return self._pin(fd, size_bytes, text, ref.content_hash)

    def _has_own(self, ref: ObjectRef) -> bool:
        found = self._objects.get(str(ref.content_hash))
        return found is not None and exact_size_bytes(ref) in (None, found[1])

    def _own_size_bytes(self, text: str) -> int | None:
        found = self._objects.get(text)
        return None if found is None else found[1]

    def _discard_own(self, content_hash: ContentHash) -> bool:
        text = str(content_hash)
        if text not in self._objects:
            return False
        self._remove(text)
        return True

    def _pin(self, fd: int, size_bytes: int, text: str, content_hash: ContentHash) -> Pin:
        self._pins.add(text, size_bytes)  # first, lest it make room for itself
        try:
            own_fd = self._new_descriptor(lambda: os.dup(fd))
        except CacheError:
            self._pins.remove(text)
            raise
        return Pin(own_fd, size_bytes, content_hash, None, functools.partial(self._pins.remove, text))

    def _committed(self, ref: ObjectRef, fd: int, size_bytes: int, content_checksum: int) -> Pin:
        text = str(ref.content_hash)
        pin = self._pin(fd, size_bytes, text, ref.content_hash)
        if text in self._objects:
            self._remove(text)
        self._objects[text] = (fd, size_bytes, content_checksum)
        self._used_bytes += size_bytes
        self._lru.insert(text, size_bytes, ref)
        if self._limit_bytes is not None and self._used_bytes > self._limit_bytes:
            self.cleanup(threshold_bytes(self._limit_bytes))
        return pin

    def _candidates(self) -> Iterator[Candidate]:
        uses = list(self._lru.oldest_first())
        for volatile in (True, False):
            for text, use in uses:
                if use.ref.volatile is volatile:
                    yield Candidate(text, use.size_bytes)

    def _is_pinned(self) -> Callable[[str], bool]:
        named = frozenset[str]().union(*(pin.hashes for pin in self._named.values()))
        return lambda text: text in self._pins or text in named

    def _remove(self, text: str) -> int:
        fd, size_bytes, _ = self._objects.pop(text)
        os.close(fd)
        self._lru.forget(text)
        self._used_bytes -= size_bytes
        return size_bytes

    def _new_descriptor(self, make: Callable[[], int]) -> int:
        """Every object takes a descriptor; when they run out, some objects go, whatever their size."""
        try:
            return make()
        except OSError as error:
            plan = plan_eviction(self._candidates(), self._used_bytes + 1, self._is_pinned(), _STEP_OBJECTS)
            if error.errno not in _FULL or not plan.victims:
                raise _full(error) from error
        for victim in plan.victims:
            self._remove(victim.text)
        try:
            return make()
        except OSError as error:
            raise _full(error) from error


class MemoryTransaction(Transaction):
    """An object on its way into memory."""

    def __init__(self, ref: ObjectRef, fd: int, committed: Callable[[int, int, int], Pin]) -> None:
        super().__init__(ref)
        self._fd = fd
        self._committed = committed

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise _full(error) from error

    def _publish(self) -> Pin:
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _FIXED)
        pin = self._committed(self._fd, self.written_bytes, self._checksum)
        self._fd = -1
        return pin

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _full(error: OSError) -> CacheError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return CacheFullError("the cache in memory has no file descriptors left; raise the limit (ulimit -n)")
    if error.errno in _FULL:
        return CacheFullError("no memory is left for the cache in memory; give it a lower limit, or use a directory")
    return CacheError(f"the cache in memory cannot store an object: {error.strerror}")
