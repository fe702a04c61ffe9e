"""Numbers: what they are bound to, how long they are known, and what the kernel's references keep."""

from __future__ import annotations

import errno

import pytest

from cache.address import Algorithm, ContentHash, hash_bytes
from cache.ref import ObjectRef
from catalog.tree import CatalogTree
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.inodes import ROOT, InodeRange, Inodes
from cvmfs_py.vfs.recent import Recent


class Owner:
    """Something that has numbers."""

    def __init__(self, root: int = ROOT) -> None:
        self.root = root


def content(name: str) -> ContentHash:
    return hash_bytes(Algorithm.SHA1, name.encode())


def tree(name: str) -> CatalogTree:
    return CatalogTree(ObjectRef(content(name)))


class World:
    """Numbers for the catalogs of one repository."""

    def __init__(self) -> None:
        self.inodes: Inodes[Owner] = Inodes()
        self.owner = Owner()
        self.old = tree("old")
        self.new = tree("new")

    def catalog(
        self, name: str, rows: int = 10, *, at: bytes = b"", by: CatalogTree | None = None
    ) -> InodeRange[Owner]:
        return self.inodes.range_of(self.owner, by or self.old, at, content(name), rows)


@pytest.fixture
def world() -> World:
    return World()


class TestNumbers:
    def test_begin_after_the_root_and_leave_no_gap(self, world: World) -> None:
        first, second = world.catalog("a", 10), world.catalog("b", 5)
        assert (first.base + 1, first.base + 10, second.base + 1, second.base + 5) == (2, 11, 12, 16)
        assert world.inodes.highest == 16
        assert len(world.inodes) == 2

    def test_lead_to_their_catalog(self, world: World) -> None:
        first, second = world.catalog("a", 10), world.catalog("b", 5)
        found = [world.inodes.find(ino) for ino in range(18)]
        assert found == [None, None, *[first] * 10, *[second] * 5, None]
        assert world.inodes.find(-1) is None
        assert world.inodes.find(1 << 64) is None

    def test_are_the_same_for_the_same_catalog_at_the_same_place(self, world: World) -> None:
        first = world.catalog("a")
        assert world.catalog("a") is first
        assert world.catalog("a", at=b"/elsewhere") is not first
        assert world.catalog("other") is not first

    def test_differ_between_owners(self, world: World) -> None:
        first = world.catalog("a")
        second = world.inodes.range_of(Owner(), world.old, b"", content("a"), 10)
        assert second is not first
        assert second.base == first.base + 10

    def test_of_a_catalog_without_rows_are_none(self, world: World) -> None:
        empty, next_one = world.catalog("empty", 0), world.catalog("a", 3)
        assert [world.inodes.find(ino) for ino in range(1, 6)] == [None, *[next_one] * 3, None]
        assert empty.base == next_one.base
        also_empty = world.catalog("also empty", 0)
        assert world.inodes.find(4) is next_one
        assert also_empty.base == 4

    def test_are_never_used_again(self, world: World) -> None:
        first = world.catalog("a")
        assert world.inodes.drop(world.old)
        assert world.inodes.find(first.base + 1) is None
        again = world.catalog("a", by=world.new)
        assert again.base == first.base + 10
        assert world.inodes.find(first.base + 1) is None

    def test_around_a_hole_are_found(self, world: World) -> None:
        first, gone = world.catalog("a", 10), world.catalog("b", 10, by=world.new)
        last = world.catalog("c", 10)
        assert world.inodes.drop(world.new)
        assert world.inodes.find(first.base + 10) is first
        assert world.inodes.find(gone.base + 1) is None
        assert world.inodes.find(gone.base + 10) is None
        assert world.inodes.find(last.base + 1) is last

    def test_that_do_not_fit_are_refused_before_a_kernel_sees_them(self, world: World) -> None:
        for each in range((1 << 15) - 1):
            world.catalog(str(each), 1 << 48)
        with pytest.raises(FsError) as caught:
            world.catalog("one more", 1 << 48)
        assert caught.value.errno == errno.EOVERFLOW
        assert world.inodes.highest < 1 << 63
        assert world.catalog("small", 10).length == 10


