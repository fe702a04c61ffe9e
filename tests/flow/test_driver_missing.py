"""Whatever is missing, an operation that is run by the driver ends as if everything had been local.

For every operation of a client on a small repository, all subsets of its objects are taken away in turn; for a larger
one hypothesis chooses what is missing, in which order operations come, and how little room there is.
"""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Kind
from cache.memory import MemoryStore
from cache.ref import ObjectRef
from cache.store import open_all
from catalog.content import file_spans
from catalog.history import History
from catalog.tree import CatalogTree
from catalog.xattrs import parse_xattr_blob
from cvmfs_py.driver import Driver
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import View, attributes, link_target
from cvmfs_py.vfs.lookup import resolve
from tests.flow.driver_world import DirectFetcher
from tests.simulator.reading import find_all_objects
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from catalog.tree import Located

VIEW = View(1, 1, link_variables={b"WHERE": b"a"})
ROOTS = (b"/cvmfs/test.example.org",)

SMALL = Directory(
    {
        "file": File(b"one object", xattrs={b"user.x": b"1"}),
        "empty": File(b""),
        "link": Symlink("$(WHERE)/b/leaf"),
        "absolute": Symlink("/cvmfs/test.example.org/a/b"),
        "dangling": Symlink("a/nothing"),
        "a": Directory(
            {"big": File(b"0123456789", chunk_sizes=5), "b": Directory({"leaf": File(b"")}, nested=True)}, nested=True
        ),
    }
)
# Two more levels and a sibling beside, so that catalogs are evicted, and files enough to be worth it.
LARGE = Directory(
    {
        **{f"f{number}": File(bytes([number]) * 3000) for number in range(3)},
        "x": Directory(
            {
                "y": Directory({"z": Directory({"leaf": File(b"leaf")}, nested=True), "file": File(b"y")}, nested=True),
                **hard_links(File(b"h" * 5000, chunk_sizes=1500), "one", "two"),
            },
            nested=True,
        ),
        "w": Directory({"up": Symlink("../x/y/z/leaf"), "file": File(b"w")}, nested=True),
    }
)
SMALL_PATHS = (
    b"",
    b"/file",
    b"/empty",
    b"/link",
    b"/absolute/leaf",
    b"/dangling",
    b"/a",
    b"/a/big",
    b"/a/b/none",
    b"/no",
)
LARGE_PATHS = (
    b"",
    b"/f0",
    b"/f2",
    b"/x/one",
    b"/x/two",
    b"/x/y/file",
    b"/x/y/z/leaf",
    b"/w/up",
    b"/w/file/no",
    b"/x/no",
)


def found(tree: CatalogTree, path: bytes, open_object: Any) -> Located:
    return resolve(tree, path, VIEW, ROOTS, open_object)


