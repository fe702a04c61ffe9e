"""Addresses of proxies: a hosts file first, then the system's resolver, each question bounded in time.

The system's resolver does not tell how long an answer is valid, so that answers count for the configured minimum.
Stratum 1 servers are not resolved here: their names go to the connection attempt.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cvmfs_py.network.proxy_list import ProxyPlan

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from cvmfs_py.network.options import NetworkConfig
    from cvmfs_py.network.proxy_list import Proxy


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is known of one name: addresses, or why there are none."""

    addresses: tuple[str, ...]
    ttl_s: float
    failure: str = ""


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """A hosts file: the addresses of each name in the file's order. Lines that are not understood are skipped."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if names and is_address(address):
            for name in names:
                found.setdefault(name.lower(), []).append(address)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items()}


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def prefer(addresses: Iterable[str], family: int, *, ipv4_only: bool) -> tuple[str, ...]:
    """The addresses of one family: the preferred one if it has any, else the other."""
    by_family: dict[int, list[str]] = {4: [], 6: []}
    for address in dict.fromkeys(addresses):
        by_family[ipaddress.ip_address(address).version].append(address)
    if ipv4_only:
        return tuple(by_family[4])
    first = 6 if family == 6 else 4
    return tuple(by_family[first] or by_family[10 - first])


async def resolve(name: str, config: NetworkConfig) -> Resolution:
    """The addresses of one name. Never raises for what a resolver does."""
    if is_address(name):
        return Resolution((name,), config.dns_max_ttl_s)
    listed = (await trio.to_thread.run_sync(_read_hosts, config.host_aliases)).get(name.lower(), ())
    addresses = prefer(listed, config.ipfamily_prefer, ipv4_only=config.ipv4_only)
    if addresses:
        return Resolution(addresses, config.dns_min_ttl_s)
    failure = ""
    for _ in range(1 + max(config.dns_retries, 0)):
        with trio.move_on_after(config.dns_timeout_s or 3):
            try:
                answers = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failure = getattr(error, "strerror", None) or "not a valid name"
                if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
                    break  # a definite answer
                continue
            found = [str(answer[4][0]) for answer in answers]
            addresses = prefer(found, config.ipfamily_prefer, ipv4_only=config.ipv4_only)
            if addresses:
                return Resolution(addresses, min(config.dns_min_ttl_s, config.dns_max_ttl_s))
            failure = "no address of a usable family"
            break
        failure = failure or f"no answer in {config.dns_timeout_s:g} s"
    return Resolution((), config.dns_min_ttl_s, failure)


@dataclass(frozen=True, slots=True)
class ResolvedPlan:
    """A proxy list with addresses in place of names, and for how long that holds."""

    plan: ProxyPlan
    resolutions: dict[str, Resolution]
    ttl_s: float


async def resolve_plan(
    plan: ProxyPlan, config: NetworkConfig, rng: random.Random, known: dict[str, Resolution] | None = None
) -> ResolvedPlan:
    """Resolves all names of a proxy list side by side. A name that fails now keeps the addresses that are `known`."""
    names = sorted({proxy.host for group in plan.groups for proxy in group if proxy.host})
    resolutions: dict[str, Resolution] = {}

    async def resolve_into(name: str) -> None:
        resolution = await resolve(name, config)
        if resolution.failure and known and known.get(name) and known[name].addresses:
            resolution = Resolution(known[name].addresses, config.dns_min_ttl_s, resolution.failure)
        resolutions[name] = resolution

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(resolve_into, name)
    groups = tuple(
        tuple(member for proxy in group for member in _members(proxy, resolutions, config.max_ipaddr_per_proxy, rng))
        for group in plan.groups
    )
    ttl_s = min((resolution.ttl_s for resolution in resolutions.values()), default=config.dns_max_ttl_s)
    return ResolvedPlan(ProxyPlan(groups, plan.fallback_start, plan.warnings), resolutions, ttl_s)


def _members(proxy: Proxy, resolutions: dict[str, Resolution], limit: int, rng: random.Random) -> list[Proxy]:
    """One member for each address; a name without any stays as a member that fails."""
    resolution = resolutions.get(proxy.host)
    if resolution is None or not resolution.addresses:
        return [proxy]
    addresses = list(resolution.addresses)
    if 0 < limit < len(addresses):
        addresses = rng.sample(addresses, limit)
    return [proxy.at(address) for address in addresses]


def _read_hosts(path: str) -> dict[str, tuple[str, ...]]:
    try:
        return parse_hosts(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
