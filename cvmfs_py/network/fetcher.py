"""The entrance to the network: objects into a store, small signed files into memory.

Everything that is fetched by hash is verified and committed before anybody sees it. Two managers, one for the servers
of the repository and one for those of external data; one flight per object, whoever wants it.

Concurrency: for tasks of one event loop. Downloads run in the fetcher's own nursery: a cancelled caller loses only its
wait.
"""

from __future__ import annotations

import math
import random
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from cache.address import Kind
from cache.errors import CacheVanishedError
from cache.ref import NotLocal
from cvmfs_py.errors import ConfigError, IntegrityError
from cvmfs_py.network.client import AttemptEnd, Collector, Target
from cvmfs_py.network.flights import Booking, Flights
from cvmfs_py.network.limiter import Priority, Turn
from cvmfs_py.network.manager import Lists, Manager
from cvmfs_py.network.outcomes import Failure, Outcome, outcome_of_failure
from cvmfs_py.network.sink import Sink
from cvmfs_py.network.transport import NO_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store
    from cvmfs_py.network.options import NetworkConfig
    from cvmfs_py.network.routes import Route

_VANISHED_PAUSES_S = (0.05, 0.2, 1.0)  # a large cache takes its time to be removed
_DOCUMENT_WINDOWS = 6  # as many times as long as a server may be silent
_METADATA = frozenset({Kind.CATALOG, Kind.CERTIFICATE, Kind.HISTORY, Kind.METAINFO})


@dataclass(frozen=True, slots=True)
class Answer:
    """A small file and who delivered it. Nothing about it is verified."""

    data: bytes
    host: str
    proxy: str


