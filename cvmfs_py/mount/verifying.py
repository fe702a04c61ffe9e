"""Verifies what a snapshot holds: every catalog, row and counter below a path and, if asked, every object.

The signature chain was verified when the repository was opened. Objects in the cache are compared with the checksum
of their commit; missing ones are fetched, which verifies them. Problems are collected, not raised: one damaged file
does not hide another.

Concurrency: one task walks, `jobs` tasks look at objects. Memory grows with the depth of the tree, not with its size.
"""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from cache.address import Kind
from cache.errors import CacheError
from cache.ref import ObjectRef
from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import CvmfsError, FetchError, IntegrityError
from cvmfs_py.mount.concurrency import Patience, first_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from catalog.reader import Catalog
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

_BLOCK_OBJECTS = 8
_PROBLEMS = (CvmfsError, CacheError, CatalogError)
# By the revision of the schema: when each counter came. What an older catalog does not count is not compared.
_COUNTED_SINCE = {
    "regular": 0,
    "symlink": 0,
    "dir": 0,
    "nested": 0,
    "file_size": 0,
    "chunked": 0,
    "chunked_size": 0,
    "chunks": 0,
    "xattr": 2,
    "external": 3,
    "external_file_size": 3,
    "special": 5,
}


class Observer(Protocol):
    """Who wants to know how far it is."""

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...


@dataclass(slots=True)
class VerifyReport:
    """What was looked at, and what is wrong with it."""

    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


async def verify_snapshot(
    repository: Repository, path: bytes, observer: Observer, *, data: bool, jobs: int = 16
) -> VerifyReport:
    """Looks at everything below a path. Raises only what makes going on pointless, such as a lost network."""
    report = VerifyReport()
    start = await repository.resolve(path, follow_last=False)
    verifier = _Verifier(repository, report, observer, data)
    send, receive = trio.open_memory_channel[tuple["ObjectRef", ...]](0)
    with first_error():
        async with trio.open_nursery() as nursery:
            for _ in range(jobs):
                nursery.start_soon(verifier.check_received, receive.clone())
            receive.close()
            with send:
                await verifier.walk(start, send)
    return report


class _OpenCatalog:
    """A catalog while the walk is inside: what was counted, to be compared with what it says when the walk leaves."""

    __slots__ = ("_is_below_whole", "_is_whole", "_revision", "_transitions", "below", "counts", "mountpoint", "says")

    def __init__(self, catalog: Catalog) -> None:
        schema = catalog.schema
        self.mountpoint = catalog.mountpoint
        self.says = catalog.counters()
        self.counts: Counter[str] = Counter()
        self.below: Counter[str] = Counter()  # what the catalogs nested in it say of themselves and of those below
        self._transitions = catalog.transitions
        self._revision = schema.revision if schema.version > 2.45 else -1  # -1: it counted less, and in another way
        top = catalog.lookup(catalog.mountpoint)
        self._is_whole = self._is_below_whole = top is not None
        if top is not None:
            self.add(top)
            self.counts["nested"] = 0

    def doubt(self, directory: bytes) -> None:
        """Something in this directory could not be read: what was counted cannot be compared."""
        self._is_below_whole = False
        if self._transitions.at(directory) is None:
            self._is_whole = False

    def doubt_below(self) -> None:
        self._is_below_whole = False

    def add(self, entry: Entry) -> None:
        counts = self.counts
        kind = stat.S_IFMT(entry.mode)
        counts["xattr"] += entry.xattr_blob is not None
        if kind == stat.S_IFDIR:
            counts["dir"] += 1
            counts["nested"] += entry.is_nested_mountpoint
        elif kind == stat.S_IFLNK:
            counts["symlink"] += 1
        elif kind == stat.S_IFREG:
            counts["regular"] += 1
            counts["file_size"] += entry.size
            if entry.is_chunked:
                counts["chunked"] += 1
                counts["chunked_size"] += entry.size
            if entry.is_external:
                counts["external"] += 1
                counts["external_file_size"] += entry.size
        else:
            counts["special" if self._revision >= _COUNTED_SINCE["special"] else "regular"] += 1

    def differences(self) -> Iterator[str]:
        where = f"the catalog of {show_path(self.mountpoint)}"
        for name in (name for name, since in _COUNTED_SINCE.items() if since <= self._revision):
            own, below = self.says.own[name], self.says.subtree[name]
            if self._is_whole and own != self.counts[name]:
                yield f"{where} counts {own} as {name}, but has {self.counts[name]}"
            if self._is_below_whole and below != self.below[name]:
                yield f"{where} counts {below} as {name} in those below, which count {self.below[name]}"


