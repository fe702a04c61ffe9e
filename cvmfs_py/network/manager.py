"""One manager, "standard" or "external": its hosts, proxies, connections and counters, and the loop over attempts.

The loop is the only one: `routes` decides, `client` tries. Getting ready (proxy discovery, DNS, geo order) happens at
the first request, so that a command whose data is local asks nobody anything.

Concurrency: for tasks of one event loop; a request belongs to one task, hosts and proxies are shared.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import trio

from cvmfs_py.errors import Attempt, ConfigError, FetchError, ObjectGoneError
from cvmfs_py.network.client import Client
from cvmfs_py.network.discovery import discover_proxies
from cvmfs_py.network.dns import Resolution, resolve_plan
from cvmfs_py.network.limiter import Limiter, Turn
from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_list import plan_proxies
from cvmfs_py.network.routes import Exhausted, Route, RouteOptions, RouteRequest, Routes
from cvmfs_py.network.transport import TransportStatistics
from cvmfs_py.network.waits import WAITS

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from cvmfs_py.network.client import AttemptEnd
    from cvmfs_py.network.options import NetworkConfig
    from cvmfs_py.network.proxy_list import ProxyPlan
    from cvmfs_py.network.waits import Wait

_log = logging.getLogger(__name__)
T = TypeVar("T")
GEO_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Lists:
    """The texts that hosts and proxies are made from."""

    hosts: tuple[str, ...]
    proxies: str
    fallback_proxies: str


@dataclass(slots=True)
class Counters:
    """What a manager has done so far."""

    requests: int = 0
    attempts: int = 0
    retries: int = 0
    failures: int = 0


class Manager:
    """Performs requests over the routes of one list of hosts and one list of proxies."""

    def __init__(
        self,
        name: str,
        lists: Lists,
        config: NetworkConfig,
        nursery: trio.Nursery,
        rng: random.Random,
        *,
        use_geoapi: bool,
    ) -> None:
        self.name = name
        self.lists = lists
        self.config = config
        self.rng = rng
        self.counters = Counters()
        self.transfers = TransportStatistics()
        self.client = Client(config, self.transfers)
        self.limiter = Limiter(config.parallel_connections)
        self.routes = Routes(lists.hosts, plan_proxies("", ""), route_options(config), rng, self._notice)
        self.resolutions: dict[str, Resolution] = {}
        self.round_trips_s: dict[str, float | None] = {}  # of hosts that were probed; None: down
        self._nursery = nursery
        self._use_geoapi = use_geoapi
        self._plan: ProxyPlan | None = None  # with names, not addresses
        self._names_expire_at = 0.0
        self._preparing = trio.Lock()
        self._refreshing = False

    async def ready(self, deadline: float = math.inf) -> None:
        """Makes sure that proxies are known; the first caller does the work, the others wait for it."""
        if self._plan is not None:
            if trio.current_time() > self._names_expire_at and not self._refreshing:
                self._refreshing = True
                self._nursery.start_soon(self._refresh_names)
            return
        async with self._preparing:
            if self._plan is None:
                await self._prepare(deadline)

    async def perform(
        self,
        what: str,
        turn: Turn,
        attempt: Callable[[Route], Awaitable[tuple[AttemptEnd, T | None]]],
        *,
        key: int = 0,
        no_cache: bool = False,
        deadline: float = math.inf,
    ) -> T:
        """Tries routes until one gives a result. Raises FetchError with every attempt, ObjectGoneError.

        With a deadline every path gets one try, and half of the time that is left then, so that a silent one does not
        use it all up: whoever sets a deadline has something else to go on with.
        """
        if not self.lists.hosts:
            raise ConfigError(f"cannot fetch {what}: no server is configured; set CVMFS_SERVER_URL")
        self.counters.requests += 1
        request: RouteRequest | None = None
        wait = WAITS.begin(what, trio.current_time())
        try:
            with trio.move_on_at(deadline):
                await self.ready(deadline)
                patient = deadline == math.inf
                request = self.routes.begin(trio.current_time(), key=key, no_cache=no_cache, patient=patient)
                return await self._try_routes(wait, turn, attempt, request, deadline)
        finally:
            WAITS.end(wait)
        self.counters.failures += 1
        if request is not None:
            raise FetchError(f"cannot fetch {what} in time", request.give_up("no answer yet"))
        nobody = Attempt(self.routes.hosts.current, self.lists.proxies, "the proxies are not known yet")
        raise FetchError(f"cannot fetch {what} in time", (nobody,))

    async def _try_routes(
        self,
        wait: Wait,
        turn: Turn,
        attempt: Callable[[Route], Awaitable[tuple[AttemptEnd, T | None]]],
        request: RouteRequest,
        deadline: float,
    ) -> T:
        while True:
            route = request.next_route(trio.current_time())
            if isinstance(route, Exhausted):
                self.counters.failures += 1
                raise _failure(wait.what, route)
            if route.sleep_s_before:
                self.counters.retries += 1
                wait.again_at = trio.current_time() + route.sleep_s_before
                await trio.sleep(route.sleep_s_before)
            await self.limiter.acquire(turn)
            try:
                current = request.next_route(trio.current_time())  # while this one waited, others have learned
                if not isinstance(current, Exhausted):
                    route = current
                if deadline < math.inf:
                    share_s = max(round((deadline - trio.current_time()) / 2, 1), 0.1)
                    route = replace(route, timeout_s=min(route.timeout_s or share_s, share_s))
                self.counters.attempts += 1
                wait.host, wait.proxy = route.host, route.proxy.name
                end, result = await attempt(route)
            finally:
                self.limiter.release()
            request.report(end.outcome, trio.current_time(), end.reason)
            if end.outcome is Outcome.OK and result is not None:
                return result
            wait.trouble = end.reason or end.outcome.text
            _log.debug("(manager '%s') %s: %s [%s]", self.name, wait.what, end.reason, end.outcome.text)

    async def close(self) -> None:
        await self.client.close()

    # What can be changed while mounted.

    async def apply_lists(self, lists: Lists) -> None:
        """Other hosts or proxies from now on. Raises ConfigError and changes nothing when they cannot be used."""
        async with self._preparing:
            before, self.lists = self.lists, lists
            if lists.hosts != before.hosts:
                self.routes.hosts.replace(lists.hosts)
            try:
                await (self._prepare() if self._plan is None else self._prepare_proxies())
            except ConfigError:
                self.lists = before
                self.routes.hosts.replace(before.hosts)
                raise

    def apply_timeouts(self, timeout_s: float, timeout_direct_s: float) -> None:
        self.routes.options = replace(self.routes.options, timeout_s=timeout_s, timeout_direct_s=timeout_direct_s)

    def switch_host(self, reason: str, host: str | None = None) -> None:
        """Leaves the current host; or `host`, if that is still the current one."""
        if self.routes.hosts:
            self.routes.switch_host(host or self.routes.hosts.current, trio.current_time(), reason)

    def switch_proxy_group(self) -> None:
        self.routes.proxies.switch_group(trio.current_time())

    async def _prepare(self, deadline: float = math.inf) -> None:
        await self._prepare_proxies()
        if self._use_geoapi:
            # An order is a convenience: without one, the servers are asked as they are listed.
            limit_s = self.routes.options.timeout_direct_s or GEO_LIMIT_S
            with trio.move_on_after(min(limit_s, max(0, deadline - trio.current_time()) / 2)):
                from cvmfs_py.network.probing import sort_by_distance  # late: few are asked for it

                await sort_by_distance(self)

    async def _prepare_proxies(self) -> None:
        text = await discover_proxies(self.lists.proxies, self.lists.hosts, self.config, self.client)
        plan = plan_proxies(text, self.lists.fallback_proxies)
        for warning in plan.warnings:
            self._notice(warning)
        await self._resolve(plan)
        self._plan = plan

    async def _resolve(self, plan: ProxyPlan) -> None:
        resolved = await resolve_plan(plan, self.config, self.rng, self.resolutions)
        for name, resolution in resolved.resolutions.items():
            if resolution.failure:
                _log.warning("failed to resolve IP addresses for %s (%s)", name, resolution.failure)
        if plan is not self._plan:
            self.routes.proxies.apply(resolved.plan)
        elif _urls(resolved.plan) != _urls_of_groups(self.routes.proxies.groups):
            changed = [
                name for name in resolved.resolutions if resolved.resolutions[name] != self.resolutions.get(name)
            ]
            self._notice(f"DNS entries for proxy {', '.join(changed)} changed, adjusting")
            self.routes.proxies.substitute(resolved.plan.groups)
        self.resolutions = resolved.resolutions
        self._names_expire_at = trio.current_time() + resolved.ttl_s

    async def _refresh_names(self) -> None:
        """In the background: no request waits for a name that was known."""
        try:
            async with self._preparing:
                if self._plan is not None:
                    await self._resolve(self._plan)
        finally:
            self._refreshing = False

    def _notice(self, text: str) -> None:
        _log.warning("(manager '%s') %s", self.name, text)


def route_options(config: NetworkConfig) -> RouteOptions:
    return RouteOptions(
        timeout_s=config.timeout_s,
        timeout_direct_s=config.timeout_direct_s,
        max_retries=config.max_retries,
        backoff_init_s=config.backoff_init_s,
        backoff_max_s=config.backoff_max_s,
        proxy_reset_after_s=config.proxy_reset_after_s,
        host_reset_after_s=config.host_reset_after_s,
        proxy_shard=config.proxy_shard,
        failover_indefinitely=config.failover_indefinitely,
    )


def _failure(what: str, end: Exhausted) -> FetchError:
    if end.gone:
        return ObjectGoneError(f"{what} does not exist on any server", end.attempts)
    return FetchError(f"cannot fetch {what}", end.attempts)


def _urls(plan: ProxyPlan) -> list[set[str]]:
    return _urls_of_groups(plan.groups)


def _urls_of_groups(groups: Sequence[Sequence[object]]) -> list[set[str]]:
    return [{getattr(proxy, "url", "") for proxy in group} for group in groups]
