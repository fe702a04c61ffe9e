"""What a store says about itself and its objects: plain values. Computes nothing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.address import ContentHash, Kind


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """How full a store is. Sizes are of contents, without the file system's overhead."""

    directory: str | None  # None: the store is in memory
    used_bytes: int
    objects: int
    catalogs: int
    limit_bytes: int | None  # None: no limit is kept
    pinned_bytes: int  # of what eviction leaves alone: open here, or pinned by name
    disk_free_bytes: int | None
    lower_tiers: tuple[str, ...]
    read_only: bool


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One object of a store."""

    content_hash: ContentHash
    size_bytes: int
    kind: Kind | None  # None: not known, because the object was found by a scan and not used since
    volatile: bool
    label: str
    last_use: int  # rises with every use; only the order means something
    pinned: bool


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What an eviction did."""

    removed_objects: int
    freed_bytes: int
    remaining_bytes: int
    spared_objects: int  # met on the way and left alone because they are pinned


class Verdict(enum.Enum):
    """How an object fared in a check."""

    OK = "ok"
    CORRUPT = "corrupt"
    UNVERIFIABLE = "unverifiable"  # nothing is known to be wrong, and nothing proves it right
    FOREIGN = "foreign"  # not an object at all


@dataclass(frozen=True, slots=True)
class CheckedObject:
    """One object after a check."""

    where: str  # path of the file, or the name of the object in memory
    content_hash: ContentHash | None  # None for a foreign file
    size_bytes: int
    verdict: Verdict
    reason: str = ""
    removed: bool = False


@dataclass(frozen=True, slots=True)
class NamedPin:
    """A set of objects that stays in the cache, under a name, until it is unpinned."""

    name: str
    label: str
    hashes: frozenset[str]  # hash texts: sets of them have up to a million members
    is_complete: bool = True  # as whoever pinned it has noted; objects that were damaged may be missing since
    size_bytes: int | None = None  # of all objects; None: not known, because they are not listed yet


@dataclass(frozen=True, slots=True)
class HeldPart:
    """How much of a set is in a store, lower tiers included."""

    objects: int
    size_bytes: int
