"""The counters that a catalog keeps of itself and of the catalogs below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.sql import Database
    from catalog.tables import Tables

NAMES = (
    "chunked",
    "chunked_size",
    "chunks",
    "dir",
    "external",
    "external_file_size",
    "file_size",
    "nested",
    "regular",
    "special",
    "symlink",
    "xattr",
)
_ROW_LIMIT = 1000  # newer servers may count more; real catalogs have 24 rows


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts by name, each name in `NAMES`; what a catalog does not count is 0."""

    own: dict[str, int]
    subtree: dict[str, int]  # the catalogs below, without this one

    @property
    def total(self) -> dict[str, int]:
        return {name: self.own[name] + self.subtree[name] for name in NAMES}

    @property
    def entries(self) -> int:
        """All entries of this catalog and below; a nested catalog's top directory counts in both catalogs."""
        return _sum_entries(self.total)

    @property
    def own_entries(self) -> int:
        """The entries of this catalog alone."""
        return _sum_entries(self.own)


def _sum_entries(counts: dict[str, int]) -> int:
    return counts["regular"] + counts["symlink"] + counts["special"] + counts["dir"]


def read_counters(database: Database, tables: Tables) -> Counters:
    stored: dict[object, object] = {}
    if tables.get("statistics", frozenset()) >= {"counter", "value"}:
        stored = dict(database.rows("SELECT counter, value FROM statistics LIMIT ?", (_ROW_LIMIT,)))

    def value(name: str) -> int:
        count = stored.get(name.encode(), 0)
        if type(count) is not int:
            raise database.subject.damaged(f"its counter {name} is not a number")
        return count

    return Counters(
        own={name: value(f"self_{name}") for name in NAMES},
        subtree={name: value(f"subtree_{name}") for name in NAMES},
    )