def show(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    located = resolve(tree, path, VIEW, ROOTS, open_object, follow_last=False)
    target = link_target(located.entry, VIEW) if located.entry.is_symlink else None
    blob = parse_xattr_blob(located.entry.xattr_blob)
    return located.path, located.entry, attributes(located.entry, VIEW), target, blob


def follow(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    located = found(tree, path, open_object)
    return located.path, located.entry, located.catalog.content_hash


def list_directory(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    view = tree.open_directory(path, open_object)
    if view is None:
        return None
    return (
        view.entry,
        view.page(0, 2),
        [each.entry for each in view.by_name()],
        [each.path for each in view.subdirectories()],
    )


def read_file(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    located = found(tree, path, open_object)
    if not located.entry.is_regular:
        return None
    spans = file_spans(tree.catalog_for(located.path, open_object), located.entry, located.path)
    pins = open_all([span.ref for span in spans], open_object)
    content = b"".join(pin.read() for pin in pins)
    for pin in pins:
        pin.close()
    assert len(content) == located.entry.size
    return content


def list_chunks(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    located = found(tree, path, open_object)
    catalog = tree.catalog_for(located.path, open_object)
    return catalog.chunks(located.entry) if located.entry.is_chunked else None


def count(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    return tree.catalog_within(path, open_object).counters(), tree.nested_refs(path, open_object)


def describe_root(tree: CatalogTree, path: bytes, open_object: Any) -> object:
    del path
    return tree.root_properties(open_object)


OPERATIONS = (show, follow, list_directory, read_file, list_chunks, count, describe_root)


class World:
    """A repository whose objects are all known, and a store that has them, but for those that were taken away."""

    def __init__(self, directory: Path, tree: Directory) -> None:
        self.repository = Repository.create(directory)
        head = self.repository.publish(tree, tag="v1")
        assert head.history_hash is not None
        self.root = ObjectRef(head.root_hash, Kind.CATALOG)
        self.history = ObjectRef(head.history_hash, Kind.HISTORY)
        self.refs = [*find_all_objects(self.repository.server_root, head.root_hash), self.history]
        self.tags: Callable[[Any], object] = lambda open_object: self._read_tags(open_object)

    def _read_tags(self, open_object: Any) -> object:
        with closing(History.open(open_object(self.history))) as history:
            return history.tags(), history.by_name("v1"), history.by_date(1 << 40)

    def plan(self, operation: Callable[..., object], path: bytes, tree: CatalogTree) -> Callable[[Any], object]:
        """The operation as the driver runs it. An answer of the file system is a value here."""

        def attempt(open_object: Any) -> object:
            try:
                return operation(tree, path, open_object)
            except FsError as error:
                return error.errno, str(error)

        return attempt


async def run_missing(
    store: MemoryStore, fetcher: DirectFetcher, missing: set[ObjectRef], operation: Callable[[Any], object]
) -> object:
    """The value of an operation when these objects are not local; each round must have brought something new."""
    for ref in missing:
        assert store.discard(ref.content_hash)
    fetcher.calls.clear()
    value = await Driver(store, fetcher).run(operation)
    asked = [ref.content_hash for refs in fetcher.calls for ref in refs]
    assert len(asked) == len(set(asked))
    assert set(asked) <= {ref.content_hash for ref in missing}
    assert len(fetcher.calls) <= len(missing)
    return value


def subsets(refs: list[ObjectRef]) -> list[set[ObjectRef]]:
    return [set(each) for size in range(len(refs) + 1) for each in itertools.combinations(refs, size)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("small"), SMALL)
    assert len(world.refs) <= 8
    return world


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("large"), LARGE)
    assert len(world.refs) > 12
    return world


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_every_subset_of_missing_objects_gives_the_same_answer(
    small: World, operation: Callable[..., object]
) -> None:
    with MemoryStore() as store:
        fetcher = DirectFetcher(store, small.repository.server_root)
        fetcher.fill(small.refs)
        everything = CatalogTree(small.root)
        expected = {path: small.plan(operation, path, everything)(store.open) for path in SMALL_PATHS}
        everything.close()
        for missing in subsets(small.refs):
            for path, value in expected.items():
                with closing(CatalogTree(small.root)) as tree:
                    assert await run_missing(store, fetcher, missing, small.plan(operation, path, tree)) == value
                fetcher.fill(small.refs)
        assert store.status().pinned_bytes == 0


async def test_every_subset_of_missing_objects_gives_the_same_tags(small: World) -> None:
    with MemoryStore() as store:
        fetcher = DirectFetcher(store, small.repository.server_root)
        fetcher.fill(small.refs)
        expected = small.tags(store.open)
        for missing in subsets(small.refs):
            assert await run_missing(store, fetcher, missing, small.tags) == expected
            fetcher.fill(small.refs)
        assert store.status().pinned_bytes == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(LARGE_PATHS), st.sets(st.integers(0, 12), max_size=13)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=80)
@given(STEPS, st.integers(2, 5), st.sampled_from([None, 1, 20_000]))
def test_operations_follow_each_other_while_objects_come_and_go(
    large: World, steps: list[tuple[Callable[..., object], bytes, set[int]]], attached: int, limit_bytes: int | None
) -> None:
    """On one tree, as a client has it, with few catalogs attached and a cache that evicts what is not in use."""

    async def main() -> None:
        with MemoryStore() as full, MemoryStore(limit_bytes) as store:
            DirectFetcher(full, large.repository.server_root).fill(large.refs)
            fetcher = DirectFetcher(store, large.repository.server_root)
            everything, tree = CatalogTree(large.root), CatalogTree(large.root, attached_limit=attached)
            with closing(everything), closing(tree):
                for operation, path, gone in steps:
                    expected = large.plan(operation, path, everything)(full.open)
                    for index in gone:
                        store.discard(large.refs[index].content_hash)
                    fetcher.calls.clear()
                    assert await Driver(store, fetcher).run(large.plan(operation, path, tree)) == expected
                    assert len(fetcher.calls) <= len(large.refs)
            assert store.status().pinned_bytes == 0

    trio.run(main)
