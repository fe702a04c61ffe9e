"""Which host and which proxy the next attempt takes, and when a request has tried enough.

Pure: no I/O, no clock, the random source is given. `Routes` is what the requests of one manager share, `RouteRequest`
what one request remembers. Both are used from one thread; a request asks `next_route`, tries it, tells `report`.

What requests share moves on while one of them waits: so each remembers with whom it had bad luck, and ends only when it
has tried everybody itself.

A request ends after at most `max_retries + hosts * (proxies + 1)` attempts, unless fail-over is indefinite.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.errors import Attempt
from cvmfs_py.network.backoff import Backoff
from cvmfs_py.network.hosts import HostChain
from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_groups import ProxyGroups

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cvmfs_py.network.proxy_list import Proxy, ProxyPlan

REMEMBERED_ATTEMPTS = 100  # matters for indefinite fail-over only


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The rules, without hosts and proxies."""

    timeout_s: float
    timeout_direct_s: float
    max_retries: int
    backoff_init_s: float
    backoff_max_s: float
    proxy_reset_after_s: float
    host_reset_after_s: float
    proxy_shard: bool = False
    failover_indefinitely: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One attempt: wait, then ask this host over this proxy."""

    host: str
    proxy: Proxy
    no_cache: bool
    sleep_s_before: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing is left to try. `gone`: every host answered that the object does not exist."""

    attempts: tuple[Attempt, ...]
    gone: bool
    last: Outcome


