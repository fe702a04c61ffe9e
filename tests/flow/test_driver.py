"""The driver's contract: what is fetched and held, how it ends, what is healed; with virtual time, over real stores."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from cache.address import Kind
from cache.directory import DirectoryStore
from cache.errors import CacheError, ObjectCorruptError
from cache.memory import MemoryStore
from cache.ref import NotLocal, ObjectRef
from cache.store import open_all
from catalog.errors import CatalogError
from cvmfs_py.driver import Driver
from cvmfs_py.errors import CvmfsError, FetchError, IntegrityError, NoProgressError, ObjectGoneError
from tests.flow.driver_world import DirectFetcher, FlightFetcher, LosingFetcher, pinned_bytes
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.pins import Pin
    from cache.store import Store

SIZE = 1 << 16
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"))
    repository.publish(Directory({name: File(os.urandom(SIZE)) for name in NAMES}))
    return repository


@pytest.fixture
def refs(repository: Repository) -> tuple[ObjectRef, ...]:
    """Four files of one size."""
    hashes = [repository.find_objects(b"/" + name.encode())[0][0] for name in NAMES]
    return tuple(
        ObjectRef(each, size_bytes=SIZE, label=f"file /{name}") for each, name in zip(hashes, NAMES, strict=True)
    )


@pytest.fixture(params=["memory", "directory"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int | None], Store]]:
    made: list[Store] = []

    def make(limit_bytes: int | None = None) -> Store:
        if request.param == "memory":
            made.append(MemoryStore(limit_bytes))
        else:
            made.append(DirectoryStore(str(tmp_path / f"cache{len(made)}"), limit_bytes))
        return made[-1]

    yield make
    for store in made:
        assert pinned_bytes(store) == 0
        store.close()


@pytest.fixture
def store(make_store: Callable[[int | None], Store]) -> Store:
    return make_store(None)


@pytest.fixture
def fetcher(store: Store, repository: Repository) -> DirectFetcher:
    return DirectFetcher(store, repository.server_root)


@pytest.fixture
def driver(store: Store, fetcher: DirectFetcher) -> Driver:
    return Driver(store, fetcher)


def read_in_turn(refs: tuple[ObjectRef, ...]) -> Callable[[Callable[[ObjectRef], Pin]], list[bytes]]:
    """An operation that finds out one by one what it needs, and holds nothing itself."""

    def operation(open_object: Callable[[ObjectRef], Pin]) -> list[bytes]:
        contents = []
        for ref in refs:
            with open_object(ref) as pin:
                contents.append(pin.read())
        return contents

    return operation


async def test_what_is_local_is_answered_without_waiting(
    driver: Driver, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...], nursery: trio.Nursery
) -> None:
    fetcher.fill(refs)
    others_turn = trio.Event()

    async def other() -> None:
        others_turn.set()

    nursery.start_soon(other)
    contents = await driver.run(read_in_turn(refs))
    assert await driver.run(read_in_turn(refs), deadline_s=0) == contents
    assert not others_turn.is_set()
    assert [len(content) for content in contents] == [SIZE] * 4
    assert not fetcher.calls


async def test_long_work_on_local_data_can_be_cancelled(
    driver: Driver, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
) -> None:
    fetcher.fill(refs)
    with trio.CancelScope() as scope:
        while True:
            await driver.run(read_in_turn(refs))
            scope.cancel()
    assert scope.cancelled_caught


async def test_what_is_named_together_is_fetched_together(
    driver: Driver, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
) -> None:
    first, *others = refs
    fetcher.fill([first])

    def operation(open_object: Callable[[ObjectRef], Pin]) -> list[bytes]:
        pins = open_all((*refs, refs[-1]), open_object)
        contents = [pin.read() for pin in pins]
        for pin in pins:
            pin.close()
        return contents

    contents = await driver.run(operation)
    assert fetcher.calls == [tuple(others)]  # each once, and not what is here
    assert contents == [*await driver.run(read_in_turn(refs)), contents[-1]]


async def test_objects_are_held_to_the_end_and_let_go_then(
    make_store: Callable[[int | None], Store], repository: Repository, refs: tuple[ObjectRef, ...]
) -> None:
    """With room for one object alone, an operation that needs four gets them all."""
    store = make_store(SIZE)
    fetcher = DirectFetcher(store, repository.server_root)
    held: list[int] = []

    def operation(open_object: Callable[[ObjectRef], Pin]) -> list[bytes]:
        held.append(pinned_bytes(store))
        return read_in_turn(refs)(open_object)

    assert [len(content) for content in await Driver(store, fetcher).run(operation)] == [SIZE] * 4
    assert held == [0, SIZE, 2 * SIZE, 3 * SIZE, 4 * SIZE]
    assert fetcher.calls == [(ref,) for ref in refs]
    assert pinned_bytes(store) == 0
    store.cleanup(0)
    assert store.status().objects == 0


async def test_pins_that_an_operation_returns_outlive_it(
    make_store: Callable[[int | None], Store], repository: Repository, refs: tuple[ObjectRef, ...]
) -> None:
    store = make_store(SIZE)
    driver = Driver(store, DirectFetcher(store, repository.server_root))
    pins = await driver.run(lambda open_object: open_all(refs, open_object))
    # What is open counts as in use, also when it was fetched for this operation: eviction leaves it alone.
    assert pinned_bytes(store) == 4 * SIZE
    store.cleanup(0)
    assert store.status().objects == 4
    for pin in pins:
        assert len(pin.read()) == SIZE
        pin.close()


async def test_an_operation_that_asks_for_what_it_holds_is_stopped(
    driver: Driver, fetcher: DirectFetcher, store: Store, refs: tuple[ObjectRef, ...]
) -> None:
    def operation(open_object: Callable[[ObjectRef], Pin]) -> None:
        open_object(refs[0]).close()
        raise NotLocal(refs[:2])

    with pytest.raises(NoProgressError, match="file /a, file /b"):
        await driver.run(operation)
    assert fetcher.calls == [(refs[0],), (refs[1],)]
    assert pinned_bytes(store) == 0


@pytest.mark.parametrize("error", [KeyError("x"), CvmfsError("no"), CatalogError("no", None)])
async def test_errors_of_an_operation_are_its_callers(
    driver: Driver, store: Store, refs: tuple[ObjectRef, ...], error: Exception
) -> None:
    def operation(open_object: Callable[[ObjectRef], Pin]) -> None:
        open_object(refs[0]).close()
        raise error

    with pytest.raises(type(error)) as caught:
        await driver.run(operation)
    assert caught.value is error
    assert pinned_bytes(store) == 0


async def test_a_failed_fetch_is_the_operations_failure(
    driver: Driver, store: Store, refs: tuple[ObjectRef, ...]
) -> None:
    gone = ObjectRef(refs[0].content_hash, Kind.METAINFO, label="what is not there")
    with pytest.raises(ObjectGoneError, match="what is not there"):
        await driver.run(read_in_turn((refs[1], gone)))
    assert pinned_bytes(store) == 0


def test_not_local_is_no_error() -> None:
    assert not issubclass(NotLocal, CvmfsError | CacheError | CatalogError | OSError)


class TestLoss:
    """Another process that shares the cache may evict an object in the moment after it came."""

    async def test_it_is_fetched_again(self, store: Store, repository: Repository, refs: tuple[ObjectRef, ...]) -> None:
        fetcher = LosingFetcher(store, repository.server_root, losses=3)
        assert len(await Driver(store, fetcher).run(read_in_turn(refs[:2]))) == 2
        assert fetcher.calls == [refs[:1]] * 4 + [refs[1:2]]

    async def test_but_not_for_ever(self, store: Store, repository: Repository, refs: tuple[ObjectRef, ...]) -> None:
        fetcher = LosingFetcher(store, repository.server_root, losses=1000)
        with pytest.raises(FetchError, match="file /a vanishes from the cache"):
            await Driver(store, fetcher).run(read_in_turn(refs))

    async def test_what_is_held_is_used_although_its_file_is_gone(
        self, driver: Driver, store: Store, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
    ) -> None:
        def operation(open_object: Callable[[ObjectRef], Pin]) -> list[bytes]:
            store.discard(refs[0].content_hash)  # as another process may do, whatever is pinned here
            return read_in_turn(refs)(open_object)

        assert len(await driver.run(operation)) == 4
        assert len(fetcher.calls) == 4


def damage(path: Path) -> None:
    """Changes a byte as a failing disk does: the file's times do not tell."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert stat.S_ISREG(info.st_mode)


