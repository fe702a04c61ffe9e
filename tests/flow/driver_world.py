"""A published repository, a store, and fetchers that bring its objects: verified like the real one, but without HTTP.

`DirectFetcher` puts stored bytes through the same sink as a download; `FlightFetcher` does it as shared downloads that
take (virtual) time. Every call is recorded.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from cache.errors import CacheError
from cache.ref import NotLocal
from cvmfs_py.errors import FetchError, ObjectGoneError
from cvmfs_py.network.flights import Booking, Flights
from cvmfs_py.network.limiter import Limiter, Priority, Turn
from cvmfs_py.network.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store

CALL_LIMIT = 200  # more than any operation here needs: a loop that does not end is a failure, not a hanging test


class DirectFetcher:
    """Brings objects at once."""

    def __init__(self, store: Store, server_root: Path) -> None:
        self.store = store
        self.server_root = server_root
        self.calls: list[tuple[ObjectRef, ...]] = []

    async def ensure(self, refs: tuple[ObjectRef, ...]) -> list[Pin]:
        assert refs
        self.calls.append(refs)
        assert len(self.calls) < CALL_LIMIT
        await trio.lowlevel.checkpoint()
        return [self.bring(ref) for ref in refs]

    def bring(self, ref: ObjectRef) -> Pin:
        try:
            return self.store.open(ref)
        except NotLocal:
            pass
        try:
            stored = (self.server_root / ref.server_path).read_bytes()
        except FileNotFoundError:
            raise ObjectGoneError(f"{ref} does not exist") from None
        with Sink(ref, self.store) as sink:
            sink.feed(stored)
            return sink.finish()

    def fill(self, refs: Iterable[ObjectRef]) -> None:
        for ref in refs:
            self.bring(ref).close()


class FlightFetcher(DirectFetcher):
    """Brings each object after `delay_s`, once for all who wait for it."""

    def __init__(self, store: Store, server_root: Path, nursery: trio.Nursery, delay_s: float) -> None:
        super().__init__(store, server_root)
        self.downloads: list[ObjectRef] = []
        self.is_down = False
        self._delay_s = delay_s
        self._limiter = Limiter(16)
        self._flights: Flights[Pin] = Flights(nursery, 10, lambda pin: pin.close())

    async def ensure(self, refs: tuple[ObjectRef, ...]) -> list[Pin]:
        self.calls.append(refs)
        assert len(self.calls) < CALL_LIMIT
        return await self._flights.join([self._booking(ref) for ref in refs])

    def _booking(self, ref: ObjectRef) -> Booking[Pin]:
        return Booking(
            key=ref.content_hash,
            priority=Priority.DATA,
            turn=partial(self._limiter.turn, Priority.DATA),
            job=partial(self._fetch, ref),
            share=partial(self.store.open, ref),
        )

    async def _fetch(self, ref: ObjectRef, turn: Turn) -> Pin:
        del turn
        self.downloads.append(ref)
        await trio.sleep(self._delay_s)
        if self.is_down:
            raise FetchError(f"cannot fetch {ref}")
        return self.bring(ref)


class LosingFetcher(DirectFetcher):
    """What it brings is evicted by somebody else before it can be shared, so many times."""

    def __init__(self, store: Store, server_root: Path, losses: int) -> None:
        super().__init__(store, server_root)
        self.losses = losses

    async def ensure(self, refs: tuple[ObjectRef, ...]) -> list[Pin]:
        pins = await super().ensure(refs)
        if self.losses:
            self.losses -= 1
            for pin in pins:
                pin.close()
                assert self.store.discard(pin.content_hash)
            self.store.open(refs[0])  # raises NotLocal
        return pins


def pinned_bytes(store: Store) -> int:
    try:
        return store.status().pinned_bytes
    except CacheError as error:
        raise AssertionError(error) from error
