"""One repository in a mount: the file system core, the driver that fills its cache, and what the kernel may keep.

The half that knows the network: what an operation means is for the core. Concurrency: tasks of one event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from cache.errors import CacheError, ObjectCorruptError
from cache.ref import NotLocal
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError
from cvmfs_py.fuse.volume import FOREVER_S, KernelTimes
from cvmfs_py.mount.local_hashes import LocalHashes
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.vfs.facts import MountFacts, NotHashed
from cvmfs_py.vfs.magic import Subject
from cvmfs_py.vfs.snapshot import Snapshot
from cvmfs_py.vfs.statfs import file_system_status
from cvmfs_py.vfs.xattrs import get_value, list_names, make_xattr_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.opened import OpenObject
    from cvmfs_py.mount.roots import Root, RootFinder
    from cvmfs_py.stats import Stats
    from cvmfs_py.vfs.attrs import View
    from cvmfs_py.vfs.files import RepositoryFiles
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.statfs import FileSystemStatus

_log = logging.getLogger(__name__)
T = TypeVar("T")
METADATA_DEADLINE_S = 300.0  # the largest catalogs have some hundred megabytes
AHEAD = 6  # objects that are fetched ahead at once
_PINNED = frozenset({RootOrigin.ROOT_HASH, RootOrigin.TAG, RootOrigin.DATE})


async def load_snapshot(finder: RootFinder, root: Root, view: View) -> Snapshot:
    """What a root shows. Its catalog is local."""
    properties = await finder.driver.run(root.tree.root_properties)
    tag = "" if root.tag is None else root.tag.name
    return Snapshot(finder.settings.fqrn, root.tree, properties, view, tag, root.origin in _PINNED)


class MountedVolume:
    """A volume for an engine."""

    def __init__(
        self, finder: RootFinder, root: Root, files: RepositoryFiles, background: trio.Nursery, stats: Stats
    ) -> None:
        self.finder = finder
        self.root = root
        self.stats = stats
        self.files = files
        kernel_s = finder.settings.kcache_timeout_s
        live = KernelTimes(entry_s=kernel_s, negative_s=kernel_s, root_attribute_s=kernel_s, are_taken_back=True)
        self.times = KernelTimes(FOREVER_S, FOREVER_S) if files.snapshot.is_pinned else live
        self.facts = MountFacts()  # until somebody knows more
        self.local_hashes = LocalHashes(finder.store)
        self._rules = make_xattr_rules(finder.settings)
        self._background = background
        self._ahead: set[ObjectRef] = set()

    @property
    def view(self) -> View:
        return self.files.snapshot.view

    def adopt(self, root: Root, snapshot: Snapshot) -> None:
        """Shows another revision from now on."""
        self.root = root
        self.files.adopt(snapshot)
        # The kernel may know a name of each revision for months, and catalogs take descriptors and memory.
        self.files.detach_superseded()

    def open_object(self, ref: ObjectRef) -> Pin:
        return self.finder.store.open(ref)

    def attempt(self, operation: Callable[[OpenObject], T]) -> T:
        value = operation(self.finder.store.open)
        self.stats.local_operations += 1
        return value

    async def run(self, operation: Callable[[OpenObject], T], *, is_data: bool = False) -> T:
        try:
            return await self._run(operation, is_data)
        except NotHashed as answer:
            asked = answer
        return await self._run(await self.local_hashes.answer(asked, operation), is_data)

    async def _run(self, operation: Callable[[OpenObject], T], is_data: bool) -> T:
        try:
            return self.attempt(operation)
        except (NotLocal, ObjectCorruptError, CatalogError) as obstacle:
            if isinstance(obstacle, CatalogError):
                self._detach(obstacle)
        self.stats.waiting_operations += 1
        started = trio.current_time()
        try:
            return await self.finder.driver.run(
                lambda open_object: self._attempt_again(operation, open_object),
                None if is_data else METADATA_DEADLINE_S,
            )
        finally:
            self.stats.waited_s += trio.current_time() - started

    def _attempt_again(self, operation: Callable[[OpenObject], T], open_object: OpenObject) -> T:
        try:
            return operation(open_object)
        except CatalogError as error:
            self._detach(error)
            raise

    def _detach(self, error: CatalogError) -> None:
        """The driver replaces a damaged local copy; an attached catalog would go on reading the old one."""
        if error.content_hash is not None:
            self.files.detach(error.content_hash)

    def fetch_ahead(self, refs: tuple[ObjectRef, ...]) -> None:
        for ref in refs:
            if len(self._ahead) >= AHEAD:
                break
            if ref not in self._ahead and not self.finder.store.has(ref):
                self._ahead.add(ref)
                self._background.start_soon(self._fetch_ahead, ref)

    async def _fetch_ahead(self, ref: ObjectRef) -> None:
        try:
            for pin in await self.finder.fetcher.ensure((ref,), prefetch=True):
                pin.close()
        except (CvmfsError, CacheError) as error:  # whoever needs it will ask again, and be told
            _log.debug("not fetched ahead: %s", error)
        finally:
            self._ahead.discard(ref)

    def list_xattrs(self, ino: Inode, gids: Collection[int], open_object: OpenObject) -> tuple[bytes, ...]:
        return list_names(self._subject(ino, open_object), self._rules, gids)

    def xattr(self, ino: Inode, name: bytes, gids: Collection[int], open_object: OpenObject) -> bytes:
        return get_value(self._subject(ino, open_object), name, self._rules, gids, open_object)

    def status(self, open_object: OpenObject) -> FileSystemStatus:
        used_bytes, limit_bytes = self.finder.store.room()
        return file_system_status(self.files.snapshot, limit_bytes, used_bytes, open_object)

    def _subject(self, ino: Inode, open_object: OpenObject) -> Subject:
        return Subject(self.files.located(ino, open_object), self.files.snapshot, self.facts)
