"""Walks: order, streaming, catalogs fetched ahead and never too many, and damaged local copies on the way."""

from __future__ import annotations

import functools
import os
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from cache.address import Kind
from cache.memory import MemoryStore
from cache.ref import ObjectRef
from catalog.errors import CatalogError
from catalog.tree import CatalogTree
from cvmfs_py.errors import FetchError, ObjectGoneError
from cvmfs_py.mount.prefetch import WINDOW_CATALOGS, CatalogPrefetch, read_ahead
from tests.flow.driver_world import FlightFetcher
from tests.flow.opening import opened
from tests.simulator.repository import Repository as Published
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import BindMountpoint, Directory, File, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.pins import Pin
    from cvmfs_py.mount.repository import Repository
    from tests.simulator.fault_server import SeenRequest


def nested(count: int, prefix: str = "n", **more: Node) -> dict[str, Node]:
    return {f"{prefix}{number:03}": Directory({"file": File(b"x"), **more}, nested=True) for number in range(count)}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Forty catalogs in a row, one of which has more below."""
    published = Published.create(tmp_path_factory.mktemp("wide"))
    entries = nested(40)
    entries["n001"] = Directory(nested(3, "deep"), nested=True)
    published.publish(Directory(entries))
    return published


async def walked(repository: Repository, top: bytes = b"", *, hidden: bool = False) -> list[bytes]:
    return [path async for path in repository.walk(top, hidden=hidden)]


async def test_parents_come_first_and_siblings_by_name(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    first = published.publish(Directory({"old": Directory({})}))
    tree = {
        "a": Directory({"z": Directory({}), "b": Directory({"c": Directory({})}, nested=True)}, nested=True),
        "a-b": Directory({"x": Directory({})}, nested=True),  # between /a and /a/b by bytes, after both by name
        "snapshot": BindMountpoint(first.root_hash, first.root_size_bytes),
        "hidden": Directory({"inside": Directory({})}, nested=True, hidden=True),
        "file": File(b""),
    }
    published.publish(Directory(tree))
    async with opened(published, tmp_path / "cache") as repository:
        below = [b"/a", b"/a/b", b"/a/b/c", b"/a/z", b"/a-b", b"/a-b/x"]
        assert await walked(repository) == [b"", *below]
        assert await walked(repository, hidden=True) == [b"", *below, b"/hidden", b"/hidden/inside"]
        assert await walked(repository, b"/a/b") == [b"/a/b", b"/a/b/c"]
        # What is asked for by its path is shown, whatever it is.
        assert await walked(repository, b"/snapshot") == [b"/snapshot", b"/snapshot/old"]


async def test_a_walk_can_be_told_to_stay_out(tmp_path: Path, wide: Published) -> None:
    async with opened(wide, tmp_path / "cache") as repository:
        walk = repository.walk(b"")
        seen = []
        async for path in walk:
            seen.append(path)
            if path in (b"/n001", b"/n003"):
                walk.skip()
        assert seen == [b"", *(b"/n%03d" % number for number in range(40))]


async def test_what_cannot_be_entered_is_raised_at_the_next_step_unless_skipped(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    revision = published.publish(Directory({"a": Directory({}, nested=True), "b": Directory({}, nested=True)}))
    published.drop(revision.catalog(b"/a").content_hash, Kind.CATALOG)
    async with opened(published, tmp_path / "cache") as repository:
        walk = repository.walk(b"")
        assert [await anext(walk), await anext(walk)] == [b"", b"/a"]
        for _ in range(2):
            with pytest.raises(ObjectGoneError, match="catalog of /a"):
                await anext(walk)
        walk = repository.walk(b"")
        seen = []
        async for path in walk:
            seen.append(path)
            if path == b"/a":
                with pytest.raises(ObjectGoneError):
                    await repository.open_directory(path)
                walk.skip()
        assert seen == [b"", b"/a", b"/b"]


# fetching ahead


def most_in_flight(requests: list[SeenRequest], duration_s: float) -> int:
    """How many of these requests were being answered at one moment, at most."""
    starts = sorted(request.at_s for request in requests)
    return max(sum(start <= other < start + duration_s for other in starts) for start in starts)


def catalog_requests(server: SlowServer, published: Published) -> list[SeenRequest]:
    names = {f"{each.content_hash}C"[2:] for each in published.head.catalogs.values()}
    return [request for request in server.requests if request.path.rpartition("/")[2] in names]


async def test_a_cold_walk_has_many_catalogs_in_flight(tmp_path: Path, wide: Published) -> None:
    with SlowServer(wide.document_root, delay_s=0.25) as server:
        async with opened(wide, tmp_path / "cache", [server.url]) as repository:
            assert len(await walked(repository)) == 44
        requests = catalog_requests(server, wide)
        assert len(requests) == 44  # each once
        assert WINDOW_CATALOGS - 4 <= most_in_flight(requests, 0.25) <= WINDOW_CATALOGS + 1
        # Now all is here, and nobody is asked.
        before = len(server.requests)
        async with opened(wide, tmp_path / "cache", [server.url]) as repository:
            assert len(await walked(repository)) == 44
        assert catalog_requests(server, wide)[44:] == []
        assert len(server.requests) == before + 2  # manifest and whitelist


async def test_only_what_the_walk_comes_to_is_fetched(tmp_path: Path, wide: Published) -> None:
    with SlowServer(wide.document_root) as server:
        async with opened(wide, tmp_path / "cache", [server.url]) as repository:
            assert await walked(repository, b"/n001") == [b"/n001", *(b"/n001/deep%03d" % each for each in range(3))]
        assert len(catalog_requests(server, wide)) == 5


class World:
    """The prefetch of one walk over `wide`, in virtual time."""

    def __init__(self, published: Published, nursery: trio.Nursery, store: MemoryStore) -> None:
        self.fetcher = FlightFetcher(store, published.server_root, nursery, delay_s=1)
        self.store = store
        self.tree = CatalogTree(ObjectRef(published.head.root_hash, Kind.CATALOG))
        self.prefetch = CatalogPrefetch(store, self.fetcher, nursery)
        self.fetcher.fill([self.tree.root_ref])

    def enter(self, path: bytes) -> None:
        view = self.tree.open_directory(path, self.store.open)
        assert view is not None
        self.prefetch.enter(view.catalog, path)

    @property
    def asked(self) -> list[str]:
        return [str(ref) for ref in self.fetcher.downloads]


@pytest.fixture
def world(wide: Published, nursery: trio.Nursery) -> Iterator[World]:
    with MemoryStore() as store:
        world = World(wide, nursery, store)
        with closing(world.tree):
            yield world
        assert store.status().pinned_bytes == 0


async def test_never_more_than_a_window_ahead(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.enter(b"")
    await trio.sleep(100)
    first = [f"catalog of /n{number:03}" for number in range(WINDOW_CATALOGS)]
    assert sorted(world.asked) == first  # all are here now; nobody has come to them yet
    world.enter(b"/n000")
    await trio.sleep(100)
    assert sorted(world.asked) == [*first, f"catalog of /n{WINDOW_CATALOGS:03}"]


async def test_what_is_nearer_comes_first(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.enter(b"")
    await trio.sleep(100)
    del world.fetcher.downloads[:]
    world.enter(b"/n001")  # and so past /n000
    await trio.sleep(100)
    assert set(world.asked) == {f"catalog of /n001/deep{number:03}" for number in range(2)}
    world.enter(b"/n001/deep000")
    await trio.sleep(100)
    assert world.asked[2:] == ["catalog of /n001/deep002"]


async def test_what_was_skipped_makes_room(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.enter(b"")
    await trio.sleep(100)
    del world.fetcher.downloads[:]
    world.enter(b"/n011")  # a dozen further on
    await trio.sleep(100)
    assert sorted(world.asked) == [f"catalog of /n{number:03}" for number in range(12, 24)]


async def test_failures_are_left_to_whoever_needs_the_object(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.fetcher.is_down = True
    world.enter(b"")
    await trio.sleep(100)
    assert len(world.asked) == WINDOW_CATALOGS  # a dead network is not asked for all the rest
    world.fetcher.is_down = False
    world.fetcher.fill([ref for ref in world.fetcher.downloads if str(ref) == "catalog of /n000"])
    world.enter(b"/n000")
    await trio.sleep(100)
    assert len(world.asked) == 2 * WINDOW_CATALOGS


# large files


async def test_the_next_window_of_a_file_is_fetched_while_one_is_used(
    wide: Published, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    refs = [ObjectRef(each.content_hash, Kind.CATALOG) for each in list(wide.head.catalogs.values())[:6]]
    windows = [tuple(refs[start : start + 2]) for start in (0, 2, 4)]
    with MemoryStore() as store:
        fetcher = FlightFetcher(store, wide.server_root, nursery, delay_s=3)
        start = trio.current_time()
        used: list[Pin] = []
        async with read_ahead(windows, lambda window: fetcher.ensure(window)) as ready:
            async for pins in ready:
                await trio.sleep(5)  # longer than a download, which it hides
                used += pins
        assert trio.current_time() - start == 3 + 3 * 5
        assert [pin.content_hash for pin in used] == [ref.content_hash for ref in refs]
        for pin in used:
            pin.close()
        assert store.status().pinned_bytes == 0


@pytest.mark.parametrize("kind", ["leave", "error", "failed fetch"])
async def test_no_pin_is_left_when_reading_ahead_ends_early(
    wide: Published, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, kind: str
) -> None:
    refs = [ObjectRef(each.content_hash, Kind.CATALOG) for each in list(wide.head.catalogs.values())[:4]]
    with MemoryStore() as store:
        fetcher = FlightFetcher(store, wide.server_root, nursery, delay_s=3)

        async def use() -> None:
            async with read_ahead([(ref,) for ref in refs], lambda window: fetcher.ensure(window)) as ready:
                async for pins in ready:
                    for pin in pins:
                        pin.close()
                    fetcher.is_down = kind == "failed fetch"
                    await trio.sleep(10)
                    if kind == "error":
                        raise KeyError("mine")
                    if kind == "leave":
                        break

        if kind == "leave":
            await use()
        else:
            with pytest.raises(KeyError if kind == "error" else FetchError):
                await use()
        await trio.sleep(100)
        assert store.status().pinned_bytes == 0


# damaged local copies


def object_file(cache: Path, text: str) -> Path:
    return cache / "objects" / text[:2] / text[2:]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """As a failing disk does it: nothing but the content tells."""
    info = path.stat()
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A directory whose listing takes many pages of its catalog."""
    published = Published.create(tmp_path_factory.mktemp("long"))
    entries = {f"{number:05}": File(b"") for number in range(3000)} | {
        f"d{number:03}": Directory({}) for number in range(300)
    }
    published.publish(Directory({"long": Directory(entries, nested=True, marker=False), "short": Directory({})}))
    return published


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.9])
async def test_a_damaged_copy_of_a_catalog_is_replaced_on_the_way(
    tmp_path: Path, long: Published, place: float
) -> None:
    catalog = long.head.catalog(b"/long")
    async with opened(long, tmp_path / "cache") as repository:
        await walked(repository)
    path = object_file(tmp_path / "cache", str(catalog.content_hash))
    good = path.read_bytes()
    page = int(len(good) * place) // 4096 * 4096
    overwrite(path, page, b"\xff" * 4096 * 8)
    async with opened(long, tmp_path / "cache") as repository:
        names = [located.entry.name async for located in repository.listing(b"/long")]
        assert names == sorted([*(b"%05d" % each for each in range(3000)), *(b"d%03d" % each for each in range(300))])
        assert len(await walked(repository, b"/long")) == 301
        for number in range(0, 3000, 100):
            await repository.resolve(b"/long/%05d" % number)
    assert path.read_bytes() == good


