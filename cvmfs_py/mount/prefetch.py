"""Fetches what is needed next while something else is done: the catalogs that a walk comes to, the next part of a file.

Never more than a bounded window ahead, lest a small cache evict what was not used yet. Decides nothing about order of
downloads: catalogs go before data everywhere.

Concurrency: background tasks in the nursery that was given; they never raise, because whoever needs an object will ask
for it again and be told what is wrong.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from cache.errors import CacheError, CacheFullError
from cvmfs_py.errors import CvmfsError
from cvmfs_py.mount.concurrency import first_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from cache.address import ContentHash
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store
    from catalog.reader import Catalog
    from catalog.transitions import Transition
    from cvmfs_py.driver import Fetcher

_log = logging.getLogger(__name__)
# Less than the connections of a fetcher, so that who cannot wait finds a free one.
WINDOW_CATALOGS = 12
_PAUSES_S = (0.1, 0.5)


class CatalogPrefetch:
    """Runs ahead of one walk in name order: in flight or not yet come to are never more than a window of catalogs."""

    def __init__(self, store: Store, fetcher: Fetcher, nursery: trio.Nursery, window: int = WINDOW_CATALOGS) -> None:
        self._store = store
        self._fetcher = fetcher
        self._nursery = nursery
        self._window = window
        self._position: list[bytes] = []  # where the walk is
        self._ahead: dict[ContentHash, list[bytes]] = {}  # where it will be wanted
        self._stack: list[Iterator[Transition]] = []  # of the catalogs that were entered, the innermost last

    def enter(
        self, catalog: Catalog, directory: bytes, is_wanted: Callable[[Transition], bool] = lambda _: True
    ) -> None:
        """The walk has come to this directory, the first in its catalog; what is nested below it is wanted, or some."""
        self._position = directory.split(b"/")
        # What comes before in the order of names was passed by, or skipped.
        self._ahead = {each: place for each, place in self._ahead.items() if place > self._position}
        self._stack.append(filter(is_wanted, catalog.transitions.below(directory)))
        self._fill()

    def _fill(self) -> None:
        while self._stack and len(self._ahead) < self._window:
            transition = next(self._stack[-1], None)
            if transition is None:
                self._stack.pop()
                continue
            place, ref = transition.mountpoint.split(b"/"), transition.ref
            if ref is None or transition.is_bind or place <= self._position:
                continue
            if ref.content_hash not in self._ahead and not self._store.has(ref):
                self._ahead[ref.content_hash] = place
                self._nursery.start_soon(self._fetch, ref)

    async def _fetch(self, ref: ObjectRef) -> None:
        try:
            for pin in await self._fetcher.ensure((ref,)):
                pin.close()
        except (CvmfsError, CacheError) as error:
            _log.debug("not fetched ahead: %s", error)
            self._ahead.pop(ref.content_hash, None)  # nothing goes in its place: it may be the network that is gone


@asynccontextmanager
async def read_ahead(
    windows: Sequence[tuple[ObjectRef, ...]], pin: Callable[[tuple[ObjectRef, ...]], Awaitable[list[Pin]]]
) -> AsyncIterator[AsyncIterator[list[Pin]]]:
    """The pinned objects of each window in turn; the next one is fetched while one is used. Close every pin.

    Where the disk of the cache has no room for so much at once, they come one by one. Some lists are empty.
    """
    send, receive = trio.open_memory_channel[list["Pin"]](0)

    async def fetch() -> None:
        # Not `async with`: closing would wait a moment, in which the user of the pins may come to the end of them and
        # cancel this task, and the cancellation would take the place of the error that is on its way.
        with send:
            for window in windows:
                try:
                    await hand_over(await pin(window))
                except CacheFullError:
                    if len(windows) == len(window) == 1:
                        raise
                    await hand_over([])  # taken only when the pins before are let go
                    for ref in window:
                        await hand_over(await _pin_in_the_end(ref, pin))
                        await hand_over([])

    async def hand_over(pins: list[Pin]) -> None:
        try:
            await send.send(pins)
        except BaseException:
            for each in pins:
                each.close()
            raise

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            with receive:  # nor here, for the same reason
                yield receive
                nursery.cancel_scope.cancel()


async def _pin_in_the_end(ref: ObjectRef, pin: Callable[[tuple[ObjectRef, ...]], Awaitable[list[Pin]]]) -> list[Pin]:
    """One object, when those that were fetched beside it, and given up, have made room."""
    for pause_s in _PAUSES_S:
        try:
            return await pin((ref,))
        except CacheFullError:
            await trio.sleep(pause_s)
    return await pin((ref,))
