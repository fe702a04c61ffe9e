"""Located entries, and the view of one directory's contents: pages for a file system, streams for a listing.

A view is a value for the moment: take a new one for every operation. A stream that has begun is safe from eviction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.entry import Entry
    from catalog.reader import Catalog, Page


class Located(NamedTuple):
    """An entry, the catalog whose row it is, and its path as seen in the mount."""

    entry: Entry
    catalog: Catalog
    path: bytes


class DirectoryView(NamedTuple):
    """A directory and the catalog that holds its contents, which for a mountpoint is not the one of its own row."""

    entry: Entry
    catalog: Catalog
    path: bytes

    def page(self, after_rowid: int, limit: int) -> Page:
        """The next visible entries in the order of their rows; begin with 0."""
        return self.catalog.page(self.path, after_rowid, limit)

    def by_name(self, *, hidden: bool = False) -> Iterator[Located]:
        """The visible entries (or all of them), ordered by the bytes of their names."""
        return self._located(self.catalog.by_name(self.path), hidden)

    def subdirectories(self, *, hidden: bool = False) -> Iterator[Located]:
        """The visible subdirectories ordered by name, for a walk; bind mountpoints among them are for the caller."""
        return self._located(self.catalog.by_name(self.path, only_directories=True), hidden)

    def _located(self, entries: Iterator[Entry], hidden: bool) -> Iterator[Located]:
        prefix = self.path + b"/"
        catalog = self.catalog
        for entry in entries:
            if hidden or not entry.is_hidden:
                yield Located(entry, catalog, prefix + entry.name)
