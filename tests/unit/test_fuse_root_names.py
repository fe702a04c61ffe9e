"""What the kernel was told of the names in a root is taken back: at once, or name by name, within a limit."""

from __future__ import annotations

import pytest

from cvmfs_py.fuse.root_names import RootNames
from cvmfs_py.fuse.wire import InitFlag
from cvmfs_py.fuse.wire_init import WANTED_FLAGS, Negotiation, Offer, Wishes, negotiate
from cvmfs_py.fuse.wire_notices import pack_inc_epoch, pack_inval_entry, pack_inval_inode

ROOT = 9


def agreed(minor: int, flags: InitFlag = WANTED_FLAGS) -> Negotiation:
    return negotiate(Offer(7, minor, 1 << 17, flags), Wishes(), 4096)


class TestWithEpochs:
    def test_everything_lasts(self) -> None:
        names = RootNames(agreed(44), limit=1)
        assert all(names.may_last(b"%d" % number) for number in range(10))

    def test_is_taken_back_before_and_after_the_listings_under_way(self) -> None:
        at_once, (barrier, again) = RootNames(agreed(44)).take_back(ROOT)
        assert (at_once, again) == ([pack_inc_epoch(), pack_inval_inode(ROOT)], pack_inc_epoch())
        assert barrier.startswith(pack_inval_entry(ROOT, b".cvmfs-py"))


@pytest.mark.parametrize(
    ("minor", "flags", "expires"),
    [(31, WANTED_FLAGS, True), (43, WANTED_FLAGS, True), (31, WANTED_FLAGS & ~InitFlag.HAS_EXPIRE_ONLY, False)],
)
class TestNameByName:
    def test_each_once(self, minor: int, flags: InitFlag, expires: bool) -> None:
        names = RootNames(agreed(minor, flags))
        for name in (b"a", b"b", b"a"):
            assert names.may_last(name)
        at_once, notices = names.take_back(ROOT)
        assert sorted(notices) == sorted(pack_inval_entry(ROOT, name, expires) for name in (b"a", b"b"))
        assert at_once == [pack_inval_inode(ROOT)]
        assert names.take_back(ROOT) == ([pack_inval_inode(ROOT)], [])

    def test_those_beyond_the_limit_do_not_last(self, minor: int, flags: InitFlag, expires: bool) -> None:
        names = RootNames(agreed(minor, flags), limit=2)
        assert [names.may_last(name) for name in (b"a", b"b", b"c", b"a")] == [True, True, False, True]
        assert len(names.take_back(ROOT)[1]) == 2
        assert names.may_last(b"c")
