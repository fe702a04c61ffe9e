"""One opened repository: a snapshot with everything that is needed to look into it.

Thin: each method is one operation of the rows below, run by the driver. Builds nothing; `assemble` does.

Concurrency: any number of tasks of one event loop may use it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from cache.errors import ObjectCorruptError
from cache.store import open_all
from catalog.content import file_spans
from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import FsError
from cvmfs_py.mount.prefetch import read_ahead
from cvmfs_py.mount.walking import Listing, Walk
from cvmfs_py.vfs import attrs, lookup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    import trio

    from cache.address import ContentHash
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store
    from catalog.content import Span
    from catalog.directory import DirectoryView
    from catalog.entry import Chunk, Entry
    from catalog.opened import OpenObject
    from catalog.tree import CatalogTree, Located
    from cvmfs_py.config.settings import Settings
    from cvmfs_py.driver import Driver
    from cvmfs_py.mount.roots import Root
    from cvmfs_py.network.fetcher import Fetcher

T = TypeVar("T")
WINDOW = 8  # chunks of one file that are fetched and pinned together: up to 128 MiB


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one root."""

    settings: Settings
    store: Store
    fetcher: Fetcher
    driver: Driver
    root: Root
    view: attrs.View
    background: trio.Nursery  # for what is fetched ahead; ends with the repository
    warnings: tuple[str, ...] = ()
    listings: WeakSet[Listing] = field(default_factory=WeakSet)  # those under way

    def close(self) -> None:
        """Lets go of all catalogs, also those of listings that were dropped by an error."""
        for listing in list(self.listings):
            listing.close()
        self.tree.close()

    @property
    def fqrn(self) -> str:
        return self.settings.fqrn

    @property
    def tree(self) -> CatalogTree:
        return self.root.tree

    @property
    def root_hash(self) -> ContentHash:
        return self.root.content_hash

    async def run(self, operation: Callable[[OpenObject], T]) -> T:
        def attempt(open_object: OpenObject) -> T:
            try:
                return operation(open_object)
            except CatalogError as error:
                # The driver replaces a damaged local copy; an attached catalog would go on reading the old one.
                if error.content_hash is not None:
                    self.tree.detach(error.content_hash)
                raise

        return await self.driver.run(attempt)

    async def resolve(self, path: bytes, *, follow_last: bool = True) -> Located:
        """The entry at a path, links followed as a program on a mount would."""
        roots = (b"/cvmfs/" + self.fqrn.encode(),)
        return await self.run(
            lambda open_object: lookup.resolve(self.tree, path, self.view, roots, open_object, follow_last=follow_last)
        )

    async def open_directory(self, path: bytes) -> DirectoryView:
        """The contents of a directory that exists."""

        def operation(open_object: OpenObject) -> DirectoryView:
            view = self.tree.open_directory(path, open_object)
            if view is None:
                raise FsError(errno.ENOTDIR, f"{show_path(path)} is not a directory")
            return view

        return await self.run(operation)

    def listing(self, path: bytes, *, hidden: bool = False) -> Listing:
        """The entries of a directory that exists, by name."""
        return Listing(self, path, hidden=hidden)

    def walk(
        self, path: bytes, *, hidden: bool = False, wanted: Callable[[bytes, bytes], bool] = lambda *_: True
    ) -> Walk:
        """The paths of a directory and of every directory below, parents first, siblings by name."""
        return Walk(self, path, hidden=hidden, wanted=wanted)

    def attributes(self, entry: Entry) -> attrs.Attributes:
        return attrs.attributes(entry, self.view)

    def link_target(self, entry: Entry) -> bytes:
        return attrs.link_target(entry, self.view)

    async def pin(self, refs: tuple[ObjectRef, ...]) -> list[Pin]:
        """These objects, local and pinned; what is missing is fetched at once. Close each."""
        return await self.driver.run(lambda open_object: open_all(refs, open_object))

    async def check_object(self, ref: ObjectRef) -> None:
        """Makes sure that an object is local and intact; a damaged local copy is replaced from the servers, once."""

        def operation(open_object: Callable[[ObjectRef], Pin]) -> None:
            with open_object(ref) as pin:
                if not self.store.is_intact(pin):
                    self.tree.detach(ref.content_hash)  # if it is a catalog: an open one would stay as it is
                    raise ObjectCorruptError(f"the cached copy of {ref} is damaged", ref.content_hash)

        await self.driver.run(operation)

    async def spans(self, located: Located) -> tuple[Span, ...]:
        """The objects of a regular file in order."""

        def operation(open_object: OpenObject) -> tuple[Span, ...]:
            catalog = self.tree.catalog_for(located.path, open_object)
            volatile = self.tree.root_properties(open_object).is_volatile
            return file_spans(catalog, located.entry, located.path, volatile=volatile)

        return await self.run(operation)

    async def content_windows(self, located: Located) -> list[tuple[ObjectRef, ...]]:
        """The objects of a regular file in order, in groups to be fetched together."""
        refs = [span.ref for span in await self.spans(located)]
        return [tuple(refs[start : start + WINDOW]) for start in range(0, len(refs), WINDOW)]

    def read_windows(
        self, windows: list[tuple[ObjectRef, ...]]
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Pin]]]:
        """Each window's objects, pinned, for the one who closes them; the next are fetched meanwhile."""
        return read_ahead(windows, self.pin)

    async def chunks(self, located: Located) -> tuple[Chunk, ...]:
        return await self.run(
            lambda open_object: self.tree.catalog_for(located.path, open_object).chunks(located.entry)
        )

    def catalog_hash(self, located: Located) -> ContentHash | None:
        """The catalog that has the entry or, for a mountpoint, the one that is mounted there."""
        transition = located.catalog.transitions.at(located.path)
        return located.catalog.content_hash if transition is None else transition.content_hash
