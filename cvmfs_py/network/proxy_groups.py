"""Proxy groups: which group is in use, which of its members are burned, and which member a request gets.

Pure: the random source is given. Shared by all requests of one manager.
"""

from __future__ import annotations

import bisect
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

    from cvmfs_py.network.proxy_list import Proxy, ProxyPlan

RING_POINTS = 16
_MAX_KEY = 0xFFFFFFFF


class ProxyGroups:
    """A ring of groups with one current group and, without sharding, one chosen member."""

    def __init__(self, plan: ProxyPlan, reset_after_s: float, *, shard: bool, rng: random.Random) -> None:
        self._reset_after_s = reset_after_s
        self._shard = shard
        self._rng = rng
        self.failovers = 0
        self._burned: set[str] = set()
        self._burned_at: float | None = None
        self._left_first_at: float | None = None
        self.apply(plan)

    def apply(self, plan: ProxyPlan) -> None:
        """New groups, from the first one on."""
        self.groups = plan.groups
        self.fallback_start = plan.fallback_start
        self.total = sum(len(group) for group in plan.groups)
        self.index = 0
        self._left_first_at = None
        self._enter_group()

    def substitute(self, groups: tuple[tuple[Proxy, ...], ...]) -> None:
        """The same groups with other addresses (DNS has changed): keeps the place in the ring, forgets what burned."""
        if len(groups) != len(self.groups):
            raise ValueError("the number of groups does not change with addresses")
        self.groups = groups
        self.total = sum(len(group) for group in groups)
        self._enter_group()

    def order_fallbacks(self, order: list[int]) -> None:
        """Puts the fallback groups in another order (positions among the fallback groups)."""
        regular = self.groups[: self.fallback_start]
        fallback = self.groups[self.fallback_start :]
        self.groups = regular + tuple(fallback[position] for position in order)
        self.reset()

    @property
    def burned(self) -> frozenset[str]:
        """URLs of the members of the current group that have failed."""
        return frozenset(self._burned)

    def choose(self, key: int) -> Proxy:
        """The member for a request; `key` matters for sharded groups only."""
        if not self._shard:
            return self._chosen
        if not self._ring:
            self._build_ring()
        position = bisect.bisect_left(self._ring_keys, key)
        return self._ring[position % len(self._ring)]

    def choose_other(self, key: int, failed: Collection[str]) -> Proxy | None:
        """The member for a request that has had bad luck with some; None when it has tried all that are not burned."""
        proxy = self.choose(key)
        if proxy.url not in failed:
            return proxy
        for step in range(len(self.groups)):
            for member in self.groups[(self.index + step) % len(self.groups)]:
                if member.url not in failed and (step or member.url not in self._burned):
                    return member
        return None

    def expire(self, now: float) -> bool:
        """Back to the first group, and burned members back into the choice, when it is time."""
        if not self._reset_after_s:
            return False
        if self._left_first_at is not None and now > self._left_first_at + self._reset_after_s:
            self.reset()
            return True
        if self._burned_at is not None and now > self._burned_at + self._reset_after_s:
            self._enter_group()
            return True
        return False

    def switch_from(self, proxy: Proxy, now: float) -> bool:
        """Burns a member; the next group is entered when all are burned. False: another request was faster."""
        if proxy.url in self._burned or all(member.url != proxy.url for member in self.groups[self.index]):
            return False
        self.failovers += 1
        self._burned.add(proxy.url)
        if self._burned_at is None:
            self._burned_at = now
        if len(self._burned) == len({member.url for member in self.groups[self.index]}):
            self.switch_group(now)
        else:
            self.rebalance()
        return True

    def switch_group(self, now: float) -> None:
        """The next group in the ring."""
        self.index = (self.index + 1) % len(self.groups)
        if self.index == 0:
            self._left_first_at = None
        elif self._left_first_at is None:
            self._left_first_at = now
        self._enter_group()

    def reset(self) -> None:
        """Back to the first group with all its members."""
        self.index = 0
        self._left_first_at = None
        self._enter_group()

    def rebalance(self) -> None:
        """Chooses anew among the members that are not burned."""
        self._chosen = self._rng.choice(self._live())
        self._ring: list[Proxy] = []

    def _enter_group(self) -> None:
        self._burned = set()
        self._burned_at = None
        self.rebalance()

    def _live(self) -> list[Proxy]:
        return [member for member in self.groups[self.index] if member.url not in self._burned]

    def _build_ring(self) -> None:
        points = [(point, proxy) for proxy in self._live() for point in ring_points(proxy.url)]
        points.sort(key=lambda entry: entry[0])
        self._ring_keys = [point for point, _ in points]
        self._ring = [proxy for _, proxy in points]


def ring_points(url: str) -> list[int]:
    """Where a proxy sits on the ring of keys.

    The generator is the 64-bit linear congruential one of MMIX, so that all clients of a site, of whichever make, ask
    the same proxy for the same object.
    """
    state = int.from_bytes(
        hashlib.sha1(url.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()[:4], "big"
    )
    points = []
    for _ in range(RING_POINTS):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        points.append(int(float(state) * float(_MAX_KEY) / 18446744073709551616.0) % _MAX_KEY)
    return points
