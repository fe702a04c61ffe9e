"""Pins trees of a snapshot in the cache: lists everything below a path, tells the store to keep it, and fetches it.

A set is written down, as incomplete, before its data is fetched, so that eviction cannot take the first objects while
the last are on their way, and so that everybody sees what an interruption has left. Pinned sets may exceed the cache's
limit; `measure_room` tells before.

Concurrency: one task walks, then `jobs` tasks fetch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from cache.address import Kind
from cache.errors import ObjectCorruptError
from cache.ref import ObjectRef
from catalog.errors import show_path
from cvmfs_py.errors import FetchError, IntegrityError
from cvmfs_py.mount.concurrency import Patience, first_error
from cvmfs_py.mount.memory import Memory
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.trust.blacklist import Blacklist

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache.address import ContentHash
    from cache.store import Store
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

DAMAGES = (FetchError, IntegrityError, ObjectCorruptError)  # of single objects

_DISK_BLOCK_BYTES = 4096


class Observer(Protocol):
    """Who wants to know how far it is."""

    def expect(self, objects: int = 1, size_bytes: int = 0) -> None: ...
    def skip(self, size_bytes: int = 0, objects: int = 1) -> None: ...
    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class PinnedTree:
    """A tree that is listed and noted; fetched or not."""

    label: str
    refs: dict[ContentHash, ObjectRef]
    size_bytes: int
    catalogs: int

    @property
    def objects(self) -> int:
        return len(self.refs)


@dataclass(slots=True)
class FetchReport:
    """What became of the objects of a tree; grows while they are fetched."""

    kept_objects: int = 0  # which were here before
    fetched_objects: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RoomForPins:
    """What pins need beside what there is."""

    pinned_bytes: int  # of all pins together, when everything is here
    limit_bytes: int | None
    missing_bytes: int  # still to be fetched, as they take room on a disk
    available_bytes: int | None  # on the disk, with all that can be evicted; None: not known

    @property
    def exceeds_limit(self) -> bool:
        return self.limit_bytes is not None and self.pinned_bytes > self.limit_bytes

    @property
    def exceeds_disk(self) -> bool:
        return self.available_bytes is not None and self.missing_bytes > self.available_bytes


def pin_label(fqrn: str, snapshot: str | None, path: bytes) -> str:
    """What a pin is called: the same words as on the command line."""
    return f"{fqrn}{'@' + snapshot if snapshot else ''}:{show_path(path)}"


def pin_name(label: str) -> str:
    """The name of a pin's file."""
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:32]


async def list_tree(repository: Repository, path: bytes, observer: Observer) -> PinnedTree:
    """What has to be kept of a file or everything below a directory, with the catalogs that lead there; keeps it."""
    start = await repository.resolve(path)
    store = repository.store
    label = pin_label(repository.fqrn, _snapshot_name(repository), start.path)
    name = pin_name(label)
    if all(pin.name != name for pin in store.named_pins()):
        store.pin(name, label, [], is_complete=False)  # whoever is interrupted now finds it as well
    catalogs, objects = await _collect(repository, start, observer)
    # The sizes that are told of catalogs are informative only; they were read just now.
    catalog_bytes = store.held(map(str, catalogs)).size_bytes
    size_bytes = catalog_bytes + sum(ref.size_bytes or 0 for ref in objects.values())
    listed = PinnedTree(label, catalogs | objects, size_bytes, len(catalogs))
    store.pin(name, label, listed.refs, is_complete=False, size_bytes=size_bytes)
    if repository.root.tag is not None and repository.root.trusted is not None:
        Memory(repository.fqrn, repository.store, (), Blacklist(), []).keep_pinned(repository.root.trusted)
    return listed


