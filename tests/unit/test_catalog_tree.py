"""The tree of catalogs: which catalog answers, what is loaded for it, eviction, bind mountpoints, damaged nesting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cache.ref import NotLocal, ObjectRef
from catalog.errors import CatalogError
from catalog.opened import OpenedCatalogs
from catalog.reader import Catalog
from catalog.tree import CatalogTree
from tests.catalog_fixtures import (
    CatalogMaker,
    Objects,
    chunked,
    directory,
    regular,
    store_catalog,
    symlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = b"/.cvmfscatalog"


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def nested_catalog(objects: Objects, path: bytes, *more: bytes, **columns: int) -> ObjectRef:
    rows = [directory(path, flags=33, **columns), regular(path + MARKER, b"")]
    return store_catalog(objects, CatalogMaker([*rows, *(regular(path + name) for name in more)], root_prefix=path))


def plain_tree(objects: Objects) -> CatalogTree:
    """/sw is nested, and so is /sw/deep in it; /swan is none of them."""
    deep = nested_catalog(objects, b"/sw/deep", b"/bottom")
    sw = store_catalog(
        objects,
        CatalogMaker(
            [directory(b"/sw", flags=33), regular(b"/sw/file"), directory(b"/sw/deep", flags=3)],
            root_prefix=b"/sw",
            nested=[(b"/sw/deep", str(deep.content_hash), 4096)],
        ),
    )
    rows = [
        directory(b"", rowid=1),
        directory(b"/sw", flags=3, mtime=5),
        directory(b"/swan"),
        regular(b"/swan/lake"),
        regular(b"/sw-file"),
        symlink(b"/link", b"sw"),
        directory(b"/.cvmfs", flags=0x8001),
    ]
    return CatalogTree(store_catalog(objects, CatalogMaker(rows, nested=[(b"/sw", str(sw.content_hash), 0)])))


def test_each_path_is_answered_by_its_catalog(objects: Objects) -> None:
    tree = plain_tree(objects)
    expected = {
        b"": b"",
        b"/sw": b"",
        b"/swan": b"",
        b"/swan/lake": b"",
        b"/sw-file": b"",
        b"/sw/file": b"/sw",
        b"/sw/deep": b"/sw",
        b"/sw/deep/bottom": b"/sw/deep",
    }
    for path, mountpoint in expected.items():
        located = tree.lookup(path, objects)
        assert located is not None
        assert located.path == path
        assert located.catalog.mountpoint == mountpoint
        assert located.entry.name == path.rpartition(b"/")[2]
    for path in (b"/s", b"/sw/none", b"/sw/deep/none", b"/sw/deep/bottom/none", b"/swan/lake/none", b"/sw/", b"//sw"):
        assert tree.lookup(path, objects) is None
    tree.close()


def test_a_mountpoint_is_answered_by_its_parent_and_listed_by_its_own_catalog(objects: Objects) -> None:
    tree = plain_tree(objects)
    located = tree.lookup(b"/sw", objects)
    assert located is not None
    assert located.entry.mtime_s == 5
    assert tree.attached_count == 1
    view = tree.open_directory(b"/sw", objects)
    assert view is not None
    assert tree.attached_count == 2
    assert view.catalog.mountpoint == b"/sw"
    assert view.entry == located.entry
    assert [child.path for child in view.by_name()] == [b"/sw/deep", b"/sw/file"]
    again = tree.lookup(b"/sw", objects)
    assert again is not None
    assert again.entry == located.entry  # the child's row, now at hand, makes no difference
    tree.close()


def test_hidden_entries_are_found_but_not_listed(objects: Objects) -> None:
    tree = plain_tree(objects)
    assert tree.lookup(b"/.cvmfs", objects) is not None
    view = tree.open_directory(b"", objects)
    assert view is not None
    visible = [b"link", b"sw", b"sw-file", b"swan"]
    assert [located.entry.name for located in view.by_name()] == visible
    assert sorted(entry.name for entry in view.page(0, 100).entries) == visible
    assert [located.entry.name for located in view.by_name(hidden=True)] == [b".cvmfs", *visible]
    assert [located.path for located in view.subdirectories()] == [b"/sw", b"/swan"]
    assert [located.path for located in view.subdirectories(hidden=True)] == [b"/.cvmfs", b"/sw", b"/swan"]
    tree.close()


def test_pages_go_on_after_the_last_row_even_if_it_is_hidden(objects: Objects) -> None:
    rows = [directory(b"", rowid=1)]
    rows += [regular(b"/%02d" % number, rowid=10 + number, flags=4 | (number % 3 == 0) << 15) for number in range(20)]
    tree = CatalogTree(store_catalog(objects, CatalogMaker(rows)))
    view = tree.open_directory(b"", objects)
    assert view is not None
    names: list[bytes] = []
    after: int | None = 0
    while after is not None:
        page = view.page(after, 2)
        assert len(page.entries) <= 2
        names += [entry.name for entry in page.entries]
        after = page.next_rowid
    assert names == [b"%02d" % number for number in range(20) if number % 3]
    tree.close()


def test_only_directories_can_be_opened(objects: Objects) -> None:
    tree = plain_tree(objects)
    for path in (b"/sw-file", b"/link", b"/none", b"/sw/file", b"/sw-file/x"):
        assert tree.open_directory(path, objects) is None
    tree.close()


def test_the_nearest_entry_tells_why_there_is_none(objects: Objects) -> None:
    tree = plain_tree(objects)
    for path, nearest in (
        (b"/sw-file/x/y", b"/sw-file"),
        (b"/link/x", b"/link"),
        (b"/sw/none/x", b"/sw"),
        (b"/none", b""),
        (b"/sw/file", b"/sw/file"),
    ):
        assert tree.deepest(path, objects).path == nearest
    tree.close()


def test_a_tree_without_a_root_directory_is_damaged(objects: Objects) -> None:
    tree = CatalogTree(store_catalog(objects, CatalogMaker([regular(b"/file")])))
    assert tree.lookup(b"", objects) is None
    with pytest.raises(CatalogError, match="no root directory"):
        tree.deepest(b"/none", objects)
    tree.close()


def test_a_missing_catalog_is_never_taken_for_a_missing_entry(objects: Objects) -> None:
    tree = plain_tree(objects)
    transition = tree.catalog_for(b"", objects).transitions.at(b"/sw")
    assert transition is not None
    assert transition.content_hash is not None
    objects.missing.add(transition.content_hash)
    for _ in range(2):
        with pytest.raises(NotLocal) as answer:
            tree.lookup(b"/sw/none", objects)
        (ref,) = answer.value.refs
        assert ref == transition.ref
        assert (ref.kind, str(ref), ref.limit_bytes) == (Kind.CATALOG, "catalog of /sw", 4 << 30)
        with pytest.raises(NotLocal):
            tree.open_directory(b"/sw", objects)
        assert tree.lookup(b"/sw", objects) is not None
        assert tree.attached_count == 1
    objects.missing.clear()
    assert tree.lookup(b"/sw/none", objects) is None
    tree.close()


def test_the_recorded_size_limits_what_is_fetched(objects: Objects) -> None:
    nested = [(b"/small", "a" * 40, 1000), (b"/large", "b" * 40, 100 << 20), (b"/unknown", "c" * 40, None)]
    tree = CatalogTree(store_catalog(objects, CatalogMaker([directory(b"")], nested=nested)))
    limits = {ref.label: ref.limit_bytes for ref in tree.nested_refs(b"", objects)}
    assert limits == {"catalog of /small": 64 << 20, "catalog of /large": 800 << 20, "catalog of /unknown": 4 << 30}
    tree.close()


def test_the_nested_catalogs_below_a_path_can_be_named_all_at_once(objects: Objects) -> None:
    tree = plain_tree(objects)
    assert [ref.label for ref in tree.nested_refs(b"/swan/lake", objects)] == ["catalog of /sw"]
    assert [ref.label for ref in tree.nested_refs(b"/sw", objects)] == ["catalog of /sw/deep"]
    assert tree.nested_refs(b"/sw/deep", objects) == ()
    tree.close()


@pytest.mark.parametrize("text", ["", "0" * 40, "ab", "d41d8cd98f00b204e9800998ecf8427e", None])
def test_a_transition_without_a_hash_can_be_seen_but_not_entered(text: str | None, objects: Objects) -> None:
    rows = [directory(b""), directory(b"/n", flags=3)]
    tree = CatalogTree(store_catalog(objects, CatalogMaker(rows, nested=[(b"/n", text, 0)])))
    located = tree.lookup(b"/n", objects)
    assert located is not None
    for path in (b"/n/x", b"/n/x/y"):
        with pytest.raises(CatalogError, match="nothing below /n can be reached"):
            tree.lookup(path, objects)
    with pytest.raises(CatalogError, match="nothing below /n can be reached"):
        tree.open_directory(b"/n", objects)
    assert tree.nested_refs(b"", objects) == ()
    tree.close()


def test_a_mountpoint_that_no_table_knows_is_damage(objects: Objects) -> None:
    for flags in (3, 0x4001):
        tree = CatalogTree(store_catalog(objects, CatalogMaker([directory(b""), directory(b"/n", flags=flags)])))
        assert tree.lookup(b"/n", objects) is not None
        with pytest.raises(CatalogError, match="does not name this one"):
            tree.open_directory(b"/n", objects)
        tree.close()


def test_a_catalog_made_for_another_place_is_refused(objects: Objects) -> None:
    for ref in (nested_catalog(objects, b"/other"), store_catalog(objects, CatalogMaker([directory(b"")]))):
        rows = [directory(b""), directory(b"/n", flags=3)]
        nested = [(b"/n", str(ref.content_hash), 0)]
        tree = CatalogTree(store_catalog(objects, CatalogMaker(rows, nested=nested)))
        with pytest.raises(CatalogError, match="catalog of /n is damaged: it was made for /"):
            tree.lookup(b"/n/x", objects)
        assert tree.attached_count == 1
        assert objects.open_count == 1
        tree.close()


def test_a_damaged_nested_catalog_does_not_harm_its_neighbours(objects: Objects) -> None:
    broken = objects.add(b"this is no database")
    rows = [directory(b""), directory(b"/n", flags=3), regular(b"/file")]
    tree = CatalogTree(store_catalog(objects, CatalogMaker(rows, nested=[(b"/n", str(broken), 0)])))
    for _ in range(2):
        with pytest.raises(CatalogError, match="catalog of /n") as failure:
            tree.lookup(b"/n/x", objects)
        assert failure.value.content_hash == broken
    assert tree.lookup(b"/file", objects) is not None
    tree.close()


def chain(objects: Objects, depth: int) -> CatalogTree:
    """/d/d/d/... , each of which is nested in the one above."""
    below: ObjectRef | None = None
    for level in range(depth, -1, -1):
        path = b"/d" * level
        rows = [directory(path, flags=33 if level else 1), regular(path + b"/file")]
        nested = []
        if below is not None:
            rows.append(directory(path + b"/d", flags=3))
            nested = [(path + b"/d", str(below.content_hash), 0)]
        below = store_catalog(objects, CatalogMaker(rows, root_prefix=path, nested=nested))
    assert below is not None
    return CatalogTree(below, attached_limit=3)


def test_deep_nesting_needs_only_a_few_attached_catalogs(objects: Objects) -> None:
    tree = chain(objects, 40)
    for level in (40, 0, 20, 40, 39):
        located = tree.lookup(b"/d" * level + b"/file", objects)
        assert located is not None
        assert located.catalog.mountpoint == b"/d" * level
        assert tree.attached_count <= 3
        assert objects.open_count <= 3
    objects.opened.clear()
    assert tree.lookup(b"/d" * 10 + b"/file", objects) is not None
    assert len(objects.opened) == 1  # an evicted catalog is reached without the ones above it
    tree.close()


def test_nesting_has_an_end(objects: Objects) -> None:
    tree = chain(objects, 258)
    assert tree.lookup(b"/d" * 256 + b"/file", objects) is not None
    with pytest.raises(CatalogError, match="256 levels"):
        tree.lookup(b"/d" * 257 + b"/file", objects)
    tree.close()


def snapshot(objects: Objects, content: bytes, *binds: tuple[bytes, ObjectRef]) -> ObjectRef:
    """A revision with /sw nested, and with earlier revisions at /.cvmfs/snapshots/NAME."""
    sw = store_catalog(
        objects,
        CatalogMaker(
            [
                directory(b"/sw", flags=33),
                regular(b"/sw/file", content),
                chunked(b"/sw/big", [(0, 4, b"\1" * 20), (4, 4, b"\2" * 20)]),
                directory(b"/sw/in", flags=3),
            ],
            root_prefix=b"/sw",
            nested=[(b"/sw/in", str(nested_catalog(objects, b"/sw/in", b"/core").content_hash), 0)],
        ),
    )
    rows = [directory(b"", rowid=1), directory(b"/sw", flags=3), regular(b"/file", content)]
    nested = [(b"/sw", str(sw.content_hash), 0)]
    if binds:
        top = b"/.cvmfs/snapshots"
        virtual = CatalogMaker(
            [
                directory(b"/.cvmfs", flags=0x8021),
                directory(top),
                *(directory(top + b"/" + name, flags=0x4001) for name, _ in binds),
            ],
            root_prefix=b"/.cvmfs",
            binds=[(top + b"/" + name, str(ref.content_hash), 0) for name, ref in binds],
        )
        rows.append(directory(b"/.cvmfs", flags=0x8003))
        nested.append((b"/.cvmfs", str(store_catalog(objects, virtual).content_hash), 0))
    return store_catalog(objects, CatalogMaker(rows, nested=nested))


def test_bind_mountpoints_show_other_revisions_with_all_that_is_nested_in_them(objects: Objects) -> None:
    oldest = snapshot(objects, b"1")
    older = snapshot(objects, b"22", (b"a", oldest))
    tree = CatalogTree(snapshot(objects, b"333", (b"a", oldest), (b"b", older)), attached_limit=4)
    top = b"/.cvmfs/snapshots"
    within = {b"": 3, top + b"/a": 1, top + b"/b": 2, top + b"/b" + top + b"/a": 1}
    for _ in range(2):
        for prefix, size in within.items():
            for path in (prefix + b"/file", prefix + b"/sw/file"):
                located = tree.lookup(path, objects)
                assert located is not None
                assert located.entry.size == size
                assert located.catalog.path_of(located.entry.rowid) == path
            big = tree.lookup(prefix + b"/sw/big", objects)
            assert big is not None
            assert len(big.catalog.chunks(big.entry)) == 2
            view = tree.open_directory(prefix + b"/sw", objects)
            assert view is not None
            assert [child.path for child in view.by_name()] == [prefix + b"/sw/" + n for n in (b"big", b"file", b"in")]
            core = tree.lookup(prefix + b"/sw/in/core", objects)
            assert core is not None
            assert core.catalog.mountpoint == prefix + b"/sw/in"
            assert tree.lookup(prefix + b"/none", objects) is None
            assert tree.lookup(prefix + b"/sw/none", objects) is None
    mountpoint = tree.lookup(top + b"/a", objects)
    assert mountpoint is not None
    assert mountpoint.entry.is_bind_mountpoint
    assert mountpoint.entry.name == b"a"
    view = tree.open_directory(top + b"/a", objects)
    assert view is not None
    assert [child.path for child in view.by_name()] == [top + b"/a/file", top + b"/a/sw"]
    assert tree.nested_refs(top, objects) == ()  # other revisions are not part of this one
    tree.close()


def test_one_catalog_can_be_attached_at_two_places_at_once(objects: Objects) -> None:
    old = snapshot(objects, b"1")
    tree = CatalogTree(snapshot(objects, b"22", (b"x", old), (b"y", old)))
    found = [tree.lookup(b"/.cvmfs/snapshots/" + name + b"/file", objects) for name in (b"x", b"y")]
    assert [located is not None and located.catalog.content_hash for located in found] == [old.content_hash] * 2
    tree.close()


def test_any_catalog_can_be_the_root_of_a_tree(objects: Objects) -> None:
    tree = CatalogTree(nested_catalog(objects, b"/a/b", b"/file"))
    top = tree.lookup(b"", objects)
    assert top is not None
    assert top.entry.name == b"b"
    located = tree.lookup(b"/file", objects)
    assert located is not None
    assert located.catalog.path_of(located.entry.rowid) == b"/file"
    view = tree.open_directory(b"", objects)
    assert view is not None
    assert [child.path for child in view.by_name()] == [b"/.cvmfscatalog", b"/file"]
    tree.close()


def test_rows_lead_to_entries_after_their_catalog_was_evicted(objects: Objects) -> None:
    tree = chain(objects, 10)
    located = tree.lookup(b"/d/d/file", objects)
    assert located is not None
    row = (b"/d/d", located.entry.rowid)
    assert tree.lookup(b"/d" * 10 + b"/file", objects) is not None
    again = tree.located_row(*row, objects)
    assert again is not None
    assert (again.path, again.entry) == (located.path, located.entry)
    assert tree.located_row(b"/d/d", 99, objects) is None
    tree.close()


def test_a_listing_survives_the_eviction_of_its_catalog(objects: Objects) -> None:
    tree = chain(objects, 10)
    view = tree.open_directory(b"/d", objects)
    assert view is not None
    listing = view.by_name()
    assert next(listing).path == b"/d/d"
    not_begun = view.by_name()
    assert tree.lookup(b"/d" * 10 + b"/file", objects) is not None
    assert [located.path for located in listing] == [b"/d/file"]
    assert [located.path for located in not_begun] == [b"/d/d", b"/d/file"]
    with pytest.raises(CatalogError, match="not attached any more"):
        view.page(0, 10)
    tree.close()


def test_a_closed_tree_can_be_used_again(objects: Objects) -> None:
    tree = plain_tree(objects)
    assert tree.lookup(b"/sw/deep/bottom", objects) is not None
    tree.close()
    assert (tree.attached_count, objects.open_count) == (0, 0)
    assert tree.lookup(b"/sw/deep/bottom", objects) is not None
    tree.close()


def test_the_root_is_never_evicted_and_the_least_recently_used_is(objects: Objects) -> None:
    opened = OpenedCatalogs(limit=3)
    refs = {path: nested_catalog(objects, path) for path in (b"/a", b"/b", b"/c", b"/d")}
    root = store_catalog(objects, CatalogMaker([directory(b"")]))
    opened.add(Catalog.open(objects(root), b"", root.content_hash))
    for path in (b"/a", b"/b", b"/c", b"/d"):
        opened.add(Catalog.open(objects(refs[path]), path, refs[path].content_hash))
        assert opened.get(b"/a") is not None
    assert [path in opened for path in (b"", b"/a", b"/b", b"/c", b"/d")] == [True, True, False, False, True]
    assert len(opened) == objects.open_count == 3
    opened.close()
