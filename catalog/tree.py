"""The tree of catalogs below one root hash: which catalog answers for a path, attached when it is needed.

Any method may raise NotLocal (from the `open_object` it was given) and can be called again later; nothing that it did
until then is visible but in speed. "There is no such entry" (None) is said by the catalog that is responsible alone.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.directory import DirectoryView
from catalog.directory import Located as Located
from catalog.errors import CatalogError, show_path
from catalog.opened import DEFAULT_LIMIT, OpenedCatalogs
from catalog.reader import Catalog

if TYPE_CHECKING:
    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from catalog.opened import OpenObject
    from catalog.properties import Properties
    from catalog.transitions import Transition

_LEVEL_LIMIT = 256  # catalogs nested in each other; real repositories have less than 10


class CatalogTree:
    """The catalogs of one revision. Paths are absolute and normal: `b""`, or `b"/a/b"`."""

    def __init__(self, root_ref: ObjectRef, *, attached_limit: int = DEFAULT_LIMIT) -> None:
        self.root_ref = root_ref
        self._opened = OpenedCatalogs(attached_limit)
        # Every transition that was ever taken, so that an evicted catalog is reached without the ones above it.
        self._known: dict[bytes, tuple[Transition, int]] = {}

    def lookup(self, path: bytes, open_object: OpenObject) -> Located | None:
        """The entry at a path. A mountpoint is answered by its parent catalog and never waits for its own."""
        catalog = self.catalog_for(path, open_object)
        entry = catalog.lookup(path)
        return None if entry is None else Located(entry, catalog, path)

    def deepest(self, path: bytes, open_object: OpenObject) -> Located:
        """The entry at a path or, where there is none, the nearest one above it. A damaged tree has not even a root."""
        while (located := self.lookup(path, open_object)) is None:
            if not path:
                raise CatalogError("the root catalog is damaged: it has no root directory", self.root_ref.content_hash)
            path = path.rpartition(b"/")[0]
        return located

    def open_directory(self, path: bytes, open_object: OpenObject) -> DirectoryView | None:
        """The contents of a directory; loads its catalog if it is a mountpoint. None: there is no directory here."""
        located = self.lookup(path, open_object)
        return None if located is None else self.open_located(located, open_object)

    def open_located(self, located: Located, open_object: OpenObject) -> DirectoryView | None:
        """As `open_directory`, for an entry that was found before."""
        if not located.entry.is_directory:
            return None
        return DirectoryView(located.entry, self._catalog_within(located, open_object), located.path)

    def mounted(self, mountpoint: bytes, open_object: OpenObject) -> Catalog:
        """The catalog of a mountpoint that was attached before, attached again if it was evicted."""
        catalog = self._opened.get(mountpoint)
        if catalog is not None:
            return catalog
        if mountpoint:
            transition, level = self._known[mountpoint]
            return self._attach(transition, level, open_object)
        ref = self.root_ref
        catalog = Catalog.open(open_object(ref), b"", ref.content_hash)
        self._opened.add(catalog)
        return catalog

    def located_row(self, mountpoint: bytes, rowid: int, open_object: OpenObject) -> Located | None:
        """The entry in a row of the catalog mounted at `mountpoint`, which was attached before; for inode numbers."""
        catalog = self.mounted(mountpoint, open_object)
        entry = catalog.entry(rowid)
        path = catalog.path_of(rowid)
        return None if entry is None or path is None else Located(entry, catalog, path)

    def catalog_for(self, path: bytes, open_object: OpenObject) -> Catalog:
        """The catalog that has the row of a path, if there is one: for a mountpoint that of its parent."""
        catalog = self._nearest(path, open_object)
        while (transition := catalog.transitions.above(path)) is not None:
            catalog = self._attach(transition, self._level(catalog) + 1, open_object)
        return catalog

    def catalog_within(self, path: bytes, open_object: OpenObject) -> Catalog:
        """The catalog of the contents of a path: for a mountpoint its own, else the one that has its row."""
        located = self.lookup(path, open_object)
        if located is None:
            return self.catalog_for(path, open_object)
        return self._catalog_within(located, open_object)

    def nested_refs(self, path: bytes, open_object: OpenObject) -> tuple[ObjectRef, ...]:
        """The nested catalogs right below the catalog of a path, to be fetched all at once; none of other revisions."""
        catalog = self.catalog_within(path, open_object)
        found = (transition.ref for transition in catalog.transitions.all() if not transition.is_bind)
        return tuple(ref for ref in found if ref is not None)

    def root_properties(self, open_object: OpenObject) -> Properties:
        return self.mounted(b"", open_object).properties

    def detach(self, content_hash: ContentHash) -> None:
        """Closes what is attached of a catalog, wherever it is mounted: the next use opens its object anew."""
        self._opened.remove(content_hash)

    @property
    def attached_count(self) -> int:
        return len(self._opened)

    @property
    def attached_entry_count(self) -> int:
        """The entries of the attached catalogs, by their own counters."""
        return sum(catalog.counters().own_entries for catalog in self._opened)

    def close(self) -> None:
        """Detaches everything. The tree can be used again afterwards."""
        self._opened.close()

    def _catalog_within(self, located: Located, open_object: OpenObject) -> Catalog:
        catalog = located.catalog
        transition = catalog.transitions.at(located.path)
        if transition is not None:
            return self._attach(transition, self._level(catalog) + 1, open_object)
        if located.entry.is_nested_mountpoint or located.entry.is_bind_mountpoint:
            shown = show_path(located.path)
            raise CatalogError(
                f"nothing below {shown} can be reached: the catalog above is damaged and does not name this one",
                catalog.content_hash,
            )
        return catalog

    def _nearest(self, path: bytes, open_object: OpenObject) -> Catalog:
        """The deepest catalog known to lie on the way to a path, mounted strictly above it."""
        known = self._known
        if known:
            end = path.rfind(b"/")
            while end > 0:
                mountpoint = path[:end]
                if mountpoint in known:
                    return self.mounted(mountpoint, open_object)
                end = path.rfind(b"/", 0, end)
        return self.mounted(b"", open_object)

    def _attach(self, transition: Transition, level: int, open_object: OpenObject) -> Catalog:
        catalog = self._opened.get(transition.mountpoint)
        if catalog is not None:
            return catalog
        shown = show_path(transition.mountpoint)
        ref = transition.ref
        if ref is None:
            raise CatalogError(
                f"nothing below {shown} can be reached: the catalog above does not tell its nested catalog"
            )
        if level > _LEVEL_LIMIT:
            raise CatalogError(
                f"the catalog of {shown} is nested more than {_LEVEL_LIMIT} levels deep", ref.content_hash
            )
        catalog = Catalog.open(open_object(ref), transition.mountpoint, ref.content_hash)
        # Catalogs of another revision, and those below them, keep the paths of their own repository.
        if not transition.is_bind and catalog.root_prefix != transition.repository_path:
            made_for = show_path(catalog.root_prefix)
            catalog.close()
            raise CatalogError(f"the catalog of {shown} is damaged: it was made for {made_for}", ref.content_hash)
        self._known[transition.mountpoint] = (transition, level)
        self._opened.add(catalog)
        return catalog

    def _level(self, catalog: Catalog) -> int:
        return self._known[catalog.mountpoint][1] if catalog.mountpoint else 0
