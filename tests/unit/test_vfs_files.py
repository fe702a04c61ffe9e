"""One repository by inode number: what stays and what follows a new revision, listings, and what is refused."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from catalog.errors import CatalogError
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import ROOT, Inode, Inodes
from tests.catalog_fixtures import CatalogMaker, Objects, chunked, directory, regular, store_catalog
from tests.vfs_world import (
    BIND,
    DIRECTORY,
    FILE,
    HARD,
    HIDDEN,
    HIDDEN_FILE,
    NESTED,
    Item,
    Revision,
    link,
    list_all,
    look_up,
    open_root,
    open_snapshot,
    publish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cvmfs_py.vfs.files import Node

FIRST: dict[bytes, Item] = {
    b"/file": FILE,
    b"/dir": DIRECTORY,
    b"/dir/one": FILE,
    b"/dir/two": HARD,
    b"/dir/three": HARD,
    b"/dir/other": FILE,
    b"/dir/link": link(b"../$(WHERE:-here)"),
    b"/changes": NESTED,
    b"/changes/file": FILE,
    b"/stays": NESTED,
    b"/stays/dir": DIRECTORY,
    b"/stays/dir/file": FILE,
    b"/stays/deep": NESTED,
    b"/stays/deep/file": FILE,
}
OTHER_LINKS = (b"/dir/two", b"/dir/three")
SECOND = FIRST | {b"/file": Item("file", 2), b"/changes/file": Item("file", 2)}


class World:
    """Published revisions, and the repository that shows them."""

    def __init__(self, directory: Path) -> None:
        self.objects = Objects(directory / "objects")
        self.descriptors = count_descriptors()
        self._shown: RepositoryFiles | None = None

    @property
    def files(self) -> RepositoryFiles:
        assert self._shown is not None
        return self._shown

    def publish(self, items: Mapping[bytes, Item], number: int = 1, **properties: Any) -> Revision:
        return publish(self.objects, items, number, properties=properties)

    def show(self, items: Mapping[bytes, Item], **options: int) -> RepositoryFiles:
        return self.show_root(self.publish(items), **options)

    def show_root(self, revision: Revision, *, attached_limit: int = 100, recent_limit: int = 100) -> RepositoryFiles:
        snapshot = open_snapshot(revision, self.objects, attached_limit=attached_limit)
        self._shown = RepositoryFiles(Inodes(), snapshot, recent_limit=recent_limit)
        return self._shown

    def show_maker(self, maker: CatalogMaker, *, attached_limit: int = 100) -> RepositoryFiles:
        ref = store_catalog(self.objects, maker)
        self._shown = RepositoryFiles(Inodes(), open_root(ref, self.objects, attached_limit=attached_limit))
        return self._shown

    def adopt(self, items: Mapping[bytes, Item], number: int = 2) -> None:
        self.files.adopt(open_snapshot(self.publish(items, number), self.objects))

    def at(self, path: bytes, *, remember: bool = False) -> Node:
        return look_up(self.files, path, self.objects, remember=remember)

    def hold(self, *paths: bytes) -> dict[bytes, Node]:
        """As a kernel that walked to these paths: everything on the way is referred to once for each."""
        return {path: self.at(path, remember=True) for path in paths}

    def names(self, ino: Inode, limit: int = 100) -> list[bytes]:
        return [node.entry.name for node in list_all(self.files, ino, self.objects, limit)]

    def error(self, operation: Callable[..., object], *arguments: object) -> str:
        with pytest.raises(FsError) as caught:
            operation(*arguments, self.objects)
        assert str(caught.value)
        return errno.errorcode[caught.value.errno]

    def close(self) -> None:
        if self._shown is not None:
            self._shown.close()
            assert self._shown.attached_count == 0
        assert self.objects.open_count == 0
        assert count_descriptors() == self.descriptors


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class TestNumbers:
    def test_are_small_and_distinct(self, world: World) -> None:
        files = world.show(FIRST)
        numbers = {world.at(path).ino for path in FIRST}
        assert len(numbers) == len(FIRST) - len(OTHER_LINKS)
        assert ROOT not in numbers
        rows = len(FIRST) + 4  # and the top rows of four catalogs
        assert max(numbers) <= files.inodes.highest == ROOT + rows

    def test_are_those_of_listings(self, world: World) -> None:
        files = world.show(FIRST)
        for top in (b"", b"/dir", b"/stays", b"/stays/deep"):
            ino = world.at(top).ino
            listed = {node.entry.name: node for node in list_all(files, ino, world.objects)}
            assert listed
            for name, node in listed.items():
                assert files.lookup(ino, name, world.objects) == node

    def test_of_hard_links_are_one(self, world: World) -> None:
        world.show(FIRST)
        nodes = [world.at(name) for name in (b"/dir/three", b"/dir/one", b"/dir/two")]
        assert len({node.ino for node in nodes}) == 1
        assert [node.entry.name for node in nodes] == [b"three", b"one", b"two"]
        assert world.at(b"/dir/other").ino != nodes[0].ino

    def test_of_hard_links_mean_the_first_whichever_was_asked_for_last(self, world: World) -> None:
        files = world.show(FIRST)
        ino = world.at(b"/dir/three").ino
        for name in (b"/dir/three", b"/dir/one", b"/dir/two"):
            assert world.at(name).ino == ino
            assert files.node(ino, world.objects).entry.name == b"one"
            assert files.located(ino, world.objects).path == b"/dir/one"

    def test_of_entries_that_only_claim_the_same_group_differ(self, world: World) -> None:
        linked = {"hardlinks": 5 << 32 | 2}
        rows = [directory(b""), regular(b"/a", b"1", **linked), regular(b"/b", b"2", **linked)]
        world.show_maker(CatalogMaker(rows))
        assert world.at(b"/a").ino != world.at(b"/b").ino

    @pytest.mark.parametrize("attached_limit", [2, 100])
    @pytest.mark.parametrize("recent_limit", [2, 100])
    def test_lead_back_to_entry_path_and_parent(self, world: World, attached_limit: int, recent_limit: int) -> None:
        files = world.show(FIRST, attached_limit=attached_limit, recent_limit=recent_limit)
        found = {path: world.at(path) for path in FIRST}
        for path, node in [*found.items(), *reversed(found.items())]:
            located = files.located(node.ino, world.objects)
            assert located.path == (b"/dir/one" if path in OTHER_LINKS else path)
            assert files.node(node.ino, world.objects) == (node.ino, located.entry)
            if located.entry.is_directory:
                above = path.rpartition(b"/")[0]
                assert files.parent(node.ino, world.objects) == (found[above].ino if above else ROOT)
            assert files.attached_count <= attached_limit

    def test_do_not_depend_on_what_was_evicted(self, world: World) -> None:
        plenty = world.show(FIRST)
        expected = [world.at(path) for path in FIRST]
        plenty.close()
        scarce = world.show(FIRST, attached_limit=2, recent_limit=2)
        assert [world.at(path) for path in FIRST] == expected
        opened = len(world.objects.opened)
        assert [world.at(path) for path in FIRST] == expected
        assert len(world.objects.opened) > opened
        assert scarce.attached_count == 2


class TestRevisions:
    def test_keep_the_numbers_of_unchanged_catalogs_and_give_new_ones_to_changed(self, world: World) -> None:
        files = world.show(FIRST)
        before = world.hold(*FIRST)
        highest = files.inodes.highest
        world.adopt(SECOND)
        after = {path: world.at(path).ino for path in FIRST}
        kept = {path for path in FIRST if before[path].ino == after[path]}
        assert kept == {path for path in FIRST if path.startswith(b"/stays/")}
        assert min(after[path] for path in FIRST.keys() - kept) > highest

    def test_leave_old_inodes_as_they_were(self, world: World) -> None:
        files = world.show(FIRST)
        old = world.hold(*FIRST)
        spans = files.spans(old[b"/changes/file"].ino, world.objects)
        world.adopt({b"/only": FILE})
        assert files.lookup(ROOT, b"file", world.objects) is None
        assert world.names(ROOT) == [b"only"]
        for path in FIRST.keys() - OTHER_LINKS:
            assert files.node(old[path].ino, world.objects) == old[path]
        assert files.spans(old[b"/changes/file"].ino, world.objects) == spans
        assert files.lookup(old[b"/changes"].ino, b"file", world.objects) == old[b"/changes/file"]
        assert world.names(old[b"/stays/deep"].ino) == [b"file"]
        assert files.parent(old[b"/stays/deep"].ino, world.objects) == old[b"/stays"].ino

    def test_are_followed_by_the_root_alone(self, world: World) -> None:
        files = world.show(FIRST)
        old = world.hold(b"/changes")[b"/changes"]
        world.adopt({b"/changes": NESTED, b"/changes/new": FILE})
        assert files.snapshot.revision == 2
        assert files.node(ROOT, world.objects).ino == ROOT
        assert sorted(world.names(old.ino)) == [b"file"]
        assert files.lookup(old.ino, b"new", world.objects) is None
        new = world.at(b"/changes")
        assert new.ino != old.ino
        assert files.lookup(new.ino, b"new", world.objects) is not None
        assert files.parent(old.ino, world.objects) == ROOT

    def test_are_not_kept_open_by_what_the_new_one_has_too(self, world: World) -> None:
        """An old directory leads to an unchanged catalog as well, and must not take it back to the old tree."""
        files = world.show(FIRST)
        old_tree = files.snapshot.tree
        old = world.hold(b"/stays")[b"/stays"]
        world.adopt(SECOND)
        node = world.hold(b"/stays/dir")[b"/stays/dir"]
        assert files.lookup(old.ino, b"dir", world.objects) == node
        assert world.names(old.ino) == [b"dir", b"deep"]
        assert old_tree.attached_count > 0
        files.forget(old.ino, 1)
        assert old_tree.attached_count == 0
        assert files.node(node.ino, world.objects) == node
        assert world.names(node.ino) == [b"file"]

    def test_are_closed_when_the_new_one_has_all_that_is_referred_to(self, world: World) -> None:
        files = world.show(FIRST)
        old_tree = files.snapshot.tree
        held = world.hold(b"/stays/dir/file")
        way = {path: world.at(path).ino for path in (b"/stays", b"/stays/dir")}
        files.forget(way[b"/stays"], 1)
        world.adopt(SECOND)
        assert old_tree.attached_count > 0
        new = world.hold(b"/stays/dir/file")
        assert new == held
        files.forget(world.at(b"/stays").ino, 1)  # any reference that ends
        assert old_tree.attached_count == 0
        assert files.node(held[b"/stays/dir/file"].ino, world.objects) == held[b"/stays/dir/file"]

    def test_to_which_nothing_refers_are_closed_at_once(self, world: World) -> None:
        files = world.show(FIRST)
        numbers = [world.at(path).ino for path in FIRST]
        for number in range(2, 6):
            world.adopt(SECOND, number)
            assert files.attached_count == world.objects.open_count == 1
        assert all(world.error(files.node, ino) == "ESTALE" for ino in numbers)

    def test_that_are_the_same_tree_change_nothing(self, world: World) -> None:
        files = world.show(FIRST)
        ino = world.at(b"/file").ino
        files.adopt(files.snapshot)
        assert files.attached_count == 1
        assert world.at(b"/file").ino == ino

    def test_may_come_back(self, world: World) -> None:
        files = world.show(FIRST)
        first = files.snapshot
        old = world.hold(b"/file", b"/stays/dir")
        world.adopt(SECOND)
        second = files.snapshot
        new = world.hold(b"/file", b"/stays/dir")
        files.adopt(first)
        assert world.hold(b"/file", b"/stays/dir") == old
        for nodes in (new, old, old):
            files.forget(nodes[b"/file"].ino, 1)
        files.forget(new[b"/stays/dir"].ino, 3)
        for path in (b"/stays", b"/stays"):
            files.forget(world.at(path).ino, 1)
        assert world.at(b"/file").ino == old[b"/file"].ino  # it is shown, so it is there
        assert second.tree.attached_count > 0  # its /stays
        files.adopt(second)
        assert first.tree.attached_count == 0

    def test_that_come_back_take_back_what_they_have(self, world: World) -> None:
        files = world.show(FIRST)
        first = files.snapshot
        held = world.hold(b"/stays", b"/stays/dir")
        world.adopt(SECOND)
        second = files.snapshot
        assert world.at(b"/stays/dir") == held[b"/stays/dir"]
        for _ in range(2):
            assert files.lookup(held[b"/stays"].ino, b"dir", world.objects) == held[b"/stays/dir"]
            files.adopt(first)
        files.release_superseded()
        assert second.tree.attached_count == 0
        assert files.node(held[b"/stays/dir"].ino, world.objects) == held[b"/stays/dir"]

    def test_that_are_detached_are_attached_again_for_what_is_still_in_use(self, world: World) -> None:
        files = world.show(FIRST)
        old_tree = files.snapshot.tree
        held = world.hold(*FIRST)
        world.adopt(SECOND)
        files.detach_superseded()
        assert old_tree.attached_count == 0
        for node in held.values():
            assert files.located(node.ino, world.objects).entry.mode == node.entry.mode
        assert old_tree.attached_count > 0


class TestForgetting:
    def test_everything_closes_old_trees_and_not_earlier(self, world: World) -> None:
        files = world.show(FIRST)
        old_tree = files.snapshot.tree
        held = world.hold(*FIRST)
        times = {path: sum(each == path or each.startswith(path + b"/") for each in FIRST) for path in FIRST}
        world.adopt({b"/only": FILE})
        descriptors = count_descriptors()
        for path in FIRST:
            for _ in range(times[path]):
                assert old_tree.attached_count == 4
                assert files.attached_count == world.objects.open_count == 5
                assert files.node(held[path].ino, world.objects).ino == held[path].ino
                files.forget(held[path].ino, 1)
        assert old_tree.attached_count == 0
        assert files.attached_count == world.objects.open_count == 1
        assert count_descriptors() <= descriptors - 4
        assert files.inodes.lookups == 0
        for node in held.values():
            for operation in (files.node, files.spans, files.read_link, files.located, files.parent):
                assert world.error(operation, node.ino) == "ESTALE"
            assert world.error(files.lookup, node.ino, b"x") == "ESTALE"
            assert world.error(files.page, node.ino, 0, 10) == "ESTALE"

    def test_closes_one_of_several_old_trees(self, world: World) -> None:
        files = world.show(FIRST)
        trees, held = [], []
        for number in range(2, 5):
            trees.append(files.snapshot.tree)
            held.append(world.hold(b"/file")[b"/file"].ino)
            world.adopt(FIRST, number)
        assert len(set(held)) == 3
        files.forget(held[1], 1)
        assert [tree.attached_count for tree in trees] == [1, 0, 1]
        files.forget(held[0], 1)
        files.forget(held[2], 1)
        assert [tree.attached_count for tree in trees] == [0, 0, 0]

    def test_leaves_the_numbers_of_what_is_shown(self, world: World) -> None:
        files = world.show(FIRST)
        node = world.hold(b"/file")[b"/file"]
        files.forget(node.ino, 1)
        assert files.node(node.ino, world.objects) == node

    def test_of_the_root_or_the_unknown_does_nothing(self, world: World) -> None:
        files = world.show(FIRST)
        for ino in (0, ROOT, 1 << 40):
            files.forget(ino, 1)
        assert sorted(world.names(ROOT)) == [b"changes", b"dir", b"file", b"stays"]

    def test_closing_makes_everything_unknown(self, world: World) -> None:
        files = world.show(FIRST)
        node = world.hold(b"/stays/dir")[b"/stays/dir"]
        files.close()
        assert world.error(files.node, node.ino) == "ESTALE"
        assert len(files.inodes) == 0


class TestListings:
    ITEMS = (
        {b"/d": NESTED}
        | {b"/d/%d" % number: (FILE, HIDDEN_FILE, NESTED, DIRECTORY)[number % 4] for number in range(20)}
        | {b"/d/%d" % number: HIDDEN_FILE for number in range(20, 40)}
        | {b"/d/40": link(b"x"), b"/d/41": HARD, b"/d/2/in": FILE}
    )

    @pytest.mark.parametrize("limit", [*range(1, 45), 1000])
    def test_give_every_entry_once_whatever_the_limit(self, world: World, limit: int) -> None:
        world.show(self.ITEMS)
        names = world.names(world.at(b"/d").ino, limit)
        shown = [path for path, item in self.ITEMS.items() if path.count(b"/") == 2 and item.kind != "hidden"]
        assert names == [path.rpartition(b"/")[2] for path in shown]

    def test_of_hidden_entries_alone_are_empty_and_end(self, world: World) -> None:
        files = world.show({b"/%d" % number: HIDDEN_FILE for number in range(10)})
        for limit in (1, 2, 10, 11):
            assert files.page(ROOT, 0, limit, world.objects) == ([], None)

    def test_go_on_wherever_a_program_seeks(self, world: World) -> None:
        files = world.show(FIRST)
        for after in (-(1 << 63), -1, 0):
            assert len(files.page(ROOT, after, 100, world.objects).nodes) == 4
        for after in (100, (1 << 63) - 1):
            assert files.page(ROOT, after, 100, world.objects) == ([], None)

    def test_do_not_wait_for_nested_catalogs(self, world: World) -> None:
        revision = world.publish(FIRST)
        world.objects.missing = revision.catalogs - {revision.root_ref.content_hash}
        files = world.show_root(revision)
        assert len(world.names(ROOT)) == 4
        node = files.lookup(ROOT, b"stays", world.objects)
        assert node is not None
        assert files.node(node.ino, world.objects) == node

    def test_need_room_for_an_entry(self, world: World) -> None:
        files = world.show(FIRST)
        assert world.error(files.page, ROOT, 0, 0) == "EINVAL"
        assert world.error(files.page, ROOT, 0, -1) == "EINVAL"


class TestNames:
    ODD = (
        b"a b",
        b"\xff\xfe",
        b"new\nline",
        "\u00e4".encode(),
        b"a\\b",
        b"*",
        b"-",
        b"...",
        b"'\"",
        b"\x01",
        b"%s",
        b"x" * 255,
    )

    def test_are_any_bytes(self, world: World) -> None:
        files = world.show({b"/d": DIRECTORY} | {b"/d/" + name: FILE for name in self.ODD})
        ino = world.at(b"/d").ino
        assert world.names(ino) == list(self.ODD)
        for name in self.ODD:
            node = files.lookup(ino, name, world.objects)
            assert node is not None
            assert node.entry.name == name
            assert files.located(node.ino, world.objects).path == b"/d/" + name

    def test_are_found_when_hidden(self, world: World) -> None:
        files = world.show({b"/seen": FILE, b"/unseen": HIDDEN_FILE})
        assert world.names(ROOT) == [b"seen"]
        assert files.lookup(ROOT, b"unseen", world.objects) is not None

    def test_have_255_bytes_at_most(self, world: World) -> None:
        files = world.show(FIRST)
        assert files.lookup(ROOT, b"x" * 255, world.objects) is None
        assert world.error(files.lookup, ROOT, b"x" * 256) == "ENAMETOOLONG"

    @pytest.mark.parametrize("name", [b"", b".", b"..", b"none", b"FILE", b"file ", b"file\0"])
    def test_that_are_none(self, world: World, name: bytes) -> None:
        files = world.show(FIRST)
        assert files.lookup(ROOT, name, world.objects) is None
        assert files.lookup(world.at(b"/stays/deep").ino, name, world.objects) is None


class TestSnapshotsInsideOfARepository:
    """`.cvmfs/snapshots` is hidden, and its directories lead to the root catalogs of other revisions."""

    @pytest.fixture
    def files(self, world: World) -> RepositoryFiles:
        old = world.publish(FIRST)
        top = b"/.cvmfs/snapshots"
        rows = [
            directory(b""),
            directory(b"/.cvmfs", flags=1 | HIDDEN),
            directory(top, flags=1 | HIDDEN),
            directory(top + b"/v1", flags=1 | BIND),
            directory(top + b"/again", flags=1 | BIND),
            regular(b"/file", b"new"),
        ]
        binds = [(top + name, str(old.root_ref.content_hash), 0) for name in (b"/v1", b"/again")]
        return world.show_maker(CatalogMaker(rows, binds=binds), attached_limit=3)

    def test_are_reached_by_name_only(self, world: World, files: RepositoryFiles) -> None:
        assert world.names(ROOT) == [b"file"]
        assert world.names(world.at(b"/.cvmfs/snapshots").ino) == [b"v1", b"again"]

    def test_show_the_other_revision_with_numbers_of_their_own(self, world: World, files: RepositoryFiles) -> None:
        seen = {world.at(b"/file").ino}
        for name in (b"v1", b"again"):
            top = b"/.cvmfs/snapshots/" + name
            for path in FIRST.keys() - OTHER_LINKS:
                node = world.at(top + path)
                assert node.ino not in seen
                seen.add(node.ino)
                located = files.located(node.ino, world.objects)
                assert (located.path, located.entry) == (top + path, node.entry)
            assert sorted(world.names(world.at(top).ino)) == [b"changes", b"dir", b"file", b"stays"]
            assert files.parent(world.at(top + b"/stays").ino, world.objects) == world.at(top).ino
            assert files.parent(world.at(top).ino, world.objects) == world.at(b"/.cvmfs/snapshots").ino


class TestContent:
    def test_of_links_is_expanded_by_the_view(self, world: World) -> None:
        files = world.show(FIRST)
        assert files.read_link(world.at(b"/dir/link").ino, world.objects) == b"../there"

    @pytest.mark.parametrize("volatile", [0, 1])
    def test_of_files_is_volatile_as_the_repository_is(self, world: World, volatile: int) -> None:
        files = world.show_root(world.publish(FIRST, volatile=volatile), attached_limit=2)
        for path in (b"/file", b"/stays/deep/file", b"/dir/two"):
            (span,) = files.spans(world.at(path).ino, world.objects)
            assert span.ref.volatile is bool(volatile)
            assert (span.offset, span.length) == (0, span.ref.size_bytes)

    @pytest.mark.parametrize("attached_limit", [2, 100])
    def test_is_found_when_the_root_catalog_is_opened_anew(self, world: World, attached_limit: int) -> None:
        """The root catalog makes room for itself, and the one of the file must be the one that stays."""
        files = world.show(FIRST, attached_limit=attached_limit)
        ino = world.at(b"/stays/deep/file").ino
        expected = files.spans(ino, world.objects)
        world.at(b"/changes/file")
        files.snapshot.tree.detach(files.snapshot.root_hash)
        assert files.spans(ino, world.objects) == expected

    def test_of_chunked_files_has_no_gaps(self, world: World) -> None:
        digests = [bytes([number]) * 20 for number in range(1, 4)]
        chunks = [(0, 10, digests[0]), (10, 5, digests[1]), (15, 1, digests[2])]
        files = world.show_maker(CatalogMaker([directory(b""), chunked(b"/c", chunks)]))
        spans = files.spans(world.at(b"/c").ino, world.objects)
        assert [(span.offset, span.length, span.ref.content_hash.digest) for span in spans] == chunks


class TestRefusals:
    def test_of_what_is_no_directory(self, world: World) -> None:
        files = world.show(FIRST)
        for path in (b"/file", b"/dir/link", b"/stays/dir/file"):
            ino = world.at(path).ino
            assert world.error(files.lookup, ino, b"x") == "ENOTDIR"
            assert world.error(files.page, ino, 0, 10) == "ENOTDIR"
            assert world.error(files.parent, ino) == "ENOTDIR"

    def test_of_what_has_no_content_or_target(self, world: World) -> None:
        files = world.show(FIRST)
        for ino in (ROOT, world.at(b"/dir").ino, world.at(b"/stays").ino):
            assert world.error(files.spans, ino) == "EISDIR"
            assert world.error(files.read_link, ino) == "EINVAL"
        assert world.error(files.spans, world.at(b"/dir/link").ino) == "EINVAL"
        assert world.error(files.read_link, world.at(b"/file").ino) == "EINVAL"

    def test_of_numbers_that_nobody_has(self, world: World) -> None:
        rows = [directory(b"", rowid=1), regular(b"/a", rowid=2), regular(b"/b", rowid=7)]
        files = world.show_maker(CatalogMaker(rows))
        assert world.at(b"/b").ino == ROOT + 7
        for ino in (-1, 0, ROOT + 3, ROOT + 6, ROOT + 8, 1 << 64):  # between the rows of a catalog, too
            for operation in (files.node, files.located, files.spans, files.read_link, files.parent):
                assert world.error(operation, ino) == "ESTALE"
            assert world.error(files.lookup, ino, b"x") == "ESTALE"
            assert world.error(files.page, ino, 0, 10) == "ESTALE"

    def test_of_numbers_of_another_repository(self, world: World) -> None:
        files = world.show(FIRST)
        ino = world.at(b"/dir").ino
        other = RepositoryFiles(files.inodes, files.snapshot)
        assert world.error(other.node, ino) == "ESTALE"
        assert world.error(other.lookup, ino, b"one") == "ESTALE"

    def test_of_a_damaged_catalog(self, world: World) -> None:
        files = world.show_maker(CatalogMaker([regular(b"/a")]))
        with pytest.raises(CatalogError, match="no root directory"):
            files.node(ROOT, world.objects)
        rows = [directory(b""), regular(b"/gone/a"), directory(b"/lost", flags=3)]
        damaged = world.show_maker(CatalogMaker(rows))
        with pytest.raises(CatalogError, match="/lost"):
            damaged.page(world.at(b"/lost").ino, 0, 10, world.objects)
        files.close()