class _Verifier:
    """One verification on its way."""

    def __init__(self, repository: Repository, report: VerifyReport, observer: Observer, data: bool) -> None:
        self._repository = repository
        self._report = report
        self._observer = observer
        self._data = data
        self._patience = Patience()
        self._inside: list[_OpenCatalog] = []  # whole ones only: the way from the first to where the walk is

    async def walk(self, start: Located, send: trio.MemorySendChannel[tuple[ObjectRef, ...]]) -> None:
        if not start.entry.is_directory:
            await self._look_at(start, send)
            return
        patience = Patience(4)  # every catalog has its own retries and time-outs
        walk = self._repository.walk(start.path, hidden=True)
        async for directory in walk:
            self._leave(directory)
            try:
                await self._enter(directory)
                async for located in self._repository.listing(directory, hidden=True):
                    if self._inside:
                        self._inside[-1].add(located.entry)
                    await self._look_at(located, send)
                patience.fetched()
            except _PROBLEMS as error:
                if isinstance(error, FetchError):
                    patience.failed(error)
                for catalog in self._inside:
                    catalog.doubt_below()
                if self._inside:
                    self._inside[-1].doubt(directory)
                self._report.problems.append(f"{show_path(directory)} cannot be listed: {error}")
                walk.skip()
        self._leave(None)

    async def _enter(self, directory: bytes) -> None:
        view = await self._repository.open_directory(directory)
        if view.catalog.mountpoint != directory:
            return
        # The local copy may be damaged where the walk does not come.
        ref = ObjectRef(view.catalog.content_hash, Kind.CATALOG, label=f"catalog of {show_path(directory)}")
        await self._repository.check_object(ref)
        self._report.catalogs += 1

        def open_catalog(open_object: OpenObject) -> _OpenCatalog:
            return _OpenCatalog(self._repository.tree.catalog_within(directory, open_object))

        self._inside.append(await self._repository.run(open_catalog))

    def _leave(self, directory: bytes | None) -> None:
        """Compares the counters of the catalogs that the walk has left."""
        while self._inside:
            catalog = self._inside[-1]
            if directory is not None and directory.startswith(catalog.mountpoint + b"/"):
                return
            self._inside.pop()
            self._report.problems.extend(catalog.differences())
            if self._inside:
                self._inside[-1].below.update(catalog.says.total)

    async def _look_at(self, located: Located, send: trio.MemorySendChannel[tuple[ObjectRef, ...]]) -> None:
        entry = located.entry
        self._report.entries += 1
        if not entry.is_regular:
            self._observer.advance()
            return
        try:
            if entry.is_chunked and self._inside:
                self._inside[-1].counts["chunks"] += len(await self._repository.chunks(located))
            refs = tuple(span.ref for span in await self._repository.spans(located))
        except (CatalogError, IntegrityError) as error:
            self._report.problems.append(f"{show_path(located.path)} cannot be read: {error}")
            self._observer.advance()
            return
        if not self._data:
            self._observer.advance()
            return
        for first in range(0, len(refs), _BLOCK_OBJECTS):
            await send.send(refs[first : first + _BLOCK_OBJECTS])
        self._observer.advance()

    async def check_received(self, receive: trio.MemoryReceiveChannel[tuple[ObjectRef, ...]]) -> None:
        # Not `async with`: a cancellation at the end would take the place of the error that ends it.
        with receive:
            async for refs in receive:
                for ref in refs:
                    await self._check_object(ref)

    async def _check_object(self, ref: ObjectRef) -> None:
        try:
            await self._repository.check_object(ref)
        except _PROBLEMS as error:
            if isinstance(error, FetchError):
                self._patience.failed(error)
            self._report.problems.append(str(error))
            return
        finally:
            self._observer.advance(ref.size_bytes or 0, objects=0)
        self._patience.fetched()
        self._report.objects += 1
        self._report.size_bytes += ref.size_bytes or 0
