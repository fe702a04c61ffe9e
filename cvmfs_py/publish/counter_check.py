"""The check of a catalog's counters: its own against its rows, those of the subtree against the catalogs below.

Each catalog's own counters are compared with its rows, and each one's subtree counters with what the catalogs right
below say of themselves; so when all of them are right the sums are, and no catalog has to be open with another.
Describes problems. Concurrency: one thread.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from catalog.errors import show_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from catalog.entry import Entry
    from catalog.reader import Catalog

_COUNTED = ("regular", "symlink", "dir", "nested", "chunked", "chunks", "file_size", "chunked_size")
# By the revision of schema 2.5 that brought them.
_COUNTED_SINCE = {2: ("xattr",), 3: ("external", "external_file_size"), 5: ("special",)}
_FIRST_COUNTING_SCHEMA = 2.45


class OwnCounts:
    """What the rows of one catalog amount to."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, catalog: Catalog, entry: Entry) -> None:
        counts = self._counts
        counts["xattr"] += entry.xattr_blob is not None
        if entry.is_directory:
            counts["dir"] += 1
            counts["nested"] += entry.is_nested_mountpoint
        elif entry.is_symlink:
            counts["symlink"] += 1
        elif entry.is_regular:
            counts["regular"] += 1
            counts["file_size"] += entry.size
            if entry.is_chunked:
                counts["chunked"] += 1
                counts["chunked_size"] += entry.size
                counts["chunks"] += len(catalog.chunks(entry))
            if entry.is_external:
                counts["external"] += 1
                counts["external_file_size"] += entry.size
        else:
            counts["special"] += 1

    def problems(self, catalog: Catalog) -> Iterator[str]:
        own = catalog.counters().own
        for name in _counted_names(catalog):
            if own[name] != self._counts[name]:
                shown = show_path(catalog.mountpoint)
                yield f"the catalog of {shown} counts {own[name]} as {name}, but has {self._counts[name]}"


class SubtreeCounts:
    """The counters of the catalogs below one, while they come in one by one."""

    def __init__(self, catalog: Catalog, expected: int) -> None:
        """`expected` is the number of catalogs right below."""
        self._shown = show_path(catalog.mountpoint)
        self._stored = catalog.counters().subtree
        self._names = _counted_names(catalog)
        self._expected = expected
        self._sum: Counter[str] = Counter()

    def add(self, total: Mapping[str, int] | None) -> None:
        """What a catalog says of itself and those below it; None: it cannot be read, or counts less."""
        self._expected -= 1
        if total is None:
            self._names = ()
        else:
            self._sum.update(total)

    def problems(self) -> Iterator[str]:
        """Nothing before the last one came."""
        if self._expected:
            return
        for name in self._names:
            if self._stored[name] != self._sum[name]:
                yield (
                    f"the catalog of {self._shown} counts {self._stored[name]} as {name} in the catalogs below,"
                    f" but they have {self._sum[name]}"
                )


def total_counters(catalog: Catalog) -> dict[str, int] | None:
    """What a catalog says of itself and those below it. None: older servers counted less."""
    return catalog.counters().total if _counted_names(catalog) else None


def _counted_names(catalog: Catalog) -> tuple[str, ...]:
    if catalog.schema.version < _FIRST_COUNTING_SCHEMA:
        return ()
    since = _COUNTED_SINCE.items()
    later = (name for revision, names in since if catalog.schema.revision >= revision for name in names)
    return (*_COUNTED, *later)
