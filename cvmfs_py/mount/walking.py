"""Walks: the entries of one directory, and the directories of a tree, streamed from the catalogs.

Memory does not grow with what is walked, only with its depth. A catalog whose local copy turns out to be damaged in the
middle is replaced once, and the stream goes on after the last name.

Concurrency: one task uses one walk; other tasks may use the same repository meanwhile. Plain iterators, so that one may
be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import trio

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError
from cvmfs_py.mount.prefetch import CatalogPrefetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from catalog.directory import DirectoryView
    from catalog.opened import OpenObject
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository


class Listing:
    """The entries of one directory, ordered by the bytes of their names."""

    def __init__(
        self, repository: Repository, path: bytes, *, hidden: bool = False, only_directories: bool = False
    ) -> None:
        self._repository = repository
        self._path = path
        self._hidden = hidden
        self._only_directories = only_directories
        self._stream: Iterator[Located] | None = None
        self._last = b""
        self._replaced = False
        repository.listings.add(self)

    async def open(self) -> DirectoryView:
        """The directory, with its catalog attached; comes by itself when the first entry is asked for."""
        view = await self._repository.open_directory(self._path)
        stream = view.subdirectories if self._only_directories else view.by_name
        self._stream = stream(hidden=self._hidden)
        return view

    def close(self) -> None:
        """Lets go of the catalog; done by itself at the end of the listing, and of the repository."""
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Located:
        while True:
            if self._stream is None:
                await self.open()
                assert self._stream is not None
            try:
                for located in self._stream:
                    if located.entry.name > self._last:
                        self._last = located.entry.name
                        return located
            except CatalogError as error:
                self._stream = None
                await self._replace_damaged(error)
            else:
                raise StopAsyncIteration

    async def _replace_damaged(self, error: CatalogError) -> None:
        """Replaces the local copy of the catalog, if that is what is damaged; else the error stands."""
        if self._replaced:
            raise error
        self._replaced = True
        told = False

        def operation(open_object: OpenObject) -> None:
            nonlocal told
            if not told:
                told = True
                raise error
            self._repository.tree.catalog_within(self._path, open_object)

        await self._repository.run(operation)


class Walk:
    """The paths of a directory and of every directory below, parents first, siblings by name.

    Nested catalogs are fetched ahead, or those that are `wanted`: asked with the first directory of a catalog and the
    path of one that is nested below it, for walks that will skip the others. Bind mountpoints lead to other revisions,
    which may lead back: they are no part of the tree. What keeps a directory from being entered is raised at the next
    step, unless it is skipped before.
    """

    def __init__(
        self,
        repository: Repository,
        top: bytes,
        *,
        hidden: bool = False,
        wanted: Callable[[bytes, bytes], bool] = lambda *_: True,
    ) -> None:
        self._repository = repository
        self._top = top
        self._wanted = wanted
        self._hidden = hidden
        self._prefetch = CatalogPrefetch(repository.store, repository.fetcher, repository.background)
        self._started = False
        self._stack: list[Listing] = []
        self._entered = False  # the directory that came last is on the stack
        self._error: CvmfsError | CacheError | CatalogError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._error is not None:
            raise self._error
        if not self._started:
            self._started = True
            return await self._enter(self._top)
        while self._stack:
            async for located in self._stack[-1]:
                if not located.entry.is_bind_mountpoint:
                    return await self._enter(located.path)
            self._stack.pop()
        raise StopAsyncIteration

    def skip(self) -> None:
        """Goes not below the directory that came last, whatever was wrong with it."""
        self._error = None
        if self._entered:
            self._entered = False
            self._stack.pop()

    async def _enter(self, directory: bytes) -> bytes:
        await trio.lowlevel.checkpoint()  # where everything is local, the background gets its turn here
        self._entered = False
        subdirectories = Listing(self._repository, directory, hidden=self._hidden, only_directories=True)
        try:
            view = await subdirectories.open()
        except (CvmfsError, CacheError, CatalogError) as error:
            self._error = error
            return directory
        if directory in (view.catalog.mountpoint, self._top):
            self._prefetch.enter(view.catalog, directory, lambda below: self._wanted(directory, below.mountpoint))
        self._stack.append(subdirectories)
        self._entered = True
        return directory
