"""How large the directories of a snapshot are: by the counters of catalogs where these tell it, else by walking.

A catalog counts what is in it and in all below, so that a directory with a catalog of its own needs no other one. It
counts a file once for each of its names; a walk counts it once, because all names of a file are in one directory. What
is counted is the content of regular files, hidden ones too, none of other revisions.

Concurrency: one task. Memory grows with the depth of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import FetchError, IntegrityError
from cvmfs_py.mount.concurrency import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.opened import OpenObject
    from catalog.reader import Catalog
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

_COUNTING_SCHEMA = 2.45  # newer ones count everything that is asked for here


@dataclass(slots=True)
class Usage:
    """What is in a directory and below, or what one file is."""

    path: bytes
    depth: int  # below where it began
    is_directory: bool = True
    size_bytes: int = 0
    files: int = 0  # names of regular files
    directories: int = 0  # with itself
    links: int = 0
    is_exact: bool = True  # False: a file with several names counts for each of them somewhere below

    def add(self, other: Usage) -> None:
        self.size_bytes += other.size_bytes
        self.files += other.files
        self.directories += other.directories
        self.links += other.links
        self.is_exact = self.is_exact and other.is_exact


@dataclass(frozen=True, slots=True)
class Survey:
    """How it is counted, and who is told."""

    show: Callable[[Usage], None]  # each directory after those below it, and files
    warn: Callable[[str], None]
    depth: int  # catalogs nested so deep or deeper are believed, and nothing below is shown
    is_exact: bool = False  # believe no counters


async def survey(repository: Repository, path: bytes, wanted: Survey) -> int:
    """Tells how large everything at and below a path is; the number of directories that could not be looked at."""
    start = await repository.resolve(path)
    if not start.entry.is_directory:
        wanted.show(_usage_of(start, 0))
        return 0
    return await _Surveyor(repository, start.path, wanted).run()


class _Surveyor:
    """One count on its way."""

    def __init__(self, repository: Repository, top: bytes, wanted: Survey) -> None:
        self._repository = repository
        self._top = top
        self._depth_of_top = top.count(b"/")
        self._wanted = wanted
        self._inside: list[Usage] = []  # the way from the top to where the walk is
        self._failures = 0

    async def run(self) -> int:
        walk = self._repository.walk(self._top, hidden=True, wanted=lambda entered, _: self._must_enter(entered))
        patience = Patience(4)  # every catalog has its own retries and time-outs
        async for directory in walk:
            self._leave(directory)
            usage = Usage(directory, self._depth(directory), directories=1)
            self._inside.append(usage)
            try:
                if not self._must_enter(directory) and await self._take_counters(usage):
                    walk.skip()
                else:
                    await self._count(usage)
                patience.fetched()
            except (FetchError, IntegrityError, CatalogError) as error:
                if isinstance(error, FetchError):
                    patience.failed(error)
                self._failures += 1
                self._wanted.warn(f"{show_path(directory)} cannot be looked at: {error}")
                walk.skip()
        self._leave(None)
        return self._failures

    def _depth(self, path: bytes) -> int:
        return path.count(b"/") - self._depth_of_top

    def _must_enter(self, directory: bytes) -> bool:
        return self._wanted.is_exact or self._depth(directory) < self._wanted.depth

    async def _take_counters(self, usage: Usage) -> bool:
        """Whether the directory has a catalog of its own that can be believed."""

        def within(open_object: OpenObject) -> Catalog:
            return self._repository.tree.catalog_within(usage.path, open_object)

        def take(open_object: OpenObject) -> bool:
            catalog = within(open_object)
            if catalog.mountpoint != usage.path or catalog.schema.version <= _COUNTING_SCHEMA:
                return False
            counts = catalog.counters().total
            usage.size_bytes, usage.files, usage.links = counts["file_size"], counts["regular"], counts["symlink"]
            usage.directories = counts["dir"] - counts["nested"]  # the top of a catalog counts in the one above, too
            usage.is_exact = False
            return True

        return await self._repository.run(take)

    async def _count(self, usage: Usage) -> None:
        groups: set[int] = set()
        async for located in self._repository.listing(usage.path, hidden=True):
            await trio.lowlevel.checkpoint_if_cancelled()
            entry = located.entry
            if entry.is_directory:
                continue  # the walk comes to it
            found = _usage_of(located, usage.depth + 1)
            if entry.is_regular and entry.hardlink_group:
                if entry.hardlink_group in groups:
                    found.size_bytes = 0
                groups.add(entry.hardlink_group)
            self._wanted.show(found)
            usage.add(found)

    def _leave(self, directory: bytes | None) -> None:
        """Tells of the directories that the walk has left."""
        while self._inside and (directory is None or not directory.startswith(self._inside[-1].path + b"/")):
            usage = self._inside.pop()
            self._wanted.show(usage)
            if self._inside:
                self._inside[-1].add(usage)


def _usage_of(located: Located, depth: int) -> Usage:
    entry = located.entry
    return Usage(
        located.path,
        depth,
        is_directory=False,
        size_bytes=entry.size if entry.is_regular else 0,
        files=int(entry.is_regular),
        links=int(entry.is_symlink),
    )
