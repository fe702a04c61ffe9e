"""The store's interface: what every store of verified objects can do, and the one place that says "not local".

Knows no files, memory or index; concrete stores are `directory` and `memory`. Verifies nothing: whoever writes an
object has compared its bytes with its hash before the commit.

Concurrency: every method is called from one thread, without an await in between, except `Transaction.write`, which
may run in a worker thread (one at a time for one transaction).
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from cache.address import Kind, parse_hash
from cache.checks import is_intact
from cache.errors import ObjectCorruptError
from cache.ref import NotLocal
from cache.reports import HeldPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache.address import ContentHash
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.reports import CacheEntry, CacheStatus, CheckedObject, CleanupReport, NamedPin
    from cache.tiers import LowerTier


def exact_size_bytes(ref: ObjectRef) -> int | None:
    """The size that the content must have, where it is known. The sizes given for catalogs are informative only."""
    return None if ref.kind is Kind.CATALOG else ref.size_bytes


class Store(ABC):
    """A content-addressed store, with read-only lower tiers below it."""

    def __init__(self, lower: Iterable[LowerTier] = ()) -> None:
        self.lower = tuple(lower)
        self._distrusted: set[str] = set()  # discarded, and in a lower tier, which cannot be changed

    def open(self, ref: ObjectRef) -> Pin:
        """Pin a local object; counts as a use of it. An object of wrong size or seal is discarded and absent."""
        pin = self._open_own(ref)
        if pin is None and self.lower:
            pin = self._open_lower(ref)
        if pin is None:
            raise NotLocal((ref,))
        return pin

    def has(self, ref: ObjectRef) -> bool:
        """Whether `open` would succeed; no use, and nothing is discarded."""
        if self._has_own(ref):
            return True
        return str(ref.content_hash) not in self._distrusted and any(tier.has(ref) for tier in self.lower)

    def discard(self, content_hash: ContentHash) -> bool:
        """Remove a corrupt object. Copies in lower tiers are not touched, but never used again by this store."""
        removed = self._discard_own(content_hash)
        text = str(content_hash)
        if text not in self._distrusted and any(tier.contains(content_hash) for tier in self.lower):
            self._distrusted.add(text)
            return True
        return removed

    def is_intact(self, pin: Pin) -> bool:
        """Whether the content is still what was committed, as far as anything is known to compare it with."""
        return is_intact(pin.fd, pin.content_hash)

    def _open_lower(self, ref: ObjectRef) -> Pin | None:
        if str(ref.content_hash) in self._distrusted:
            return None
        for tier in self.lower:
            pin = tier.open(ref)
            if pin is not None:
                return pin
        return None

    @abstractmethod
    def begin(self, ref: ObjectRef) -> Transaction:
        """Start to store an object. Raises CacheFullError, CacheReadOnlyError."""

    @abstractmethod
    def flush(self) -> None:
        """Write down recency and insertions that are only in memory; call it now and then. Never fails."""

    @abstractmethod
    def room(self) -> tuple[int, int | None]:
        """What is stored and what may be, in bytes, as far as is known at once. None: no limit is kept."""

    @abstractmethod
    def status(self) -> CacheStatus:
        """Exact numbers. It may take a look at every file."""

    @property
    @abstractmethod
    def pin_count(self) -> int:
        """Pins that are open."""

    @abstractmethod
    def entries(self) -> Iterator[CacheEntry]:
        """Every object, the most recently used first."""

    @abstractmethod
    def cleanup(self, target_bytes: int) -> CleanupReport:
        """Evict, least recently used first, until at most `target_bytes` are used. What is pinned stays."""

    @abstractmethod
    def check(self) -> Iterator[CheckedObject]:
        """Verify the content of every object, lower tiers included; corrupt ones are removed from this store."""

    @abstractmethod
    def pin(
        self,
        name: str,
        label: str,
        hashes: Iterable[ContentHash],
        *,
        is_complete: bool = True,
        size_bytes: int | None = None,
    ) -> None:
        """Keep these objects, when they are or get here, until `unpin(name)`. Replaces a set of the same name.

        `is_complete` and `size_bytes` are noted for whoever asks.
        """

    @abstractmethod
    def unpin(self, name: str) -> bool: ...

    @abstractmethod
    def named_pins(self) -> tuple[NamedPin, ...]: ...

    def held(self, texts: Iterable[str]) -> HeldPart:
        """How many of these objects are here, and their size. Takes a look at every file."""
        objects = total_bytes = 0
        for text in texts:
            size_bytes = self._own_size_bytes(text)
            if size_bytes is None:
                content_hash = parse_hash(text)
                sizes = (tier.size_bytes(content_hash) for tier in self.lower if content_hash is not None)
                size_bytes = next((size for size in sizes if size is not None), None)
            if size_bytes is not None:
                objects += 1
                total_bytes += size_bytes
        return HeldPart(objects, total_bytes)

    @abstractmethod
    def read_state(self, name: str) -> bytes | None:
        """A small piece of state that other layers keep with the cache; None when it was never written."""

    @abstractmethod
    def write_state(self, name: str, data: bytes) -> None:
        """Replace a piece of state, all or nothing; empty data removes it."""

    @abstractmethod
    def close(self) -> None:
        """Flush and let go. Pins that are still open stay readable."""

    @abstractmethod
    def _open_own(self, ref: ObjectRef) -> Pin | None: ...

    @abstractmethod
    def _has_own(self, ref: ObjectRef) -> bool: ...

    @abstractmethod
    def _own_size_bytes(self, text: str) -> int | None: ...

    @abstractmethod
    def _discard_own(self, content_hash: ContentHash) -> bool: ...

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_all(refs: Iterable[ObjectRef], open_object: Callable[[ObjectRef], Pin]) -> list[Pin]:
    """Pins of all objects, or one NotLocal that names all that are missing."""
    pins: list[Pin] = []
    missing: list[ObjectRef] = []
    try:
        for ref in refs:
            try:
                pins.append(open_object(ref))
            except NotLocal as answer:
                missing.extend(answer.refs)
        if missing:
            raise NotLocal(tuple(missing))
    except BaseException:
        for pin in pins:
            pin.close()
        raise
    return pins


class Transaction(ABC):
    """An object on its way into a store: invisible until `commit`. Aborts at the end of its block unless committed."""

    def __init__(self, ref: ObjectRef) -> None:
        self.ref = ref
        self.written_bytes = 0
        self._checksum = 0
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append content. May run in a worker thread. Raises CacheFullError."""
        self._require_open()
        self._append(data)
        self.written_bytes += len(data)
        self._checksum = zlib.crc32(data, self._checksum)

    def commit(self) -> Pin:
        """Make the object visible and pin it."""
        self._require_open()
        expected_bytes = exact_size_bytes(self.ref)
        if expected_bytes is not None and expected_bytes != self.written_bytes:
            self.abort()
            raise ObjectCorruptError(
                f"{self.ref} has {self.written_bytes} bytes, but its catalog says {expected_bytes}; it was not stored",
                self.ref.content_hash,
            )
        try:
            return self._publish()
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop what was written. After a commit, or twice, it does nothing."""
        if self._open:
            self._open = False
            self._drop()

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError("this transaction has ended")

    @abstractmethod
    def _append(self, data: bytes | bytearray | memoryview) -> None: ...

    @abstractmethod
    def _publish(self) -> Pin: ...

    @abstractmethod
    def _drop(self) -> None:
        """Release what the transaction holds; the object, if published, stays."""

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
