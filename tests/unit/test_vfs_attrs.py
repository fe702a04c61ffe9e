"""What programs see of an entry: owners, modes, sizes, devices and times."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.entry import Entry
from cvmfs_py.config.id_map import IdMap
from cvmfs_py.vfs.attrs import View, attributes, link_target

PLAIN = View(uid=1000, gid=2000)
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def entry(**changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "rowid": 1,
        "name": b"name",
        "mode": stat.S_IFREG | 0o644,
        "size": 1234,
        "mtime_s": 1_600_000_000,
        "mtime_ns": 0,
        "uid": 3,
        "gid": 4,
        "hardlinks": 1,
        "flags": 4,
        "digest": None,
        "symlink": b"",
        "xattr_blob": None,
    }
    return Entry(**fields | changes)


class TestOwners:
    def test_are_as_stored(self) -> None:
        shown = attributes(entry(), PLAIN)
        assert (shown.uid, shown.gid) == (3, 4)

    def test_are_the_views_where_none_is_stored(self) -> None:
        shown = attributes(entry(uid=None, gid=None), PLAIN)
        assert (shown.uid, shown.gid) == (1000, 2000)

    def test_can_be_mapped(self) -> None:
        view = View(1000, 2000, uid_map=IdMap({3: 30}, default=99), gid_map=IdMap({5: 50}))
        shown = attributes(entry(), view)
        assert (shown.uid, shown.gid) == (30, 4)
        assert attributes(entry(uid=7), view).uid == 99
        # An owner of the client's process is not looked up: it is one of this machine already.
        assert attributes(entry(uid=None, gid=None), view).uid == 1000

    def test_can_be_claimed_whatever_is_stored_or_mapped(self) -> None:
        view = View(1000, 2000, claim_ownership=True, uid_map=IdMap({3: 30}), gid_map=IdMap({4: 40}))
        shown = attributes(entry(), view)
        assert (shown.uid, shown.gid) == (1000, 2000)


class TestModes:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("permissions", [0, 0o7777, 0o640])
    def test_are_as_stored(self, kind: int, permissions: int) -> None:
        assert attributes(entry(mode=kind | permissions), PLAIN).mode == kind | permissions

    @pytest.mark.parametrize(
        ("mode", "shown"),
        [
            (stat.S_IFREG, stat.S_IFREG | 0o444),
            (stat.S_IFREG | 0o4700, stat.S_IFREG | 0o4744),
            (stat.S_IFDIR, stat.S_IFDIR | 0o555),
            (stat.S_IFDIR | 0o1700, stat.S_IFDIR | 0o1755),
            (stat.S_IFIFO | 0o200, stat.S_IFIFO | 0o644),
        ],
    )
    def test_can_be_made_readable_for_all(self, mode: int, shown: int) -> None:
        assert attributes(entry(mode=mode), View(0, 0, world_readable=True)).mode == shown


class TestSizes:
    def test_of_a_link_is_that_of_what_readlink_says(self) -> None:
        link = entry(mode=stat.S_IFLNK | 0o777, size=4096, symlink=b"$(WHERE:-default)/x")
        assert attributes(link, PLAIN).size_bytes == len(b"default/x")
        view = View(0, 0, link_variables={b"WHERE": b"a longer way"})
        assert (attributes(link, view).size_bytes, link_target(link, view)) == (14, b"a longer way/x")
        raw = View(0, 0, link_variables={b"WHERE": b"a"}, expand_links=False)
        assert (attributes(link, raw).size_bytes, link_target(link, raw)) == (19, b"$(WHERE:-default)/x")

    @pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
    @pytest.mark.parametrize(
        ("stored", "major", "minor"),
        [(0x103, 1, 3), (os.makedev(4000, 70000), 4000, 70000), (-1, 2**32 - 1, 2**32 - 1)],
    )
    def test_of_a_device_is_its_number(self, kind: int, stored: int, major: int, minor: int) -> None:
        """A column of a catalog has a sign; a device number has none."""
        shown = attributes(entry(mode=kind | 0o600, size=stored), PLAIN)
        assert shown.size_bytes == 0
        assert (os.major(shown.rdev), os.minor(shown.rdev)) == (major, minor)

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK)])
    def test_of_anything_else_is_as_stored_and_it_is_no_device(self, kind: int) -> None:
        shown = attributes(entry(mode=kind, size=5000), PLAIN)
        assert (shown.size_bytes, shown.rdev) == (5000, 0)

    @pytest.mark.parametrize(("size_bytes", "blocks"), [(0, 1), (511, 1), (512, 2), (1 << 40, (1 << 31) + 1)])
    def test_blocks_are_counted_as_the_reference_does(self, size_bytes: int, blocks: int) -> None:
        assert attributes(entry(size=size_bytes), PLAIN).blocks == blocks


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
def test_times_before_1970_and_after_2038_are_exact(mtime_s: int, mtime_ns: int) -> None:
    shown = attributes(entry(mtime_s=mtime_s, mtime_ns=mtime_ns), PLAIN)
    assert divmod(shown.mtime_ns, 1_000_000_000) == (mtime_s, mtime_ns)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))
def test_a_hard_link_group_is_no_part_of_the_link_count(group: int, link_count: int) -> None:
    assert attributes(entry(hardlinks=group << 32 | link_count), PLAIN).link_count == link_count
