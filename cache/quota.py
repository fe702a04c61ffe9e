"""What to evict and when: pure arithmetic over sizes. Removes nothing.

The limit is soft: an insertion may exceed it, pinned objects may exceed it for good, and then the rest goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LARGE_BYTES = 25 * 2**20  # room for larger objects is made before they are written
_LEAST_ROOM_BYTES = 32 * 2**20  # what a full disk is asked for at once, so that it is not asked for every block


@dataclass(frozen=True, slots=True)
class Candidate:
    text: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step of an eviction does."""

    victims: tuple[Candidate, ...]
    spared: tuple[str, ...]  # pinned; met before enough was found

    @property
    def victim_bytes(self) -> int:
        return sum(victim.size_bytes for victim in self.victims)


def threshold_bytes(limit_bytes: int) -> int:
    """Where an eviction stops."""
    return limit_bytes // 2


def is_large(size_bytes: int) -> bool:
    return size_bytes > _LARGE_BYTES


def target_before_large(limit_bytes: int | None, used_bytes: int, size_bytes: int) -> int | None:
    """Down to where to evict before an object of known size is written; None: nothing to do beforehand."""
    if limit_bytes is None or not is_large(size_bytes) or used_bytes + size_bytes <= limit_bytes:
        return None
    return max(0, min(threshold_bytes(limit_bytes), limit_bytes - size_bytes))


def room_on_full_disk(used_bytes: int, needed_bytes: int) -> int:
    """How much to free when the disk is full: not all, because others may have filled it."""
    return max(_LEAST_ROOM_BYTES, 4 * needed_bytes, used_bytes // 8)


def plan_eviction(
    candidates: Iterable[Candidate], excess_bytes: int, is_pinned: Callable[[str], bool], most: int | None = None
) -> Plan:
    """Take candidates in their order until `excess_bytes` are found, or `most` victims."""
    victims: list[Candidate] = []
    spared: list[str] = []
    found_bytes = 0
    for candidate in candidates:
        if found_bytes >= excess_bytes or (most is not None and len(victims) >= most):
            break
        if is_pinned(candidate.text):
            spared.append(candidate.text)
        else:
            victims.append(candidate)
            found_bytes += candidate.size_bytes
    return Plan(tuple(victims), tuple(spared))
