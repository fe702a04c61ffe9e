"""How much there is below a path, for progress: what the catalogs count, and what has to be counted where they do not.

A catalog counts all that is in it and below. So a directory that is the top of a catalog takes a look at its counters;
any other directory is walked as far as its catalog reaches. Approximate: hidden entries count, too.

Concurrency: one task beside the one that does the work; it fetches what that one needs anyway, and fails silently.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from catalog.statistics import Counters
    from cvmfs_py.mount.repository import Repository


class Observer(Protocol):
    """Who wants to know how much there is."""

    def expect(self, objects: int = 1, size_bytes: int = 0) -> None: ...


@dataclass(slots=True)
class Totals:
    """What is below one or several paths."""

    directories: int = 0  # without the paths themselves
    files: int = 0  # each name of a hard link is one
    others: int = 0  # links, devices, pipes
    size_bytes: int = 0  # of the files

    @property
    def entries(self) -> int:
        return self.directories + self.files + self.others

    def add_entry(self, entry: Entry) -> None:
        if entry.is_directory:
            self.directories += 1
        elif entry.is_regular:
            self.files += 1
            self.size_bytes += entry.size
        else:
            self.others += 1

    def add_below(self, counters: Counters) -> bool:
        """What is below the top directory of a catalog. False: it does not count."""
        total = counters.total
        if not total["dir"]:
            return False
        self.directories += total["dir"] - total["nested"] - 1  # tops of nested catalogs count in both
        self.files += total["regular"]
        self.others += total["symlink"] + total["special"]
        self.size_bytes += total["file_size"]
        return True


@contextmanager
def totals_told(
    repository: Repository,
    paths: Sequence[bytes],
    observer: Observer,
    wanted: Callable[[Totals], tuple[int, int]],
    *,
    is_watched: bool,
) -> Iterator[None]:
    """While the block is worked on, tells the observer how many objects and bytes to expect, when that gets known."""
    scope = trio.CancelScope()

    async def tell() -> None:
        with scope:
            await _tell(repository, paths, observer, wanted)

    if is_watched:
        repository.background.start_soon(tell)
    try:
        yield
    finally:
        scope.cancel()


async def _tell(
    repository: Repository, paths: Sequence[bytes], observer: Observer, wanted: Callable[[Totals], tuple[int, int]]
) -> None:
    totals = Totals()
    try:
        for path in paths:
            if not await _add_tree(repository, path, totals):
                return
    except (CvmfsError, CacheError, CatalogError):
        return  # whoever does the work meets it, too
    observer.expect(*wanted(totals))


async def _add_tree(repository: Repository, path: bytes, totals: Totals) -> bool:
    start = await repository.resolve(path)
    if not start.entry.is_directory:
        totals.add_entry(start.entry)
        return True
    walk = repository.walk(start.path)
    async for directory in walk:
        view = await repository.open_directory(directory)
        if view.catalog.mountpoint == directory:
            if not totals.add_below(await _counters(repository, directory)):
                return False
            walk.skip()
            continue
        async for located in repository.listing(directory):
            totals.add_entry(located.entry)
    return True


async def _counters(repository: Repository, directory: bytes) -> Counters:
    def operation(open_object: OpenObject) -> Counters:
        return repository.tree.catalog_within(directory, open_object).counters()

    return await repository.run(operation)
