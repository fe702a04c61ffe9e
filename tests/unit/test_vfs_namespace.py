"""Several repositories in one mount: the directory that holds them, and that none of them is in the way of another."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest

from cache.ref import NotLocal
from cvmfs_py.errors import FsError
from cvmfs_py.mount.repositories_directory import RepositoriesDirectory
from cvmfs_py.vfs.inodes import ROOT
from cvmfs_py.vfs.namespace import Namespace, NotAttached
from tests.catalog_fixtures import Objects
from tests.vfs_world import DIRECTORY, FILE, NESTED, Item, list_all, look_up, open_snapshot, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cvmfs_py.vfs.files import NodePage, RepositoryFiles
    from cvmfs_py.vfs.snapshot import Snapshot

ITEMS = {b"/file": FILE, b"/nested": NESTED, b"/nested/dir": DIRECTORY, b"/nested/dir/file": FILE}
NAMES = (b"sft.example.org", b"atlas.example.org", b"lhcb.example.org", b"Upper", b"\xff")


class World:
    """A namespace and snapshots to attach."""

    def __init__(self, directory: Path, *, lists: bool = False) -> None:
        self.objects = Objects(directory / "objects")
        self.namespace = Namespace(mtime_s=1_700_000_000)
        self.directory = RepositoriesDirectory(
            self.namespace,
            [b"listed.example.org"] if lists else [],
            lambda name: b"." not in name,
            lambda files: files.node(files.root, self.objects).entry,
        )

    def snapshot(self, number: int = 1) -> Snapshot:
        return open_snapshot(publish(self.objects, ITEMS, number), self.objects)

    def attach(self, *names: bytes) -> list[RepositoryFiles]:
        return [self.namespace.attach(name, self.snapshot()) for name in names]

    def page(self, after: int, limit: int) -> NodePage:
        return self.directory.page(ROOT, after, limit, self.objects)

    def names(self, limit: int = 100) -> list[bytes]:
        names: list[bytes] = []
        after: int | None = 0
        while after is not None:
            page = self.page(after, limit)
            assert page.nodes or page.next_rowid is None
            names += [node.entry.name for node in page.nodes]
            after = page.next_rowid
        return names


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.namespace.close()
    assert len(world.namespace) == len(world.namespace.inodes) == 0
    assert world.objects.open_count == 0


def error(operation: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(FsError) as caught:
        operation(*arguments)
    assert str(caught.value)
    return errno.errorcode[caught.value.errno]


class TestTheDirectoryOfRepositories:
    def test_can_be_read_and_not_written(self, world: World) -> None:
        for count in range(3):
            node = world.namespace.node()
            assert node.ino == ROOT == world.namespace.parent()
            assert node.entry.mode == stat.S_IFDIR | 0o555
            assert node.entry.link_count == 2 + count
            assert (node.entry.uid, node.entry.gid) == (None, None)
            world.attach(b"%d" % count)

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
    def test_is_in_order(self, world: World, limit: int) -> None:
        assert world.names(limit) == []
        world.attach(*NAMES)
        assert world.names(limit) == sorted(NAMES)
        assert len(world.namespace) == len(NAMES)

    def test_lists_names_that_have_to_be_looked_up(self, world: World) -> None:
        """Only the repository itself can tell more, and it may be out of reach."""
        world.attach(*NAMES)
        nodes = world.page(0, 100).nodes
        assert {node.ino for node in nodes} == {0}
        assert all(stat.S_ISDIR(node.entry.mode) for node in nodes)

    def test_lists_names_that_nobody_has_asked_for(self, tmp_path: Path) -> None:
        world = World(tmp_path, lists=True)
        assert world.names() == [b"listed.example.org"]
        world.attach(b"a.example.org", b"listed.example.org")
        assert world.names() == [b"a.example.org", b"listed.example.org"]
        world.namespace.close()
        assert world.names() == [b"listed.example.org"]

    def test_looks_up_what_is_attached_and_asks_for_what_may_be(self, world: World) -> None:
        (files,) = world.attach(b"a.example.org")
        found = world.directory.lookup(ROOT, b"a.example.org", world.objects)
        assert found is not None
        assert (found.ino, found.entry) == files.node(files.root, world.objects)
        assert world.directory.lookup(ROOT, b"README", world.objects) is None
        with pytest.raises(NotAttached) as caught:
            world.directory.lookup(ROOT, b"b.example.org", world.objects)
        assert caught.value.name == b"b.example.org"
        assert error(world.directory.lookup, files.root, b"file", world.objects) == "ESTALE"

    def test_gives_every_name_that_stays_once_while_others_come_and_go(self, world: World) -> None:
        world.attach(b"b", b"d", b"f")
        page = world.page(0, 2)
        assert [node.entry.name for node in page.nodes] == [b"b", b"d"]
        assert page.next_rowid is not None
        world.attach(b"a", b"e")
        world.namespace.detach(b"d")
        assert [node.entry.name for node in world.page(page.next_rowid, 2).nodes] == [b"e", b"f"]

    def test_ends_where_a_program_seeks_to_what_never_was(self, world: World) -> None:
        world.attach(*NAMES)
        assert world.page(1 << 40, 10) == ([], None)
        assert len(world.page(-1, 10).nodes) == len(NAMES)
        assert error(world.page, 0, 0) == "EINVAL"

    def test_finds_by_name(self, world: World) -> None:
        attached = world.attach(*NAMES)
        assert [world.namespace.lookup(name) for name in NAMES] == attached
        assert world.namespace.lookup(b"other") is None
        assert world.namespace.lookup(b"x" * 255) is None
        assert error(world.namespace.lookup, b"x" * 256) == "ENAMETOOLONG"

    @pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"x" * 256])
    def test_has_no_impossible_names(self, world: World, name: bytes) -> None:
        snapshot = world.snapshot()
        assert error(world.namespace.attach, name, snapshot) == "EINVAL"
        snapshot.tree.close()

    def test_has_each_name_once(self, world: World) -> None:
        (files,) = world.attach(b"a")
        snapshot = world.snapshot()
        assert error(world.namespace.attach, b"a", snapshot) == "EEXIST"
        snapshot.tree.close()
        assert world.namespace.lookup(b"a") is files
        assert error(world.namespace.detach, b"b") == "ENOENT"


class TestRepositories:
    def test_own_their_inodes_and_no_others(self, world: World) -> None:
        attached = world.attach(b"a", b"b")
        seen: set[int] = {ROOT}
        for files in attached:
            for path in (b"", *ITEMS):
                node = look_up(files, path, world.objects)
                assert world.namespace.owner(node.ino) is files
                assert node.ino not in seen
                seen.add(node.ino)
        first, second = attached
        assert error(first.node, second.root, world.objects) == "ESTALE"
        assert error(first.node, ROOT, world.objects) == "ESTALE"
        assert error(first.node, look_up(second, b"/file", world.objects).ino, world.objects) == "ESTALE"
        assert [world.namespace.owner(ino) for ino in (0, ROOT, 1 << 40)] == [None, None, None]

    def test_are_below_the_directory(self, world: World) -> None:
        for files in world.attach(b"a", b"b"):
            assert files.parent(files.root, world.objects) == ROOT
            top = look_up(files, b"/nested", world.objects).ino
            assert files.parent(top, world.objects) == files.root
            assert files.parent(look_up(files, b"/nested/dir", world.objects).ino, world.objects) == top
            assert [node.entry.name for node in list_all(files, files.root, world.objects)] == [b"file", b"nested"]
            assert files.node(files.root, world.objects).entry.mode == stat.S_IFDIR | 0o755

    def test_follow_their_own_revisions(self, world: World) -> None:
        first, second = world.attach(b"a", b"b")
        old = {files: look_up(files, b"/file", world.objects).ino for files in (first, second)}
        changed = publish(world.objects, {b"/file": Item("file", 2)}, 2)
        first.adopt(open_snapshot(changed, world.objects))
        assert look_up(first, b"/file", world.objects).ino != old[first]
        assert look_up(second, b"/file", world.objects).ino == old[second]
        assert world.namespace.owner(old[first]) is first
        first.forget(old[first], 1)
        assert world.namespace.owner(old[first]) is None
        assert world.namespace.owner(first.root) is first

    def test_that_are_detached_are_unknown(self, world: World) -> None:
        first, second = world.attach(b"a", b"b")
        gone = look_up(first, b"/nested/dir/file", world.objects).ino
        kept = look_up(second, b"/nested/dir/file", world.objects)
        world.namespace.inodes.remember(first.root)
        world.namespace.detach(b"a")
        assert world.names() == [b"b"]
        assert world.namespace.lookup(b"a") is None
        assert [world.namespace.owner(ino) for ino in (gone, first.root)] == [None, None]
        assert error(first.node, gone, world.objects) == "ESTALE"
        assert second.node(kept.ino, world.objects) == kept
        assert world.objects.open_count == second.attached_count

    def test_that_come_back_have_new_numbers(self, world: World) -> None:
        (first,) = world.attach(b"a")
        highest = look_up(first, b"/nested/dir/file", world.objects).ino
        world.namespace.detach(b"a")
        (again,) = world.attach(b"a")
        assert again.root > highest
        assert look_up(again, b"/file", world.objects).ino > highest
        assert world.namespace.owner(first.root) is None

    def test_that_cannot_be_reached_hold_up_no_listing(self, world: World) -> None:
        first, second = world.attach(b"a", b"b")
        root_hash = first.snapshot.root_hash
        first.snapshot.tree.close()
        world.objects.missing = {root_hash}
        with pytest.raises(NotLocal):
            first.node(first.root, world.objects)
        assert world.names() == [b"a", b"b"]
        assert world.namespace.lookup(b"a") is first
        assert second.node(second.root, world.objects).ino == second.root
