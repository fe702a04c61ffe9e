"""An operation that was interrupted by NotLocal any number of times ends as one that never was.

Whatever catalogs are missing, in whatever order the operations come and however many catalogs may be attached.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.ref import NotLocal
from catalog.tree import CatalogTree
from tests.catalog_fixtures import CatalogMaker, Objects, directory, regular, store_catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.ref import ObjectRef

# The root and /a, /a/b, /a/b/c, /x, /x/y; /a/b/plain is an ordinary directory.
NESTED = {b"": (b"/a", b"/x"), b"/a": (b"/a/b",), b"/a/b": (b"/a/b/c",), b"/a/b/c": (), b"/x": (b"/x/y",), b"/x/y": ()}
PLAIN = (b"/a/b/plain",)
PATHS = (*NESTED, *PLAIN, *(top + b"/file" for top in (*NESTED, *PLAIN)), *(top + b"/none" for top in NESTED), b"/ab/c")

Answer: TypeAlias = "tuple[object, ...] | None"


def build(objects: Objects) -> tuple[ObjectRef, set[ContentHash]]:
    """The root, and the hashes of everything below it."""
    built: dict[bytes, ObjectRef] = {}
    for top, nested in reversed(NESTED.items()):
        rows = [directory(top, flags=33 if top else 1), regular(top + b"/file", top)]
        rows += [directory(path, flags=3) for path in nested]
        for path in PLAIN:
            if path.rpartition(b"/")[0] == top:
                rows += [directory(path), regular(path + b"/file")]
        known = [(path, str(built[path].content_hash), 0) for path in nested]
        built[top] = store_catalog(objects, CatalogMaker(rows, root_prefix=top, nested=known))
    root = built.pop(b"")
    return root, {ref.content_hash for ref in built.values()}


def look_up(tree: CatalogTree, path: bytes, objects: Objects) -> Answer:
    located = tree.lookup(path, objects)
    return None if located is None else (located.entry, located.path, located.catalog.mountpoint)


def list_directory(tree: CatalogTree, path: bytes, objects: Objects) -> Answer:
    view = tree.open_directory(path, objects)
    if view is None:
        return None
    return (view.entry, view.catalog.mountpoint, view.page(0, 100), tuple(each.path for each in view.by_name()))


def name_nested(tree: CatalogTree, path: bytes, objects: Objects) -> Answer:
    return tree.nested_refs(path, objects)


def read_counters(tree: CatalogTree, path: bytes, objects: Objects) -> Answer:
    catalog = tree.catalog_within(path, objects)
    return (catalog.mountpoint, catalog.content_hash, catalog.counters())


def find_deepest(tree: CatalogTree, path: bytes, objects: Objects) -> Answer:
    located = tree.deepest(path, objects)
    return (located.path, located.entry)


OPERATIONS: tuple[Callable[[CatalogTree, bytes, Objects], Answer], ...] = (
    look_up,
    list_directory,
    name_nested,
    read_counters,
    find_deepest,
)


def run(
    operation: Callable[[CatalogTree, bytes, Objects], Answer], tree: CatalogTree, path: bytes, objects: Objects
) -> Answer:
    """As a driver does: what is missing is fetched, and the operation runs again. Each round asks for something new."""
    asked: set[ContentHash] = set()
    while True:
        try:
            return operation(tree, path, objects)
        except NotLocal as answer:
            hashes = {ref.content_hash for ref in answer.refs}
            assert not hashes & asked
            asked |= hashes
            objects.missing -= hashes


@dataclass
class World:
    objects: Objects
    root: ObjectRef
    nested: set[ContentHash]

    def fresh(self, attached_limit: int = 100) -> CatalogTree:
        return CatalogTree(self.root, attached_limit=attached_limit)


def make_world(folder: str) -> World:
    objects = Objects(Path(folder) / "objects")
    return World(objects, *build(objects))


def test_every_subset_of_missing_catalogs_leads_to_the_same_answers() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(folder)
        everything = world.fresh()
        expected = {(op, path): op(everything, path, world.objects) for op in OPERATIONS for path in PATHS}
        everything.close()
        hashes = sorted(world.nested)
        subsets = [set(c) for size in range(len(hashes) + 1) for c in itertools.combinations(hashes, size)]
        assert len(subsets) == 32
        for subset in subsets:
            for (operation, path), answer in expected.items():
                tree = world.fresh()
                world.objects.missing = set(subset)
                assert run(operation, tree, path, world.objects) == answer
                tree.close()
        assert world.objects.open_count == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(PATHS), st.sets(st.integers(0, 4))), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.integers(1, 7))
def test_one_tree_gives_the_same_answers_while_objects_come_and_go(
    steps: list[tuple[Callable[[CatalogTree, bytes, Objects], Answer], bytes, set[int]]], attached_limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(folder)
        hashes = sorted(world.nested)
        tree = world.fresh(attached_limit)
        for operation, path, gone in steps:
            fresh = world.fresh()
            world.objects.missing = set()
            expected = operation(fresh, path, world.objects)
            fresh.close()
            world.objects.missing = {hashes[index] for index in gone}
            assert run(operation, tree, path, world.objects) == expected
            assert world.objects.open_count == tree.attached_count <= max(attached_limit, 2)
        tree.close()
        assert world.objects.open_count == 0
