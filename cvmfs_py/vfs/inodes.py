"""Inode numbers bound to content: `base(catalog) + row`. A number means the same row as long as the process lives.

Every catalog gets a range of numbers when it is first shown, which is never given to anything else. So no table grows
with the number of entries that were visited, and a catalog that a new revision did not change keeps its numbers, and
with them everything that the kernel knows. Lookup counts are kept for each catalog, to tell when an old one may go.

Reads no catalog. Concurrency: one thread at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Generic, NewType, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.address import ContentHash
    from catalog.tree import CatalogTree

Inode = NewType("Inode", int)
ROOT = Inode(1)
_FIRST = 2
OwnerT = TypeVar("OwnerT")


class InodeRange(Generic[OwnerT]):
    """The numbers of one catalog of one owner. Row n has the number `base + n`; rows count from 1."""

    __slots__ = ("base", "content_hash", "length", "lookups", "mountpoint", "owner", "tree")

    def __init__(
        self, base: int, length: int, owner: OwnerT, tree: CatalogTree, mountpoint: bytes, content_hash: ContentHash
    ) -> None:
        self.base = base
        self.length = length
        self.owner = owner
        self.tree = tree  # the newest that is known to have this catalog
        self.mountpoint = mountpoint
        self.content_hash = content_hash
        self.lookups = 0  # what the kernel still refers to


class Inodes(Generic[OwnerT]):
    """All numbers of one mount. The owner of a range is what a number leads to: one of several repositories."""

    def __init__(self) -> None:
        self._next = _FIRST - 1  # the base of the next range
        self._bases: list[int] = []  # ascending, as are the ranges
        self._ranges: list[InodeRange[OwnerT]] = []
        self._by_catalog: dict[tuple[int, bytes, ContentHash], InodeRange[OwnerT]] = {}

    @property
    def highest(self) -> int:
        """The highest number that was ever given."""
        return self._next

    def __len__(self) -> int:
        """The number of catalogs that have numbers."""
        return len(self._ranges)

    def range_of(
        self, owner: OwnerT, tree: CatalogTree, mountpoint: bytes, content_hash: ContentHash, max_rowid: int
    ) -> InodeRange[OwnerT]:
        """The range of a catalog, from now on read through this tree."""
        key = (id(owner), mountpoint, content_hash)
        found = self._by_catalog.get(key)
        if found is None:
            found = InodeRange(self._next, max_rowid, owner, tree, mountpoint, content_hash)
            self._next += max_rowid
            self._bases.append(found.base)
            self._ranges.append(found)
            self._by_catalog[key] = found
        found.tree = tree
        return found

    def find(self, ino: int) -> InodeRange[OwnerT] | None:
        """The range of a number; None: it was never given, or is forgotten."""
        index = bisect_right(self._bases, ino - 1) - 1
        if index < 0:
            return None
        found = self._ranges[index]
        return found if ino - found.base <= found.length else None

    def remember(self, ino: int, count: int = 1) -> None:
        """The kernel was told of a number."""
        if (found := self.find(ino)) is not None:
            found.lookups += count

    def forget(self, ino: int, count: int) -> InodeRange[OwnerT] | None:
        """The kernel has let go of a number; the range, when it does not refer to any of it any more."""
        found = self.find(ino)
        if found is None:
            return None
        found.lookups = max(0, found.lookups - count)
        return None if found.lookups else found

    def of_tree(self, tree: CatalogTree) -> Iterator[InodeRange[OwnerT]]:
        return (each for each in self._ranges if each.tree is tree)

    def drop(self, tree: CatalogTree) -> bool:
        """Forgets the numbers of a superseded tree, unless the kernel refers to one. Says whether it did."""
        if any(each.lookups for each in self.of_tree(tree)):
            return False
        for each in list(self.of_tree(tree)):
            del self._by_catalog[(id(each.owner), each.mountpoint, each.content_hash)]
        self._ranges = [each for each in self._ranges if each.tree is not tree]
        self._bases = [each.base for each in self._ranges]
        return True

    @property
    def lookups(self) -> int:
        """What the kernel refers to, in all."""
        return sum(each.lookups for each in self._ranges)
