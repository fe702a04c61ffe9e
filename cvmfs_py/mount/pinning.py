"""Pins a tree of a snapshot in the cache: fetches everything below a path and tells the store to keep it.

The set is written down before the data is fetched, so that eviction cannot take the first objects while the last are on
their way. Pinned sets may exceed the cache's limit.

Concurrency: one task walks, then `jobs` tasks fetch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from catalog.errors import show_path
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.memory import Memory
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.trust.blacklist import Blacklist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository


class Observer(Protocol):
    """Who wants to know how far it is."""

    def expect(self, objects: int = 1) -> None: ...
    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class PinnedTree:
    """What was pinned."""

    label: str
    objects: int
    size_bytes: int


def pin_label(fqrn: str, snapshot: str | None, path: bytes) -> str:
    """What a pin is called: the same words as on the command line."""
    return f"{fqrn}{'@' + snapshot if snapshot else ''}:{show_path(path)}"


def pin_name(label: str) -> str:
    """The name of a pin's file."""
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:32]


async def pin_tree(repository: Repository, path: bytes, observer: Observer, *, jobs: int = 32) -> PinnedTree:
    """Fetches and keeps a file or everything below a directory, with the catalogs that lead there."""
    start = await repository.resolve(path)
    catalogs, objects = await _collect(repository, start)
    label = pin_label(repository.fqrn, _snapshot_name(repository), start.path)
    repository.store.pin(pin_name(label), label, [*catalogs, *objects])
    if repository.root.tag is not None and repository.root.trusted is not None:
        Memory(repository.fqrn, repository.store, (), Blacklist(), []).keep_pinned(repository.root.trusted)
    observer.expect(len(objects))
    waiting = iter(objects.values())
    with first_error():
        async with trio.open_nursery() as nursery:
            for _ in range(jobs):
                nursery.start_soon(_fetch_each, repository, waiting, observer)
    size_bytes = sum(ref.size_bytes or 0 for ref in objects.values())
    return PinnedTree(label, len(catalogs) + len(objects), size_bytes)


def _snapshot_name(repository: Repository) -> str | None:
    """A tag, or a root hash that was given; None for the newest revision. Pins of several snapshots live together."""
    root = repository.root
    if root.origin is RootOrigin.ROOT_HASH:
        return str(root.content_hash)
    return None if root.tag is None else root.tag.name


async def _fetch_each(repository: Repository, waiting: Iterator[ObjectRef], observer: Observer) -> None:
    for ref in waiting:
        for pin in await repository.pin((ref,)):
            pin.close()
        observer.advance(ref.size_bytes or 0)


async def _collect(repository: Repository, start: Located) -> tuple[set[ContentHash], dict[ContentHash, ObjectRef]]:
    """The catalogs and the objects that are needed to use a tree without a network."""
    catalogs: set[ContentHash] = set()
    objects: dict[ContentHash, ObjectRef] = {}
    trusted = repository.root.trusted
    if trusted is not None and repository.root.tag is not None and trusted.manifest.history_hash is not None:
        catalogs.add(trusted.manifest.history_hash)  # a tag is looked up at every start

    async def add(located: Located) -> None:
        for span in await repository.spans(located):
            objects[span.ref.content_hash] = span.ref

    for end in range(len(start.path) + 1):
        if end == len(start.path) or start.path[end : end + 1] == b"/":
            above = start.path[:end]
            catalogs.add((await repository.run(partial(repository.tree.catalog_for, above))).content_hash)
    if start.entry.is_regular:
        await add(start)
    elif start.entry.is_directory:
        async for directory in repository.walk(start.path):
            catalogs.add((await repository.open_directory(directory)).catalog.content_hash)
            async for located in repository.listing(directory):
                if located.entry.is_regular:
                    await add(located)
    return catalogs, objects
