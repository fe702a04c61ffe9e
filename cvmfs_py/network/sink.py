"""Where the body of an object goes: it is hashed as sent, inflated, bounded, and committed only if all is right.

Synchronous; knows neither HTTP nor routes. One object per attempt; used by one task (or a thread on its behalf) at a
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.address import Digester, Kind
from cache.store import exact_size_bytes
from cvmfs_py.errors import IntegrityError
from cvmfs_py.network.inflate import InflateError, Inflater, Verbatim, inflater_for
from cvmfs_py.numerals import counted

if TYPE_CHECKING:
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store, Transaction

# What is accepted when a reference gives neither size nor limit. Certificates and metainfo are small texts.
_SMALL_LIMIT_BYTES = 1 << 20
_LARGE_LIMIT_BYTES = 1 << 30

_TAIL_LIMIT_BYTES = 64 << 10  # after the end of a stream; hashed, but no content

INLINE_LIMIT_BYTES = 256 << 10  # to hash and inflate this much takes about a millisecond


def limit_of(ref: ObjectRef) -> int:
    """The largest content that is accepted for an object."""
    exact_bytes = exact_size_bytes(ref)
    if exact_bytes is not None:
        return exact_bytes
    if ref.limit_bytes is not None:
        return ref.limit_bytes
    return _SMALL_LIMIT_BYTES if ref.kind in (Kind.CERTIFICATE, Kind.METAINFO) else _LARGE_LIMIT_BYTES


def stored_limit_of(ref: ObjectRef) -> int:
    """The most bytes that may be sent for it: compression can lose a little, and a stream may have a tail."""
    limit_bytes = limit_of(ref)
    return limit_bytes if ref.verbatim else limit_bytes + limit_bytes // 1000 + (64 << 10)


class Sink:
    """Takes one object's stored bytes. A context manager: what is not committed is aborted."""

    def __init__(self, ref: ObjectRef, store: Store) -> None:
        self._ref = ref
        self._limit_bytes = limit_of(ref)
        self._stored_limit_bytes = stored_limit_of(ref)
        self._digester = Digester(ref.content_hash.algorithm)
        self._inflater: Inflater | None = Verbatim() if ref.verbatim else None
        self._transaction: Transaction = store.begin(ref)
        self._tail_bytes = 0
        self.stored_bytes = 0
        self.content_bytes = 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self._transaction.abort()

    @property
    def is_small(self) -> bool:
        """Whether the work for it is so little that a thread would cost more."""
        return self._limit_bytes <= INLINE_LIMIT_BYTES

    def expect(self, stored_bytes: int) -> None:
        """Refuses a body whose announced length is too large, before any of it is read."""
        if stored_bytes > self._stored_limit_bytes:
            raise self._corrupted(f"larger than expected: {counted(stored_bytes, 'byte')} announced")

    def feed(self, data: bytes) -> None:
        """The next stored bytes. Raises IntegrityError as soon as they cannot be the object any more."""
        if not data:
            return
        self.stored_bytes += len(data)
        if self.stored_bytes > self._stored_limit_bytes:
            raise self._corrupted(f"larger than expected: more than {counted(self._stored_limit_bytes, 'byte')} sent")
        self._digester.update(data)
        try:
            if self._inflater is None:
                self._inflater = inflater_for(data[0])
            elif self._inflater.done and not self._ref.verbatim:
                self._tail_bytes += len(data)
                if self._tail_bytes > _TAIL_LIMIT_BYTES:
                    raise self._corrupted("larger than expected: it goes on after its end")
            for content in self._inflater.feed(data, self._limit_bytes):
                self.content_bytes += len(content)
                if self.content_bytes > self._limit_bytes:
                    raise self._corrupted(f"larger than expected: content above {counted(self._limit_bytes, 'byte')}")
                self._transaction.write(content)
        except InflateError as error:
            raise self._corrupted(str(error)) from error

    def feed_all(self, pieces: list[bytes]) -> None:
        for data in pieces:
            self.feed(data)

    def finish(self) -> Pin:
        """Commits the object and returns it open; raises IntegrityError if it is not the one that was asked for."""
        if self._digester.content_hash() != self._ref.content_hash:
            raise self._corrupted("hash mismatch")
        if self._inflater is None or not self._inflater.done:
            raise self._corrupted("truncated stream")
        exact_bytes = exact_size_bytes(self._ref)
        if exact_bytes is not None and self.content_bytes != exact_bytes:
            raise self._corrupted(f"{counted(self.content_bytes, 'byte')} of content instead of {exact_bytes:,}")
        return self._transaction.commit()

    def _corrupted(self, reason: str) -> IntegrityError:
        return IntegrityError(f"corrupted data ({reason})")
