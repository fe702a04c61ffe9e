"""Ordering hosts: by the geo service's opinion of distance, or by how fast they answer.

Works on a manager's lists; a failure leaves them as they are.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import trio

from cvmfs_py.network import geo
from cvmfs_py.network.client import Collector, Target
from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_list import DIRECT
from cvmfs_py.network.routes import Route
from cvmfs_py.network.urls import parse_base

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfs_py.network.manager import Manager
    from cvmfs_py.network.proxy_list import Proxy

GEO_HOSTS_ASKED = 3
PROBE_LIMIT_BYTES = 1 << 20

_log = logging.getLogger(__name__)


async def sort_by_distance(manager: Manager) -> bool:
    """Puts a manager's hosts and fallback proxy groups into geographical order; tells whether that worked."""
    proxies = manager.routes.proxies
    fallbacks = proxies.groups[proxies.fallback_start :]
    hosts = manager.routes.hosts.hosts
    question = geo.plan_question(
        [_name_of(host) for host in hosts],
        [group[0].host or group[0].name for group in fallbacks],
        has_regular_proxies=proxies.fallback_start > 0,
    )
    if question is None:
        return False
    order = await ask_distance(manager, question)
    if order is None:
        return False
    sorted_hosts = [hosts[position] for position in order.hosts]
    manager.routes.hosts.replace(sorted_hosts[: manager.config.max_servers or None])
    if order.fallbacks:
        proxies.order_fallbacks(list(order.fallbacks))
    return True


async def sort_external(external: Manager, standard: Manager) -> bool:
    """The same for hosts of external data, which have no geo service of their own."""
    hosts = external.routes.hosts.hosts
    question = geo.plan_question([_name_of(host) for host in hosts], [], has_regular_proxies=True)
    if question is None:
        return False
    await standard.ready()
    order = await ask_distance(standard, question)
    if order is None:
        return False
    sorted_hosts = [hosts[position] for position in order.hosts]
    external.routes.hosts.replace(sorted_hosts[: external.config.external_max_servers or None])
    return True


async def ask_distance(manager: Manager, question: geo.GeoQuestion) -> geo.GeoOrder | None:
    """Asks up to three hosts in random order for the order of the names."""
    proxies = manager.routes.proxies
    proxy = proxies.choose(0) if proxies.fallback_start > 0 else DIRECT
    key = manager.config.proxy_template
    if not key:
        key = (manager.config.geo_key or str(uuid.uuid4())) if proxy.is_direct else proxy.host
    hosts = list(manager.routes.hosts.hosts)
    manager.rng.shuffle(hosts)
    for host in hosts[:GEO_HOSTS_ASKED]:
        collector = Collector(geo.REPLY_LIMIT_BYTES)
        end = await manager.client.attempt(_route(manager, host, proxy), Target(question.path(key)), collector)
        reply = geo.parse_reply(collector.data, len(question.names)) if end.outcome is Outcome.OK else None
        if reply is not None:
            return geo.order_by(question, reply)
        reason = end.reason or "retrieved invalid GeoAPI reply"
        _log.info("no geographical order from %s: %s", host, reason)
    return None


async def probe_hosts(manager: Manager) -> Sequence[tuple[str, float | None]]:
    """Times every host twice and sorts by the second time; hosts that fail come last, with None."""
    await manager.ready()
    hosts = manager.routes.hosts.hosts
    times: dict[str, float | None] = {}
    for _ in range(2):  # the first pass warms connections and proxies up
        for host in hosts:
            times[host] = await _time_of(manager, host)
    down = float("inf")
    ranked = sorted(times.items(), key=lambda entry: down if entry[1] is None else entry[1])
    manager.routes.hosts.replace([host for host, _ in ranked])
    manager.round_trips_s = times
    return ranked


async def _time_of(manager: Manager, host: str) -> float | None:
    started = trio.current_time()
    route = _route(manager, host, manager.routes.proxies.choose(0))
    end = await manager.client.attempt(route, Target(b"/.cvmfspublished"), Collector(PROBE_LIMIT_BYTES))
    return trio.current_time() - started if end.outcome is Outcome.OK else None


def _route(manager: Manager, host: str, proxy: Proxy) -> Route:
    options = manager.routes.options
    return Route(host, proxy, False, 0, options.timeout_direct_s if proxy.is_direct else options.timeout_s)


def _name_of(host: str) -> str:
    url = parse_base(host)
    return url.host if url is not None else host
