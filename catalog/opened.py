"""The attached catalogs of one tree, the least recently used of which are closed when there are too many.

Decides nothing about where a path leads. Concurrency: one thread at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cache.ref import ObjectRef
from catalog.sql import LocalObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.address import ContentHash
    from catalog.reader import Catalog

__all__ = ["LocalObject", "OpenObject", "OpenedCatalogs"]

OpenObject: TypeAlias = Callable[[ObjectRef], LocalObject]  # gives an open object or raises NotLocal

# Two descriptors and up to 1 MiB of pages each; the customary limit of a process is 1,024 descriptors.
DEFAULT_LIMIT = 128


class OpenedCatalogs:
    """Attached catalogs by mountpoint. The root catalog is never evicted."""

    __slots__ = ("_catalogs", "_limit")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._catalogs: OrderedDict[bytes, Catalog] = OrderedDict()
        self._limit = max(limit, 2)  # the root and the one that was asked for

    def __len__(self) -> int:
        return len(self._catalogs)

    def __iter__(self) -> Iterator[Catalog]:
        return iter(self._catalogs.values())

    def __contains__(self, mountpoint: bytes) -> bool:
        return mountpoint in self._catalogs

    def get(self, mountpoint: bytes) -> Catalog | None:
        catalog = self._catalogs.get(mountpoint)
        if catalog is not None:
            self._catalogs.move_to_end(mountpoint)
        return catalog

    def add(self, catalog: Catalog) -> None:
        self._catalogs[catalog.mountpoint] = catalog
        if len(self._catalogs) > self._limit:
            if b"" in self._catalogs:
                self._catalogs.move_to_end(b"")
            oldest = next(iter(self._catalogs))
            self._catalogs.pop(oldest).close()

    def remove(self, content_hash: ContentHash) -> None:
        """Closes every catalog of this content."""
        for mountpoint in [each for each, catalog in self._catalogs.items() if catalog.content_hash == content_hash]:
            self._catalogs.pop(mountpoint).close()

    def close(self) -> None:
        while self._catalogs:
            self._catalogs.popitem()[1].close()
