"""The one loop between local operations and the network: run, fetch what was named as missing, run again.

An operation is a synchronous function over local state. It gets `open_object`, returns a value, and may be run several
times: it applies no effects itself. Does not know HTTP, FUSE or what an operation means.

Concurrency: called from any number of tasks; downloads belong to the fetcher: a cancelled caller only stops waiting.
Termination: each round must name an object that this operation does not hold yet, else `NoProgressError`; a local copy
that turns out to be damaged is replaced once.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import trio

from cache.address import Kind
from cache.errors import ObjectCorruptError
from cache.ref import NotLocal, ObjectRef
from catalog.errors import CatalogError
from cvmfs_py.errors import FetchError, IntegrityError, NoProgressError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.pins import Pin
    from cache.store import Store

    Opener: TypeAlias = Callable[[ObjectRef], Pin]

_log = logging.getLogger(__name__)
T = TypeVar("T")
_LOST_LIMIT = 8  # how often another process may evict an object in the moment after it came


class Fetcher(Protocol):
    """What the driver asks of the network."""

    async def ensure(self, refs: tuple[ObjectRef, ...]) -> list[Pin]: ...


class Driver:
    """Runs operations over one store, filling it from one fetcher."""

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher

    async def run(self, operation: Callable[[Opener], T], deadline_s: float | None = None) -> T:
        """The operation's value, once everything it needs is local; raises what it raises, or why a fetch failed."""
        await trio.lowlevel.checkpoint_if_cancelled()  # long walks over local data can be interrupted, too
        wanted: tuple[ObjectRef, ...] = ()
        with ExitStack() as held:
            progress = _Progress(self._store, held)
            with nullcontext() if deadline_s is None else trio.move_on_after(deadline_s):
                while True:
                    try:
                        return operation(progress.open)
                    except NotLocal as answer:
                        wanted = progress.still_missing(answer)
                    except ObjectCorruptError as error:
                        progress.discard(error)
                        continue
                    except CatalogError as error:
                        if not await progress.is_copy_damaged(error):
                            raise
                        progress.discard(error)
                        continue
                    try:
                        pins = await self._fetcher.ensure(wanted)
                    except NotLocal as answer:
                        progress.lose(answer)
                        continue
                    progress.hold(wanted, pins)
        raise FetchError(f"no answer within {deadline_s:g} s; waited for {_names(wanted)}")


class _Progress:
    """How far one operation is: what it holds, and what was tried to help it."""

    __slots__ = ("_discarded", "_held", "_lost", "_pins", "_store")

    def __init__(self, store: Store, held: ExitStack) -> None:
        self._store = store
        self._held = held  # to the end of the operation; closes every pin, also those of discarded objects
        self._pins: dict[ObjectRef, Pin] = {}
        self._discarded: set[ContentHash] = set()
        self._lost = 0

    def open(self, ref: ObjectRef) -> Pin:
        try:
            return self._store.open(ref)
        except NotLocal:
            pin = self._pins.get(ref)
            if pin is None:
                raise
            return pin.duplicate()  # evicted by another process, and still held here

    def still_missing(self, answer: NotLocal) -> tuple[ObjectRef, ...]:
        wanted = tuple(dict.fromkeys(ref for ref in answer.refs if ref not in self._pins))
        if not wanted:
            raise NoProgressError(f"an operation asked again for what it holds: {_names(answer.refs)}") from None
        return wanted

    def hold(self, refs: tuple[ObjectRef, ...], pins: list[Pin]) -> None:
        for pin in pins:
            self._held.enter_context(pin)
        self._pins.update(zip(refs, pins, strict=True))

    def lose(self, answer: NotLocal) -> None:
        self._lost += 1
        if self._lost > _LOST_LIMIT:
            raise FetchError(f"{_names(answer.refs)} vanishes from the cache as soon as it is fetched") from None

    async def is_copy_damaged(self, error: CatalogError) -> bool:
        """Whether the trouble lies in the local copy of a catalog, and not in what was published."""
        if error.content_hash is None:
            return False
        try:
            pin = self._store.open(ObjectRef(error.content_hash, Kind.CATALOG))
        except NotLocal:
            return True  # it was so damaged that the store threw it away
        with pin:
            return not await trio.to_thread.run_sync(self._store.is_intact, pin)  # it reads all of it

    def discard(self, error: ObjectCorruptError | CatalogError) -> None:
        """Throws a damaged copy away, so that the operation asks for the object again; but not twice."""
        content_hash = error.content_hash
        if content_hash is None or content_hash in self._discarded:
            raise IntegrityError(str(error)) from error
        _log.warning("%s; it is fetched anew", error)
        self._store.discard(content_hash)
        self._discarded.add(content_hash)
        self._pins = {ref: pin for ref, pin in self._pins.items() if ref.content_hash != content_hash}


def _names(refs: tuple[ObjectRef, ...]) -> str:
    return ", ".join(map(str, refs))
