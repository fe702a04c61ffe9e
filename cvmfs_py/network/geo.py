"""The geo service: what is asked, what a valid answer is, and how it orders hosts and fallback proxy groups.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SEPARATOR = "+PXYSEP+"  # stands between hosts and fallback proxies
REPLY_LIMIT_BYTES = 64 << 10
_REPLY = re.compile(r"[0-9]+(?: *, *[0-9]+)* *\n?\Z")


@dataclass(frozen=True, slots=True)
class GeoQuestion:
    """The names to be ordered: hosts, then perhaps the separator, then fallback groups."""

    host_order: tuple[int, ...]  # positions of the hosts in the order in which they are asked
    names: tuple[str, ...]
    separator_at: int | None
    fallback_count: int

    def path(self, key: str) -> bytes:
        """The path below a host; `key` tells caches whose answer this is."""
        return f"/api/v1.0/geo/{key}/{','.join(self.names)}".encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class GeoOrder:
    """Positions in the original lists, the nearest first."""

    hosts: tuple[int, ...]
    fallbacks: tuple[int, ...]


def plan_question(
    host_names: Sequence[str], fallback_names: Sequence[str], *, has_regular_proxies: bool
) -> GeoQuestion | None:
    """The question, or None where there is nothing to order."""
    if len(host_names) < 2 and len(fallback_names) < 2:
        return None
    # in alphabetical order, so that all clients of a cache ask the same question
    order = tuple(sorted(range(len(host_names)), key=lambda position: host_names[position]))
    names = [host_names[position] for position in order]
    separator_at = None
    if not has_regular_proxies:
        separator_at = len(names)
        names.append(SEPARATOR)
    names += fallback_names
    return GeoQuestion(order, tuple(names), separator_at, len(fallback_names))


def parse_reply(data: bytes, count: int) -> tuple[int, ...] | None:
    """The permutation of 1..count in a reply; None for everything else."""
    text = data.decode("latin-1")
    if not _REPLY.match(text):
        return None
    if len(text) > 32 * count + 32:
        return None
    order = tuple(int(number) for number in text.split(","))
    return order if sorted(order) == list(range(1, count + 1)) else None


def order_by(question: GeoQuestion, reply: Sequence[int]) -> GeoOrder:
    """What a reply means for the original lists."""
    host_count = len(question.host_order)
    first_fallback = len(question.names) - question.fallback_count
    hosts, fallbacks = [], []
    for position in (number - 1 for number in reply):
        if position < host_count:
            hosts.append(question.host_order[position])
        elif position >= first_fallback:
            fallbacks.append(position - first_fallback)
    return GeoOrder(tuple(hosts), tuple(fallbacks))