class TestReservedNumbers:
    def test_lead_to_their_owner_alone(self, world: World) -> None:
        before = world.catalog("a", 10)
        owner = world.inodes.reserve(lambda ino: Owner(ino))
        after = world.catalog("b", 10)
        assert owner.root == 12
        found = world.inodes.find(owner.root)
        assert found is not None
        assert found.owner is owner
        assert found.tree is None
        assert world.inodes.find(11) is before
        assert world.inodes.find(13) is after

    def test_may_be_followed_by_numbers_that_their_owner_takes_while_it_is_made(self, world: World) -> None:
        def make(ino: int) -> Owner:
            made = Owner(ino)
            world.inodes.range_of(made, world.old, b"", content("a"), 10)
            return made

        owner = world.inodes.reserve(make)
        numbers = [world.inodes.find(ino) for ino in range(owner.root, owner.root + 11)]
        assert all(found is not None and found.owner is owner for found in numbers)
        assert [found is not None and found.tree is None for found in numbers] == [True, *[False] * 10]

    def test_go_with_all_others_of_their_owner(self, world: World) -> None:
        kept = world.catalog("a", 10)
        owner = world.inodes.reserve(lambda ino: Owner(ino))
        other = world.inodes.range_of(owner, world.new, b"", content("a"), 10)
        world.inodes.remember(owner.root)
        world.inodes.remember(other.base + 1)
        world.inodes.drop_owner(owner)
        assert world.inodes.find(owner.root) is None
        assert world.inodes.find(other.base + 1) is None
        assert world.inodes.find(kept.base + 1) is kept
        assert world.inodes.lookups == 0
        assert world.inodes.drop(world.new)
        assert world.inodes.reserve(lambda ino: Owner(ino)).root == owner.root + 11


class TestReferences:
    def test_are_counted_by_catalog(self, world: World) -> None:
        a, b = world.catalog("a"), world.catalog("b")
        world.inodes.remember(a.base + 1)
        world.inodes.remember(a.base + 2, 3)
        world.inodes.remember(b.base + 1)
        assert (a.lookups, b.lookups, world.inodes.lookups) == (4, 1, 5)
        assert world.inodes.forget(a.base + 2, 3) is None
        assert world.inodes.forget(a.base + 1, 1) is a
        assert (a.lookups, b.lookups) == (0, 1)

    def test_to_the_root_and_to_unknown_numbers_count_nothing(self, world: World) -> None:
        world.catalog("a")
        for ino in (0, ROOT, 12, 1 << 64):
            world.inodes.remember(ino)
            assert world.inodes.forget(ino, 1) is None
        assert world.inodes.lookups == 0

    def test_never_become_less_than_none(self, world: World) -> None:
        a = world.catalog("a")
        world.inodes.remember(a.base + 1)
        assert world.inodes.forget(a.base + 1, 5) is a
        assert world.inodes.forget(a.base + 1, 1) is None
        world.inodes.remember(a.base + 1)
        assert not world.inodes.drop(world.old)

    def test_keep_a_tree(self, world: World) -> None:
        a = world.catalog("a")
        world.catalog("b")
        world.inodes.remember(a.base + 1)
        assert not world.inodes.drop(world.old)
        assert len(world.inodes) == 2
        assert world.inodes.drop(world.new)  # which never had any
        world.inodes.forget(a.base + 1, 1)
        assert world.inodes.drop(world.old)
        assert len(world.inodes) == 0

    @pytest.mark.parametrize("is_held", [True, False])
    def test_follow_their_catalog_to_another_tree(self, world: World, is_held: bool) -> None:
        a = world.catalog("a")
        if is_held:
            world.inodes.remember(a.base + 1)
        assert world.catalog("a", by=world.new).tree is world.old
        world.inodes.move(a, world.new)
        assert a.tree is world.new
        assert world.inodes.drop(world.old)
        assert world.inodes.find(a.base + 1) is a
        assert world.inodes.drop(world.new) is not is_held
        if is_held:
            assert world.inodes.forget(a.base + 1, 1) is a
            assert world.inodes.drop(world.new)
        assert world.inodes.find(a.base + 1) is None


class TestRecent:
    def test_keeps_what_was_used_last_within_the_limit(self) -> None:
        recent: Recent[str] = Recent(10)
        for number in range(100):
            recent.put(number, str(number))
            assert recent.get(number) == str(number)
            assert recent.get(0) == "0"  # used all the time
            assert len(recent) <= 10
        assert recent.get(50) is None
        assert recent.get(99) == "99"

    def test_gives_the_newest_value(self) -> None:
        recent: Recent[int] = Recent(4)
        for number in range(20):
            recent.put(7, number)
            recent.put(100 + number, 0)
            assert recent.get(7) == number

    @pytest.mark.parametrize("limit", [0, 1, 2, 3])
    def test_remembers_at_least_the_last(self, limit: int) -> None:
        recent: Recent[int] = Recent(limit)
        for number in range(5):
            recent.put(number, number)
            assert recent.get(number) == number

    def test_can_be_cleared(self) -> None:
        recent: Recent[int] = Recent(4)
        for number in range(5):
            recent.put(number, number)
        recent.clear()
        assert len(recent) == 0
        assert all(recent.get(number) is None for number in range(5))