def measure_room(store: Store, trees: Sequence[PinnedTree]) -> RoomForPins:
    """What these trees need beside the pins that are there."""
    refs: dict[ContentHash, ObjectRef] = {}
    for tree in trees:
        refs |= tree.refs
    wanted = {str(content_hash) for content_hash in refs}
    others = {text for pin in store.named_pins() for text in pin.hashes if text not in wanted}
    missing = [ref.size_bytes or 0 for ref in refs.values() if not store.has(ref)]
    pinned_bytes = store.held(others).size_bytes + store.held(wanted).size_bytes + sum(missing)
    missing_bytes = sum(-(-size_bytes // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES for size_bytes in missing)
    status = store.status()
    evictable_bytes = max(0, status.used_bytes - status.pinned_bytes)
    available_bytes = None if status.disk_free_bytes is None else status.disk_free_bytes + evictable_bytes
    return RoomForPins(pinned_bytes, status.limit_bytes, missing_bytes, available_bytes)


async def fetch_tree(repository: Repository, tree: PinnedTree, observer: Observer, *, jobs: int = 32) -> FetchReport:
    """Fetches what of a listed tree is not here. Failures of single objects are in the report; the others go on."""
    report = FetchReport()
    fetching = _Fetching(repository, observer, report, iter(tree.refs.values()))
    with first_error():
        async with trio.open_nursery() as nursery:
            for _ in range(jobs):
                nursery.start_soon(fetching.run)
    if not report.failures:
        repository.store.pin(pin_name(tree.label), tree.label, tree.refs, size_bytes=tree.size_bytes)
    return report


class _Fetching:
    """Objects that several tasks fetch."""

    def __init__(
        self, repository: Repository, observer: Observer, report: FetchReport, waiting: Iterator[ObjectRef]
    ) -> None:
        self._repository = repository
        self._observer = observer
        self._report = report
        self._waiting = waiting
        self._patience = Patience()

    async def run(self) -> None:
        for ref in self._waiting:
            if self._repository.store.has(ref):
                await trio.lowlevel.checkpoint()
                self._report.kept_objects += 1
                self._observer.skip(ref.size_bytes or 0)
                continue
            try:
                for pin in await self._repository.pin((ref,)):
                    pin.close()
            except DAMAGES as error:
                if isinstance(error, FetchError):
                    self._patience.failed(error)
                self._report.failures.append(str(error))
            else:
                self._patience.fetched()
                self._report.fetched_objects += 1
            self._observer.advance(ref.size_bytes or 0)


def _snapshot_name(repository: Repository) -> str | None:
    """A tag, or a root hash that was given; None for the newest revision. Pins of several snapshots live together."""
    root = repository.root
    if root.origin is RootOrigin.ROOT_HASH:
        return str(root.content_hash)
    return None if root.tag is None else root.tag.name


async def _collect(
    repository: Repository, start: Located, observer: Observer
) -> tuple[dict[ContentHash, ObjectRef], dict[ContentHash, ObjectRef]]:
    """The catalogs and the objects that are needed to use a tree without a network."""
    catalogs: dict[ContentHash, ObjectRef] = {}
    objects: dict[ContentHash, ObjectRef] = {}
    trusted = repository.root.trusted
    if trusted is not None and repository.root.tag is not None and trusted.manifest.history_ref is not None:
        history_ref = trusted.manifest.history_ref
        catalogs[history_ref.content_hash] = history_ref  # a tag is looked up at every start
    root_ref = repository.tree.root_ref
    catalogs[root_ref.content_hash] = root_ref

    def add_catalog(content_hash: ContentHash, mountpoint: bytes) -> None:
        if content_hash not in catalogs:
            label = f"catalog of {show_path(mountpoint)}"
            catalogs[content_hash] = ObjectRef(content_hash, Kind.CATALOG, label=label)

    async def add(located: Located) -> None:
        for span in await repository.spans(located):
            objects[span.ref.content_hash] = span.ref

    for end in range(len(start.path) + 1):
        if end == len(start.path) or start.path[end : end + 1] == b"/":
            above = start.path[:end]
            catalog = await repository.run(partial(repository.tree.catalog_for, above))
            add_catalog(catalog.content_hash, catalog.mountpoint)
    if start.entry.is_regular:
        await add(start)
    elif start.entry.is_directory:
        async for directory in repository.walk(start.path):
            view = await repository.open_directory(directory)
            add_catalog(view.catalog.content_hash, view.catalog.mountpoint)
            async for located in repository.listing(directory):
                observer.advance()
                if located.entry.is_regular:
                    await add(located)
    return catalogs, objects
