"""Sharding over proxies: where a proxy sits on the ring is fixed for all clients of a site."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.proxy_groups import RING_POINTS, ProxyGroups, ring_points
from cvmfs_py.network.proxy_list import Proxy, ProxyPlan

PROXIES = tuple(Proxy(f"http://p{n}:3128", f"p{n}", 3128, f"10.0.0.{n}") for n in range(1, 5))


def groups_of(*groups: tuple[Proxy, ...]) -> ProxyGroups:
    return ProxyGroups(ProxyPlan(groups, len(groups)), 300, shard=True, rng=random.Random(0))


def test_the_generator() -> None:
    # worked out by hand: the first step of x -> a x + c (mod 2^64), scaled to 32 bits
    seed = int.from_bytes(hashlib.sha1(b"http://10.0.0.1:3128").digest()[:4], "big")
    state = (seed * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    assert abs(ring_points("http://10.0.0.1:3128")[0] - state * 0xFFFFFFFF // (1 << 64)) <= 1


@given(st.text(max_size=40))
def test_points(url: str) -> None:
    points = ring_points(url)
    assert len(points) == RING_POINTS
    assert all(0 <= point < 1 << 32 for point in points)
    assert points == ring_points(url)


@given(st.integers(0, (1 << 32) - 1))
def test_the_next_point_decides(key: int) -> None:
    owners = sorted((point, proxy.name) for proxy in PROXIES for point in ring_points(proxy.url))
    expected = next((name for point, name in owners if point >= key), owners[0][1])
    assert groups_of(PROXIES).choose(key).name == expected


@given(st.integers(0, (1 << 32) - 1), st.permutations(PROXIES))
def test_the_order_of_the_list_does_not_matter(key: int, order: list[Proxy]) -> None:
    assert groups_of(PROXIES).choose(key) == groups_of(tuple(order)).choose(key)


@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=50))
def test_a_burned_member_moves_only_its_own_keys(keys: list[int]) -> None:
    groups = groups_of(PROXIES)
    before = {key: groups.choose(key) for key in keys}
    dead = PROXIES[0]
    assert groups.switch_from(dead, 0)
    for key, proxy in before.items():
        if proxy == dead:
            assert groups.choose(key) != dead
        else:
            assert groups.choose(key) == proxy


def test_all_members_get_something() -> None:
    groups = groups_of(PROXIES)
    rng = random.Random(7)
    shares = [groups.choose(rng.getrandbits(32)).name for _ in range(4000)]
    assert min(shares.count(proxy.name) for proxy in PROXIES) > 200