class Fetcher:
    """Fetches for one repository into one store. Made by `open_fetcher`."""

    def __init__(self, config: NetworkConfig, store: Store, nursery: trio.Nursery, rng: random.Random) -> None:
        self._store = store
        self._flights: Flights[Pin] = Flights(nursery, config.grace_s, _close_pin)
        lists = Lists(config.server_url, config.http_proxy, config.fallback_proxy)
        self.standard = Manager("standard", lists, config, nursery, rng, use_geoapi=config.use_geoapi)
        timeout_s, direct_s = config.external_timeout_s, config.external_timeout_direct_s
        external_config = replace(
            config,
            timeout_s=config.timeout_s if timeout_s is None else timeout_s,
            timeout_direct_s=config.timeout_direct_s if direct_s is None else direct_s,
        )
        lists = Lists(config.external_url, config.external_http_proxy, config.external_fallback_proxy)
        self.external = Manager("external", lists, external_config, nursery, rng, use_geoapi=False)
        self._external_sorted = not config.use_geoapi

    async def ensure(self, refs: Sequence[ObjectRef], *, prefetch: bool = False) -> list[Pin]:
        """Pins of verified local objects, in the order of `refs`; what is missing is fetched, side by side.

        The first failure ends the waiting and is raised; the other downloads go on for their grace period.
        """
        pins: dict[int, Pin] = {}
        with ExitStack() as held:
            missing: dict[int, ObjectRef] = {}
            for position, ref in enumerate(refs):
                try:
                    pins[position] = held.enter_context(self._store.open(ref))
                except NotLocal:
                    missing[position] = ref
            fetched = await self._flights.join([self._booking(ref, prefetch=prefetch) for ref in missing.values()])
            pins.update(zip(missing, fetched, strict=True))
            held.pop_all()
        return [pins[position] for position in range(len(refs))]

    async def fetch_file(
        self, path: str, limit_bytes: int, *, no_cache: bool = False, deadline: float = math.inf
    ) -> Answer:
        """A small file below the repository's URL, by name: manifest, whitelist, JSON. Unverified."""

        async def attempt(route: Route) -> tuple[AttemptEnd, Answer | None]:
            collector = Collector(limit_bytes)
            # Whoever sends a little now and then is never too slow, and would be waited for until it is a lot.
            limit_s = _DOCUMENT_WINDOWS * (route.timeout_s or NO_TIMEOUT_S)
            slow = outcome_of_failure(Failure.SLOW, direct=route.proxy.is_direct)
            end = AttemptEnd(slow, f"not complete in {limit_s:g} s")
            with trio.move_on_after(limit_s):
                end = await self.standard.client.attempt(route, target, collector)
            if end.outcome is not Outcome.OK:
                return end, None
            return end, Answer(collector.data, route.host, route.proxy.name)

        target = Target(path.encode())
        turn = self.standard.limiter.turn(Priority.METADATA)
        return await self.standard.perform(path, turn, attempt, no_cache=no_cache, deadline=deadline)

    @property
    def download_count(self) -> int:
        """Objects that are under way."""
        return len(self._flights)

    @property
    def host_count(self) -> int:
        """How many hosts there are to switch between."""
        return len(self.standard.lists.hosts)

    def switch_host(self, reason: str, host: str | None = None) -> None:
        """Leaves the current host for the next one; or `host`, unless that was left already."""
        self.standard.switch_host(reason, host)

    async def close(self) -> None:
        await self.standard.close()
        await self.external.close()

    def _booking(self, ref: ObjectRef, *, prefetch: bool) -> Booking[Pin]:
        priority = Priority.METADATA if ref.kind in _METADATA else Priority.DATA
        if prefetch:
            priority = Priority.PREFETCH
        manager = self.standard if ref.external is None else self.external
        return Booking(
            key=(ref.content_hash, ref.external),
            priority=priority,
            turn=partial(manager.limiter.turn, priority),
            job=partial(self._fetch, ref, manager),
            share=partial(self._store.open, ref),
        )

    async def _fetch(self, ref: ObjectRef, manager: Manager, turn: Turn) -> Pin:
        """One object over one manager, verified and committed."""
        target = await self._target_of(ref)

        async def attempt(route: Route) -> tuple[AttemptEnd, Pin | None]:
            with Sink(ref, self._store) as sink:
                end = await manager.client.attempt(route, target, sink)
                if end.outcome is not Outcome.OK:
                    return end, None
                try:
                    return end, sink.finish()
                except IntegrityError as error:
                    return AttemptEnd(Outcome.CORRUPTED, str(error)), None

        key = int.from_bytes(ref.content_hash.digest[:4], "big")
        for pause_s in _VANISHED_PAUSES_S:
            try:
                return await manager.perform(str(ref), turn, attempt, key=key)
            except CacheVanishedError:
                await trio.sleep(pause_s)
        return await manager.perform(str(ref), turn, attempt, key=key)

    async def _target_of(self, ref: ObjectRef) -> Target:
        external = ref.external
        if external is None:
            return Target(ref.server_path.encode(), label=ref.label)
        if not self.external.lists.hosts:
            raise ConfigError(f"cannot fetch {ref}: its data is on external servers; set CVMFS_EXTERNAL_URL")
        if not self._external_sorted:
            self._external_sorted = True
            from cvmfs_py.network.probing import sort_external  # late: external data is rare

            await sort_external(self.external, self.standard)
        span = None if external.length is None else (external.offset, external.length)
        return Target(external.path, span, ref.label)


@asynccontextmanager
async def open_fetcher(config: NetworkConfig, store: Store, rng: random.Random | None = None) -> AsyncIterator[Fetcher]:
    """A fetcher for the length of the block; at its end, what is under way is cancelled."""
    fetcher: Fetcher | None = None
    try:
        async with trio.open_nursery() as nursery:
            fetcher = Fetcher(config, store, nursery, rng or random.Random())
            try:
                yield fetcher
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # what the block raised, which the nursery has wrapped
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
    finally:
        if fetcher is not None:
            with trio.CancelScope(shield=True):
                await fetcher.close()  # not before the last task has given its connection back


def _close_pin(pin: Pin) -> None:
    pin.close()
