"""The catalogs of one revision while it is changed: which of them are open, which have changed, what becomes of them.

A catalog is copied out of the storage when it is first looked into, and stored again by `commit` when it or one below
changed. What entries mean is for the tree. Concurrency: one thread.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from typing import TYPE_CHECKING

from cache.address import ContentHash, Kind
from catalog.errors import CatalogError, show_path
from catalog.new_entry import from_entry
from catalog.properties import DEFAULT_TTL_S
from catalog.statistics import NAMES
from catalog.writer import CatalogWriter
from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.new_entry import NewEntry
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage

# Each open catalog has a page cache of up to 8 MiB.
OPEN_LIMIT = 8
_NO_HASH_DIGITS = "0" * 40
# After a catalog grew by this share its pages are worth to be put in order.
_GROWTH = 1.25


class WorkingCatalog:
    """One catalog of the tree. Its `children` are known once it was opened."""

    __slots__ = (
        "children",
        "content_hash",
        "counted",
        "is_changed",
        "last_used",
        "mountpoint",
        "parent",
        "path",
        "size_bytes",
        "subtree",
        "writer",
    )

    def __init__(self, mountpoint: bytes, parent: WorkingCatalog | None, content_hash: ContentHash | None) -> None:
        self.mountpoint = mountpoint
        self.parent = parent
        self.content_hash = content_hash  # of the stored catalog; None: it was never stored
        self.size_bytes = 0  # of the stored catalog, inflated
        self.path: str | None = None  # of the working copy
        self.writer: CatalogWriter | None = None  # while it is open
        self.children: dict[bytes, WorkingCatalog] | None = None
        self.counted: dict[str, int] | None = None  # its counters that are in the parent's, once they are known
        self.subtree: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.is_changed = False
        self.last_used = 0


class WorkingCatalogs:
    """All catalogs of one tree. Close it: it has a directory of its own for the working copies."""

    def __init__(
        self,
        storage: Storage,
        settings: RepositorySettings,
        root_hash: ContentHash | None,
        workdir: str | os.PathLike[str],
        open_limit: int = OPEN_LIMIT,
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._open_limit = max(open_limit, 2)  # a catalog and the one above it
        self._open: list[WorkingCatalog] = []
        self._clock = 0
        self._numbers = itertools.count()
        self.written: list[ContentHash] = []  # by commits
        self.root = WorkingCatalog(b"", None, root_hash)
        try:
            self._directory = tempfile.mkdtemp(prefix="catalogs-", dir=workdir)
        except OSError as error:
            raise PublishError(f"there is no room for working copies in {workdir}: {error.strerror}") from error

    def close(self) -> None:
        """Removes the working copies. Idempotent."""
        for catalog in self._open:
            if catalog.writer is not None:
                catalog.writer.close()
        self._open.clear()
        if os.path.isdir(self._directory):
            for name in os.listdir(self._directory):
                os.unlink(os.path.join(self._directory, name))
            os.rmdir(self._directory)

    # --- finding and opening

    def holding(self, path: bytes) -> WorkingCatalog:
        """The catalog that has the row of a path: of a mountpoint that of its parent."""
        catalog = self.root
        end = path.find(b"/", 1)
        while end > 0:
            child = self.children(catalog).get(path[:end])
            if child is not None:
                catalog = child
            end = path.find(b"/", end + 1)
        return catalog

    def within(self, path: bytes) -> WorkingCatalog:
        """The catalog that has the rows right below a directory."""
        catalog = self.holding(path)
        return self.children(catalog).get(path, catalog)

    def children(self, catalog: WorkingCatalog) -> dict[bytes, WorkingCatalog]:
        if catalog.children is None:
            self.writer(catalog)
        assert catalog.children is not None
        return catalog.children

    def writer(self, catalog: WorkingCatalog) -> CatalogWriter:
        """The open working copy; it stays open until the next call for another catalog at least."""
        self._clock += 1
        catalog.last_used = self._clock
        return catalog.writer or self._opened(catalog)

    def below(self, catalog: WorkingCatalog, path: bytes) -> list[WorkingCatalog]:
        """The children of a catalog that are mounted at or below a path."""
        prefix = path + b"/"
        found = self.children(catalog).items()
        return [child for mountpoint, child in found if mountpoint == path or mountpoint.startswith(prefix)]

    def known(self) -> Iterator[WorkingCatalog]:
        """Every catalog that is known without opening more: the root, and the children of all that were opened."""
        pending = [self.root]
        while pending:
            catalog = pending.pop()
            yield catalog
            pending += (catalog.children or {}).values()

    # --- changing

    def create_root(self, top: NewEntry) -> None:
        catalog = self.root
        catalog.writer = CatalogWriter.create(self._new_path(catalog), b"", top)
        catalog.children = {}
        catalog.is_changed = True
        self._open.append(catalog)

    def change(self, catalog: WorkingCatalog) -> CatalogWriter:
        """The open working copy, which from now on counts as changed, and with it all catalogs above."""
        above: WorkingCatalog | None = catalog
        while above is not None and not above.is_changed:
            above.is_changed = True
            above = above.parent
        return self.writer(catalog)

    def split(self, catalog: WorkingCatalog, path: bytes, top: NewEntry) -> WorkingCatalog:
        """Moves everything below a path into a new catalog with this top row. The row above is for the caller."""
        child = WorkingCatalog(path, catalog, None)
        child.counted = dict.fromkeys(NAMES, 0)
        moved = self.below(catalog, path)
        for other in moved:
            self._count(other)  # while the parent that counts it can be asked
        writer = self.change(catalog)
        child.writer = CatalogWriter.create(self._new_path(child), path, top)
        child.children = {}
        child.is_changed = True
        child.last_used = self._clock
        self._open.append(child)
        writer.move_below_to(child.writer, path)
        writer.set_nested(path, None, 0)
        children = self.children(catalog)
        for other in moved:
            self._hand_over(other, catalog, child)
        children[path] = child
        self._close_some(child, catalog)
        return child

    def join(self, child: WorkingCatalog) -> None:
        """Moves everything in a catalog but its top row into the one above, whose row is for the caller."""
        catalog = child.parent
        assert catalog is not None
        for other in list(self.children(child).values()):
            self._count(other)
        self._count(child)
        writer = self.change(catalog)
        writer.absorb(self.writer(child))
        writer.remove_nested(child.mountpoint)
        for other in list(self.children(child).values()):
            self._hand_over(other, child, catalog)
        self.drop(child)

    def drop(self, child: WorkingCatalog) -> None:
        """Forgets a catalog and all below it. The row in the table of the one above is for the caller."""
        catalog = child.parent
        assert catalog is not None
        counted = self._count(child)
        self.change(catalog)
        for name in NAMES:
            catalog.subtree[name] -= counted[name]
        del self.children(catalog)[child.mountpoint]
        pending = [child]
        while pending:
            gone = pending.pop()
            pending += (gone.children or {}).values()
            self._discard(gone)

    # --- storing

    def commit(self, revision: int, timestamp_s: int, previous: ContentHash | None = None) -> None:
        """Stores the root catalog, which follows `previous` (None: the one it was made from), and what changed."""
        self._store(self.root, revision, timestamp_s, previous)

    def _store(
        self, catalog: WorkingCatalog, revision: int, timestamp_s: int, previous: ContentHash | None = None
    ) -> dict[str, int]:
        """Stores the changed catalogs below, then this one; the counters of all of them."""
        writer = self.change(catalog)
        for mountpoint, child in sorted(self.children(catalog).items()):
            if child.is_changed:
                counted = self._count(child)
                total = self._store(child, 0, timestamp_s)
                for name in NAMES:
                    catalog.subtree[name] += total[name] - counted[name]
                child.counted = total
                top = self.writer(child).lookup(mountpoint)
                writer = self.writer(catalog)
                writer.set_nested(mountpoint, child.content_hash, child.size_bytes)
                row = writer.lookup(mountpoint)
                if top is None or row is None:
                    raise CatalogError(f"the catalog of {show_path(mountpoint)} has lost its top directory")
                if row.hardlinks != top.hardlinks:
                    writer.put(mountpoint, from_entry(row)._replace(hardlinks=top.hardlinks), row)
        writer = self.writer(catalog)
        properties = self._properties(catalog, writer, revision, timestamp_s)
        if previous is not None:
            properties["previous_revision"] = str(previous)
        is_new = catalog.content_hash is None
        assert catalog.path is not None
        writer.flush()
        grown = os.path.getsize(catalog.path) > catalog.size_bytes * _GROWTH
        counters = writer.finish(properties, catalog.subtree, compact=is_new or grown)
        catalog.content_hash = self._storage.put_file(catalog.path, Kind.CATALOG, self._settings)
        catalog.size_bytes = os.path.getsize(catalog.path)
        catalog.is_changed = False
        self.written.append(catalog.content_hash)
        return counters.total

    def _properties(
        self, catalog: WorkingCatalog, writer: CatalogWriter, revision: int, timestamp_s: int
    ) -> dict[str, str]:
        properties = {"last_modified": str(timestamp_s)}
        if catalog.parent is None:
            settings = self._settings
            properties |= {"revision": str(revision), "TTL": str(settings.ttl_s)}
            if settings.is_volatile or b"volatile" in writer.stored_properties:
                properties["volatile"] = str(int(settings.is_volatile))
        else:
            properties["revision"] = str(writer.number(b"revision", 0) + 1)
            properties["previous_revision"] = _NO_HASH_DIGITS
        if catalog.content_hash is not None:
            properties["previous_revision"] = str(catalog.content_hash)
        return properties

    def root_differs_from_settings(self) -> bool:
        """Whether a new root catalog would have another lifetime or volatility than the stored one."""
        writer = self.writer(self.root)
        is_volatile = writer.number(b"volatile", 0) != 0
        return (writer.number(b"TTL", DEFAULT_TTL_S), is_volatile) != (self._settings.ttl_s, self._settings.is_volatile)

    # --- working copies

    def _opened(self, catalog: WorkingCatalog) -> CatalogWriter:
        if catalog.path is None:
            if catalog.content_hash is None:
                raise PublishError(
                    f"nothing below {show_path(catalog.mountpoint)} can be changed: the catalog above does not tell "
                    "its nested catalog"
                )
            path = self._new_path(catalog)
            catalog.size_bytes = self._storage.extract(catalog.content_hash, Kind.CATALOG, path)
        assert catalog.path is not None
        writer = CatalogWriter.open(catalog.path, catalog.mountpoint, catalog.content_hash)
        catalog.writer = writer
        self._open.append(catalog)
        if catalog.children is None:
            catalog.children = {
                mountpoint: WorkingCatalog(mountpoint, catalog, content_hash)
                for mountpoint, (content_hash, _) in writer.nested().items()
            }
            counters = writer.stored_counters()
            catalog.subtree = counters.subtree
            if catalog.counted is None:
                catalog.counted = counters.total
        self._close_some(catalog, catalog)
        return writer

    def _close_some(self, *needed: WorkingCatalog) -> None:
        while len(self._open) > self._open_limit:
            oldest = min((one for one in self._open if one not in needed), key=lambda one: one.last_used)
            self._open.remove(oldest)
            assert oldest.writer is not None
            oldest.writer.suspend()
            oldest.writer = None
            if not oldest.is_changed and oldest.path is not None and oldest.content_hash is not None:
                os.unlink(oldest.path)
                oldest.path = None

    def _count(self, catalog: WorkingCatalog) -> dict[str, int]:
        """What the counters of the catalog above say of this one and those below it."""
        if catalog.counted is None:
            self.writer(catalog)
        assert catalog.counted is not None
        return catalog.counted

    def _hand_over(self, child: WorkingCatalog, giver: WorkingCatalog, taker: WorkingCatalog) -> None:
        """Makes a nested catalog that of another parent; its row has moved."""
        counted = self._count(child)
        for name in NAMES:
            giver.subtree[name] -= counted[name]
            taker.subtree[name] += counted[name]
        del self.children(giver)[child.mountpoint]
        self.children(taker)[child.mountpoint] = child
        child.parent = taker

    def _discard(self, catalog: WorkingCatalog) -> None:
        if catalog.writer is not None:
            catalog.writer.close()
            catalog.writer = None
            self._open.remove(catalog)
        if catalog.path is not None:
            os.unlink(catalog.path)
            catalog.path = None

    def _new_path(self, catalog: WorkingCatalog) -> str:
        catalog.path = os.path.join(self._directory, f"{next(self._numbers)}.catalog")
        return catalog.path
