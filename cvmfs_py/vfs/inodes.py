"""Inode numbers bound to content: `base(catalog) + row`. A number means the same row as long as the process lives.

Every catalog gets a range of numbers when it is first shown, which is never given to anything else. So no table grows
with the number of entries that were visited, and a catalog that a new revision did not change keeps its numbers, and
with them everything that the kernel knows. Lookup counts are kept for each catalog, to tell when an old one may go.

Reads no catalog. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Generic, NewType, TypeVar

from cvmfs_py.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from catalog.tree import CatalogTree

Inode = NewType("Inode", int)
ROOT = Inode(1)
_FIRST = 2
_LIMIT = 1 << 63  # a kernel's number has 64 bits, and many a program takes it for one with a sign
OwnerT = TypeVar("OwnerT")


class InodeRange(Generic[OwnerT]):
    """The numbers of one catalog of one owner. Row n has the number `base + n`; rows count from 1."""

    __slots__ = ("base", "content_hash", "length", "lookups", "mountpoint", "owner", "tree")

    def __init__(
        self,
        base: int,
        length: int,
        owner: OwnerT,
        tree: CatalogTree | None = None,
        mountpoint: bytes = b"",
        content_hash: ContentHash | None = None,
    ) -> None:
        self.base = base
        self.length = length
        self.owner = owner
        self.tree = tree  # through which the catalog is read; None: a single number that stands for no row
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
        self._held: Counter[CatalogTree | None] = Counter()  # ranges to which the kernel refers

    @property
    def highest(self) -> int:
        """The highest number that was ever given."""
        return self._next

    @property
    def lookups(self) -> int:
        """What the kernel refers to, in all."""
        return sum(each.lookups for each in self._ranges)

    def __len__(self) -> int:
        """The number of ranges."""
        return len(self._ranges)

    def range_of(
        self, owner: OwnerT, tree: CatalogTree, mountpoint: bytes, content_hash: ContentHash, max_rowid: int
    ) -> InodeRange[OwnerT]:
        """The range of a catalog. A new one is read through this tree, one that was there as it was before."""
        key = (id(owner), mountpoint, content_hash)
        found = self._by_catalog.get(key)
        if found is None:
            base = self._take(max_rowid)
            found = self._by_catalog[key] = InodeRange(base, max_rowid, owner, tree, mountpoint, content_hash)
            self._add(found)
        return found

    def reserve(self, make: Callable[[Inode], OwnerT]) -> OwnerT:
        """A single number for an owner, which is made with it."""
        base = self._take(1)
        owner = make(Inode(base + 1))
        self._add(InodeRange(base, 1, owner))
        return owner

    def move(self, moved: InodeRange[OwnerT], tree: CatalogTree) -> None:
        """From now on a catalog is read through this tree, and keeps no older one alive."""
        if moved.tree is tree:
            return
        if moved.lookups:
            self._held[moved.tree] -= 1
            self._held[tree] += 1
        moved.tree = tree

    def find(self, ino: int) -> InodeRange[OwnerT] | None:
        """The range of a number; None: it was never given, or is forgotten."""
        index = bisect_right(self._bases, ino - 1) - 1
        if index < 0:
            return None
        found = self._ranges[index]
        return found if ino - found.base <= found.length else None

    def remember(self, ino: int, count: int = 1) -> None:
        """The kernel was told of a number."""
        found = self.find(ino)
        if found is None or count <= 0:
            return
        if not found.lookups:
            self._held[found.tree] += 1
        found.lookups += count

    def forget(self, ino: int, count: int) -> InodeRange[OwnerT] | None:
        """The kernel has let go of a number; the range, when that was the last reference to any of it."""
        found = self.find(ino)
        if found is None or not found.lookups:
            return None
        found.lookups = max(0, found.lookups - count)
        if found.lookups:
            return None
        self._held[found.tree] -= 1
        return found

    def drop(self, tree: CatalogTree) -> bool:
        """Forgets the numbers of a superseded tree, unless the kernel refers to one. Says whether it did."""
        if self._held[tree]:
            return False
        self._remove([each for each in self._ranges if each.tree is tree])
        return True

    def is_referred_to(self, owner: OwnerT) -> bool:
        """Whether the kernel knows of any number of an owner."""
        return any(each.lookups for each in self._ranges if each.owner is owner)

    def drop_owner(self, owner: OwnerT) -> None:
        """Forgets all numbers of an owner, whatever the kernel refers to."""
        self._remove([each for each in self._ranges if each.owner is owner])

    def _take(self, length: int) -> int:
        """The base of a new range."""
        base = self._next
        if base + length >= _LIMIT:
            raise FsError(errno.EOVERFLOW, "there are no inode numbers left for another catalog")
        self._next += length
        return base

    def _add(self, added: InodeRange[OwnerT]) -> None:
        index = bisect_right(self._bases, added.base)
        self._bases.insert(index, added.base)
        self._ranges.insert(index, added)

    def _remove(self, removed: list[InodeRange[OwnerT]]) -> None:
        gone = set(map(id, removed))
        for each in removed:
            if each.lookups:
                self._held[each.tree] -= 1
            if each.content_hash is not None:
                del self._by_catalog[(id(each.owner), each.mountpoint, each.content_hash)]
        self._ranges = [each for each in self._ranges if id(each) not in gone]
        self._bases = [each.base for each in self._ranges]
        self._held = +self._held  # a count of nothing would keep a tree alive