class Routes:
    """The shared state of one manager: hosts, proxy groups, and what was learned about them."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        plan: ProxyPlan,
        options: RouteOptions,
        rng: random.Random,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.hosts = HostChain(hosts, options.host_reset_after_s)
        self.proxies = ProxyGroups(plan, options.proxy_reset_after_s, shard=options.proxy_shard, rng=rng)
        self.options = options
        self._rng = rng
        self._notice = notice

    def begin(
        self, now: float, *, key: int = 0, no_cache: bool = False, host: str | None = None, patient: bool = True
    ) -> RouteRequest:
        """A new request. `key`: first 32 bits of the expected hash. `host`: only this one, no host fail-over.

        Not `patient`: every path gets one try, and nothing is waited for before the next one.
        """
        if self.proxies.expire(now):
            self._notice("switching back to the first proxies")
        if self.hosts.expire(now):
            self._notice(f"switching back to the first host {self.hosts.current}")
        backoff = Backoff(self.options.backoff_init_s, self.options.backoff_max_s, self._rng)
        return RouteRequest(self, backoff, key=key, no_cache=no_cache, host=host, patient=patient)

    def switch_host(self, host: str, now: float, reason: str) -> None:
        """Leaves a host, if it is still the one in use."""
        new = self.hosts.switch_from(host, now)
        if new is not None:
            self._notice(f"switching host from {host} to {new} ({reason})")

    def switch_proxy(self, proxy: Proxy, now: float, reason: str) -> None:
        """Burns a proxy, if it is still in the choice."""
        if self.proxies.switch_from(proxy, now):
            new = self.proxies.choose(0)
            host = f" [Current host: {self.hosts.current}]" if self.hosts else ""
            self._notice(f"switching proxy from {proxy.url} to {new.url}. Reason: {reason}{host}")


class RouteRequest:
    """What one request has tried."""

    def __init__(
        self, routes: Routes, backoff: Backoff, *, key: int, no_cache: bool, host: str | None, patient: bool
    ) -> None:
        self._routes = routes
        self._backoff = backoff
        self._key = key
        self._no_cache = no_cache  # asked for by the caller
        self._fixed_host = host
        self._patient = patient
        self._after_corruption = False
        self._retries = 0
        self._failed_hosts: set[str] = set()
        self._failed_proxies: set[str] = set()  # in the present round over all groups
        self._sleep_s = 0.0
        self._route: Route | None = None
        self._attempts: deque[Attempt] = deque(maxlen=REMEMBERED_ATTEMPTS)
        self._gone: set[str] = set()
        self._last = Outcome.OK
        self._exhausted = False

    def next_route(self, now: float) -> Route | Exhausted:
        """What to try next. Until something is reported, asking again only brings the answer up to date.

        So a request that has slept, or queued for a connection, does not run into what another one found dead.
        """
        routes = self._routes
        host = self._fixed_host or routes.hosts.choose_other(self._failed_hosts)
        if self._exhausted or host is None:
            return Exhausted(tuple(self._attempts), self._is_gone(), self._last)
        proxy = routes.proxies.choose_other(self._key, self._failed_proxies) or routes.proxies.choose(self._key)
        options = routes.options
        timeout_s = options.timeout_direct_s if proxy.is_direct else options.timeout_s
        no_cache = self._no_cache or self._after_corruption
        self._route = Route(host, proxy, no_cache, self._sleep_s, timeout_s)
        self._sleep_s = 0.0
        return self._route

    def report(self, outcome: Outcome, now: float, reason: str = "") -> None:
        """Tells how the attempt over the last route ended."""
        route = self._route
        if route is None:
            raise ValueError("nothing was tried yet")
        self._last = outcome
        if outcome is Outcome.OK:
            return
        self._attempts.append(Attempt(route.host, route.proxy.name, reason or outcome.text))
        if outcome is Outcome.HOST_GONE:
            self._gone.add(route.host)
        if outcome is Outcome.CORRUPTED:
            if not self._after_corruption:
                self._after_corruption = True
                return
            if self._is_last(route.host) and self._pass_by(route.proxy):
                return
            reason = "data corruption with no-cache header, try another host"
            self._fail_host(route, now, reason)
        elif (
            outcome.is_transfer_problem
            and not self._after_corruption
            and self._patient
            and self._retries < self._routes.options.max_retries
        ):
            self._retries += 1
            self._sleep_s = self._backoff.next_s()
        elif outcome.blames_host:
            self._fail_host(route, now, reason or outcome.text)
        elif outcome.blames_proxy:
            self._fail_proxy(route, now, reason or outcome.text)
        else:
            self._exhausted = True

    def give_up(self, reason: str) -> tuple[Attempt, ...]:
        """Every attempt, the one under way included."""
        if self._route is not None:
            self._attempts.append(Attempt(self._route.host, self._route.proxy.name, reason))
        return tuple(self._attempts)

    def _fail_host(self, route: Route, now: float, reason: str) -> None:
        self._failed_hosts.add(route.host)
        if not self._has_other_host():
            self._exhausted = True
            return
        self._after_corruption = False
        self._routes.switch_host(route.host, now, reason)

    def _fail_proxy(self, route: Route, now: float, reason: str) -> None:
        routes = self._routes
        self._failed_proxies.add(route.proxy.url)
        if routes.proxies.choose_other(self._key, self._failed_proxies) is not None:
            routes.switch_proxy(route.proxy, now, reason)
            return
        self._failed_proxies.clear()
        self._failed_hosts.add(route.host)
        if self._has_other_host():
            routes.proxies.reset()
            self._fail_host(route, now, Outcome.ALL_PROXIES.text)
        elif routes.options.failover_indefinitely and self._patient:
            self._failed_hosts.clear()
            self._sleep_s = routes.options.backoff_max_s
            routes.switch_proxy(route.proxy, now, reason)
        else:
            self._exhausted = True

    def _is_last(self, host: str) -> bool:
        others = self._failed_hosts | {host}
        return self._fixed_host is not None or self._routes.hosts.choose_other(others) is None

    def _pass_by(self, proxy: Proxy) -> bool:
        """Leaves a proxy that may be what spoils the data, for this request alone; tells whether there is another one.

        It may be the object that is rotten, on every host: no reason to take the proxy away from the other requests.
        """
        self._failed_proxies.add(proxy.url)
        return self._routes.proxies.choose_other(self._key, self._failed_proxies) is not None

    def _has_other_host(self) -> bool:
        return self._fixed_host is None and self._routes.hosts.choose_other(self._failed_hosts) is not None

    def _is_gone(self) -> bool:
        asked = self._routes.hosts.hosts if self._fixed_host is None else (self._fixed_host,)
        return self._gone.issuperset(asked)