async def test_a_catalog_that_was_published_damaged_is_an_error_and_not_fetched_again(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    entries = {f"{number:05}": File(b"") for number in range(3000)}

    def cut(database: bytes) -> bytes:
        return database[: len(database) // 2] + b"\xff" * (len(database) // 2)

    published.publish(Directory({"long": Directory(entries, nested=True)}), catalog_bytes={b"/long": cut})
    with SlowServer(published.document_root) as server:
        async with opened(published, tmp_path / "cache", [server.url]) as repository:
            for _ in range(3):
                with pytest.raises(CatalogError, match="catalog of /long"):
                    async for _ in repository.listing(b"/long"):
                        pass
        assert len(catalog_requests(server, published)) == 2  # the root's and this one


# memory


def build_deep(count: int) -> Directory:
    """Catalogs of a hundred directories each."""

    def entries() -> Iterator[tuple[bytes, Node]]:
        for number in range(count):
            inside = {f"d{each:02}": Directory({"f": File(b"")}) for each in range(100)}
            yield b"n%03d" % number, Directory(inside, nested=True)

    return Directory(entries)


@functools.cache
def peak_of_walk(folder: Path, count: int) -> int:
    """The most memory that a walk with listings takes."""
    published = Published.create(folder / str(count))
    published.publish(build_deep(count))

    async def main() -> int:
        async with opened(published, folder / f"cache{count}") as repository:
            await walked(repository)  # fills the cache, imports what is needed
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                seen = 0
                async for path in repository.walk(b""):
                    async for _ in repository.listing(path):
                        seen += 1
                assert seen == count * 202
                return tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()

    return trio.run(main)


def test_memory_does_not_grow_with_what_is_walked(tmp_path: Path) -> None:
    small, large = peak_of_walk(tmp_path, 4), peak_of_walk(tmp_path, 32)
    assert large < small + 400_000  # attached catalogs, of which there may be 128
