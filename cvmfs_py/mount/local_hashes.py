"""The hash of a cached object, computed from its content anew: what `user.lhash` tells, as the reference client does.

An object may have any size, so that it is read and compressed piece by piece in threads, for few who ask at a time.
An operation of the core that needs such a hash says `NotHashed`; whoever runs operations has it computed, and calls the
operation again with it. Nothing is remembered: whoever asks again wants to know what is there now.

Concurrency: for tasks of one event loop. A computation can be cancelled between two pieces.
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING, TypeVar

import trio

from cache.address import Digester, Kind
from cache.errors import ObjectCorruptError
from cache.ref import NotLocal, ObjectRef
from cvmfs_py.vfs.facts import NotHashed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.pins import Pin
    from cache.store import Store
    from catalog.opened import OpenObject

_log = logging.getLogger(__name__)
T = TypeVar("T")
PIECE_BYTES = 1 << 20
AT_ONCE = 2
NOT_IN_CACHE = "Not in cache"
_TURNS = trio.CapacityLimiter(AT_ONCE)
_THREADS = trio.CapacityLimiter(AT_ONCE)


class LocalHashes:
    """Of the objects in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: dict[ContentHash, str] = {}  # while an operation runs that has asked before

    def tell(self, content_hash: ContentHash) -> str:
        """The hash, or in words why there is none. For operations: NotHashed until it was computed for them."""
        found = self._told.get(content_hash)
        if found is None:
            raise NotHashed(content_hash)
        return found

    async def answer(self, asked: NotHashed, operation: Callable[[OpenObject], T]) -> Callable[[OpenObject], T]:
        """The operation that has asked, with an answer."""
        content_hash = asked.content_hash
        text = await self._compute(content_hash)

        def again(open_object: OpenObject) -> T:
            self._told[content_hash] = text
            try:
                return operation(open_object)
            finally:
                self._told.clear()

        return again

    async def _compute(self, content_hash: ContentHash) -> str:
        async with _TURNS:
            try:
                with self._store.open(ObjectRef(content_hash, Kind.BULK)) as pin:
                    return str(await _hash_compressed(pin))
            except NotLocal:
                pass
            except ObjectCorruptError as error:
                _log.warning("%s; it is dropped", error)
                self._store.discard(content_hash)
            return NOT_IN_CACHE


async def _hash_compressed(pin: Pin) -> ContentHash:
    digester = Digester(pin.content_hash.algorithm)
    compressor = zlib.compressobj()

    def add(offset: int) -> None:
        digester.update(compressor.compress(pin.read(PIECE_BYTES, offset)))

    for offset in range(0, pin.size_bytes, PIECE_BYTES):
        await trio.to_thread.run_sync(add, offset, limiter=_THREADS)
    digester.update(compressor.flush())
    return digester.content_hash()