class TestDamage:
    """A corrupt local copy is replaced, once."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[DirectoryStore]:
        with DirectoryStore(str(tmp_path / "cache")) as store:
            assert isinstance(store, DirectoryStore)
            yield store
            assert pinned_bytes(store) == 0

    @staticmethod
    def file(store: DirectoryStore, ref: ObjectRef) -> Path:
        text = str(ref.content_hash)
        return Path(store.directory) / "objects" / text[:2] / text[2:]

    @staticmethod
    def read_checked(store: DirectoryStore, ref: ObjectRef) -> Callable[[Callable[[ObjectRef], Pin]], bytes]:
        def operation(open_object: Callable[[ObjectRef], Pin]) -> bytes:
            with open_object(ref) as pin:
                if not store.is_intact(pin):
                    raise ObjectCorruptError(f"{ref} is damaged", ref.content_hash)
                return pin.read()

        return operation

    async def test_it_is_fetched_anew(
        self, driver: Driver, store: DirectoryStore, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
    ) -> None:
        good = await driver.run(self.read_checked(store, refs[0]))
        damage(self.file(store, refs[0]))
        assert await driver.run(self.read_checked(store, refs[0])) == good
        assert fetcher.calls == [refs[:1], refs[:1]]
        assert self.file(store, refs[0]).read_bytes() == good

    async def test_the_second_time_is_an_error(
        self, store: DirectoryStore, repository: Repository, refs: tuple[ObjectRef, ...]
    ) -> None:
        class OnABadDisk(DirectFetcher):
            def bring(fetcher, ref: ObjectRef) -> Pin:
                super().bring(ref).close()
                damage(self.file(store, ref))
                return store.open(ref)

        fetcher = OnABadDisk(store, repository.server_root)
        with pytest.raises(IntegrityError, match="file /a is damaged") as caught:
            await Driver(store, fetcher).run(self.read_checked(store, refs[0]))
        assert isinstance(caught.value.__cause__, ObjectCorruptError)
        assert len(fetcher.calls) == 2

    async def test_a_copy_that_cannot_be_removed_is_an_error(
        self, driver: Driver, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
    ) -> None:
        fetcher.fill(refs[:1])

        def operation(open_object: Callable[[ObjectRef], Pin]) -> None:
            open_object(refs[0]).close()
            raise ObjectCorruptError("unnamed")

        with pytest.raises(IntegrityError, match="unnamed"):
            await driver.run(operation)

    async def test_objects_beside_it_stay(
        self, driver: Driver, store: DirectoryStore, fetcher: DirectFetcher, refs: tuple[ObjectRef, ...]
    ) -> None:
        fetcher.fill(refs)
        damage(self.file(store, refs[1]))

        def operation(open_object: Callable[[ObjectRef], Pin]) -> list[bytes]:
            return [self.read_checked(store, ref)(open_object) for ref in refs]

        assert len(await driver.run(operation)) == 4
        assert fetcher.calls == [refs[1:2]]

    @pytest.mark.parametrize("is_damaged_here", [True, False])
    async def test_a_catalog_is_replaced_if_it_is_the_copy_that_is_damaged(
        self,
        driver: Driver,
        store: DirectoryStore,
        fetcher: DirectFetcher,
        refs: tuple[ObjectRef, ...],
        is_damaged_here: bool,
    ) -> None:
        """What was published damaged is not downloaded again and again."""
        fetcher.fill(refs[:1])
        if is_damaged_here:
            damage(self.file(store, refs[0]))

        def operation(open_object: Callable[[ObjectRef], Pin]) -> bytes:
            with open_object(refs[0]) as pin:
                if not is_damaged_here or not store.is_intact(pin):
                    raise CatalogError("the catalog is damaged", refs[0].content_hash)
                return pin.read()

        if is_damaged_here:
            assert len(await driver.run(operation)) == SIZE
            assert len(fetcher.calls) == 1
        else:
            with pytest.raises(CatalogError, match="the catalog is damaged"):
                await driver.run(operation)
            assert not fetcher.calls


class TestTime:
    """Waiting ends; what is under way goes on without whoever has left."""

    async def test_a_deadline_names_what_was_waited_for(
        self,
        store: Store,
        repository: Repository,
        refs: tuple[ObjectRef, ...],
        nursery: trio.Nursery,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        fetcher = FlightFetcher(store, repository.server_root, nursery, delay_s=4)
        driver = Driver(store, fetcher)
        start = trio.current_time()
        with pytest.raises(FetchError, match=r"no answer within 6 s; waited for file /b$"):
            await driver.run(read_in_turn(refs), deadline_s=6)  # total: the first object took four of them
        assert trio.current_time() - start == 6
        await trio.sleep(3)
        assert await driver.run(read_in_turn(refs[:2]), deadline_s=0)  # it came all the same
        assert fetcher.downloads == list(refs[:2])
        await trio.sleep(10)  # the end of the grace period

    async def test_a_cancelled_caller_loses_its_wait_only(
        self,
        store: Store,
        repository: Repository,
        refs: tuple[ObjectRef, ...],
        nursery: trio.Nursery,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        fetcher = FlightFetcher(store, repository.server_root, nursery, delay_s=5)
        driver = Driver(store, fetcher)
        contents: list[list[bytes]] = []

        async def read() -> None:
            contents.append(await driver.run(read_in_turn(refs[:1])))

        start = trio.current_time()
        async with trio.open_nursery() as callers:
            callers.start_soon(read)
            with trio.move_on_after(1) as scope:
                await driver.run(read_in_turn(refs[:1]))
            assert scope.cancelled_caught
            assert trio.current_time() - start == 1
            callers.start_soon(read)
        assert trio.current_time() - start == 5
        assert len(contents) == 2
        assert fetcher.downloads == [refs[0]]

    async def test_everybody_gets_an_error_of_his_own(
        self,
        store: Store,
        repository: Repository,
        refs: tuple[ObjectRef, ...],
        nursery: trio.Nursery,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        fetcher = FlightFetcher(store, repository.server_root, nursery, delay_s=5)
        fetcher.is_down = True
        driver = Driver(store, fetcher)
        errors: list[FetchError] = []

        async def read() -> None:
            try:
                await driver.run(read_in_turn(refs[:1]))
            except FetchError as error:
                errors.append(error)

        async with trio.open_nursery() as callers:
            for _ in range(3):
                callers.start_soon(read)
        assert [str(error) for error in errors] == ["cannot fetch file /a"] * 3
        assert len({id(error) for error in errors}) == 3
        assert fetcher.downloads == [refs[0]]
        fetcher.is_down = False
        assert await driver.run(read_in_turn(refs[:1]))  # a failure is not remembered
