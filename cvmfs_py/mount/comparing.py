"""Compares two snapshots through the client: fetches the catalogs that differ, both sides at once, and no others.

What differs is judged by `publish.comparing`, one pair of entries at a time. Streams: memory grows with the depth of
the trees only. Concurrency: one task; what is fetched ahead are tasks of the two repositories.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.prefetch import CatalogPrefetch
from cvmfs_py.publish.comparing import compare_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.reader import Catalog
    from catalog.transitions import Transition
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.walking import Listing
    from cvmfs_py.publish.comparing import Change, Place


async def compare_snapshots(old: Repository, new: Repository, path: bytes, show: Callable[[Change], None]) -> None:
    """Shows every difference at and below a path, parents before what is below them. No link on the way is followed."""
    if old.root_hash == new.root_hash:
        return
    before, after = await _look_up(old, path), await _look_up(new, path)
    if before is None and after is None:
        raise FsError(errno.ENOENT, f"{show_path(path)} is in neither of the two snapshots")
    left, right = _Side(old), _Side(new)
    top = compare_pair(before, after)
    if top.change is not None:
        show(top.change)
    stack = [] if top.below is None else [top.below]
    while stack:
        stack.extend(reversed(await _compare_directory(left, right, stack.pop(), show)))


async def _look_up(repository: Repository, path: bytes) -> Located | None:
    return await repository.run(lambda open_object: repository.tree.lookup(path, open_object))


async def _compare_directory(left: _Side, right: _Side, place: Place, show: Callable[[Change], None]) -> list[Place]:
    """Shows what differs in one directory; what is to be compared below it."""
    await trio.lowlevel.checkpoint()
    if place.is_old and place.is_new:
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.open, place.path)
                nursery.start_soon(right.open, place.path)
        left.fetch_ahead(place.path, right.catalog)
        right.fetch_ahead(place.path, left.catalog)
    else:
        side = left if place.is_old else right
        await side.open(place.path)
        side.fetch_ahead(place.path, None)
    below: list[Place] = []
    before = await left.next() if place.is_old else None
    after = await right.next() if place.is_new else None
    while before is not None or after is not None:
        pair = compare_pair(before, after)
        if pair.change is not None:
            show(pair.change)
        if pair.below is not None:
            below.append(pair.below)
        before = await left.next() if pair.takes_old else before
        after = await right.next() if pair.takes_new else after
    return below


class _Side:
    """One of the two snapshots, with the directory that is compared now."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._prefetch = CatalogPrefetch(repository.store, repository.fetcher, repository.background)
        self._listing: Listing
        self.catalog: Catalog

    async def open(self, directory: bytes) -> None:
        self._listing = self._repository.listing(directory, hidden=True)
        self.catalog = (await self._listing.open()).catalog

    async def next(self) -> Located | None:
        """The next entry. Bind mountpoints lead to other revisions, which are no part of this one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        async for located in self._listing:
            if not located.entry.is_bind_mountpoint:
                return located
        return None

    def fetch_ahead(self, directory: bytes, other: Catalog | None) -> None:
        """What is nested in a catalog that was entered just now and will be compared, because the other has another."""
        if self.catalog.mountpoint != directory:
            return

        def is_wanted(transition: Transition) -> bool:
            there = None if other is None else other.transitions.at(transition.mountpoint)
            return there is None or there.content_hash != transition.content_hash

        self._prefetch.enter(self.catalog, directory, is_wanted)
