"""Attributes as the kernel gets them: exact bytes, no value that crashes them, and two ways that give the same."""

from __future__ import annotations

import os
import stat
import struct
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.entry import Entry
from cvmfs_py.config.id_map import IdMap
from cvmfs_py.fuse.attr_packer import AttrPacker
from cvmfs_py.fuse.wire_attrs import encode_device, pack_attr, pack_statx_reply
from cvmfs_py.fuse.wire_replies import pack_validity
from cvmfs_py.vfs.attrs import Attributes, View, attributes

UNIQUE = 0x1122334455667788
REGULAR = Attributes(
    mode=stat.S_IFREG | 0o644,
    link_count=2,
    uid=1000,
    gid=100,
    size_bytes=5000,
    rdev=0,
    mtime_ns=1_600_000_000_000_000_009,
)
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


class KernelAttr(NamedTuple):
    """The fields, as the kernel takes them over: times have a sign."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


def read_back(attr: bytes) -> KernelAttr:
    return KernelAttr(*struct.unpack("<QQQqqqIIIIIIIIII", attr))


def changed(**changes: Any) -> Attributes:
    return Attributes(**{name: getattr(REGULAR, name) for name in Attributes.__slots__} | changes)


def test_exact_bytes() -> None:
    expected = bytes.fromhex(
        "0700 0000 0100 0000 8813 0000 0000 0000 0a00 0000 0000 0000"
        "0010 5e5f 0000 0000 0010 5e5f 0000 0000 0010 5e5f 0000 0000 0900 0000 0900 0000 0900 0000"
        "a481 0000 0200 0000 e803 0000 6400 0000 0000 0000 0010 0000 0000 0000"
    )
    assert pack_attr((1 << 32) + 7, REGULAR) == expected


@pytest.mark.parametrize(
    ("mtime_ns", "seconds", "rest_ns"),
    [
        (-1, -1, 999_999_999),
        (-(10**18), -(10**9), 0),
        (10**30, (1 << 63) - 1, 0),
        (-(10**30), -(1 << 63), 0),
        (0, 0, 0),
    ],
)
def test_times(mtime_ns: int, seconds: int, rest_ns: int) -> None:
    seen = read_back(pack_attr(5, changed(mtime_ns=mtime_ns)))
    assert (seen.atime, seen.mtime, seen.ctime) == (seconds,) * 3
    assert (seen.atimensec, seen.mtimensec, seen.ctimensec) == (rest_ns,) * 3


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, 0), ((1 << 63) - 1,) * 2, (1 << 63, (1 << 63) - 1), (1 << 80, (1 << 63) - 1), (-5, 0)]
)
def test_sizes(size_bytes: int, shown: int) -> None:
    """The kernel answers with EIO for an inode with a size of more than 63 bits."""
    assert read_back(pack_attr(5, changed(size_bytes=size_bytes))).size == shown


@pytest.mark.parametrize(("owner", "shown"), [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (1 << 32, 65534), (-1, 65534)])
def test_owners_that_are_none_are_nobody(owner: int, shown: int) -> None:
    """Above all, the number after the last is not root's."""
    seen = read_back(pack_attr(5, changed(uid=owner, gid=owner)))
    assert (seen.uid, seen.gid) == (shown, shown)


def kernel_device(major: int, minor: int) -> int:
    """What `new_encode_dev` of the kernel makes of a device."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
@example(1, 3)
@example(0xFFF, 0xFFFFF)
def test_devices(major: int, minor: int) -> None:
    device = os.makedev(major, minor)
    assert encode_device(device) == kernel_device(major, minor)
    seen = read_back(pack_attr(5, changed(mode=stat.S_IFCHR, rdev=device)))
    assert seen.rdev == kernel_device(major, minor)


def test_devices_of_which_the_kernel_has_none() -> None:
    assert encode_device(os.makedev(0x12345, 0x1234567)) == kernel_device(0x345, 0x34567)


class TestStatx:
    VALIDITY = pack_validity(1, 2.5)

    def test_exact_bytes(self) -> None:
        time = "0010 5e5f 0000 0000 0900 0000 0000 0000"
        shown = changed(mode=stat.S_IFBLK | 0o600, rdev=os.makedev(0x812, 0x34567))
        expected = bytes.fromhex(
            "3001 0000 0000 0000 8877 6655 4433 2211"
            "0200 0000 0000 0000 0065 cd1d 0000 0000" + "00" * 16 + "ff07 0000 0010 0000 0000 0000 0000 0000"
            "0200 0000 e803 0000 6400 0000 8061 0000 0700 0000 0000 0000 8813 0000 0000 0000"
            "0a00 0000 0000 0000 0000 0000 0000 0000" + time + "00" * 16 + time + time + "1208 0000 6745 0300"
        )
        assert pack_statx_reply(UNIQUE, self.VALIDITY, 7, shown) == expected + bytes(8 + 112)

    @given(
        st.integers(-(1 << 70), 1 << 70),
        st.integers(-(1 << 70), 1 << 70),
        st.integers(-(10**30), 10**30),
        st.integers(-(1 << 70), 1 << 70),
    )
    def test_nothing_crashes_it(self, size_bytes: int, rdev: int, mtime_ns: int, number: int) -> None:
        shown = changed(size_bytes=size_bytes, rdev=rdev, mtime_ns=mtime_ns, uid=number, gid=number, link_count=number)
        assert len(pack_statx_reply(UNIQUE, self.VALIDITY, 7, shown)) == 304
        assert len(pack_attr(7, shown)) == 88


INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT32 = st.integers(0, 0xFFFFFFFF)
OWNERS = st.none() | st.sampled_from([0, 3, 1000, 0xFFFFFFFF]) | UINT32
ENTRIES = st.builds(
    Entry,
    rowid=st.just(1),
    name=st.just(b"name"),
    mode=st.builds(int.__or__, st.sampled_from(KINDS), st.integers(0, 0o7777)),
    # Also what no row of a catalog can hold: this must not depend on who made the entry.
    size=INT64 | st.integers(0, 100_000) | st.integers(-(1 << 66), 1 << 66),
    mtime_s=INT64 | st.integers(0, 1 << 31) | st.integers(-(1 << 66), 1 << 66),
    mtime_ns=st.integers(0, 999_999_999),
    uid=OWNERS,
    gid=OWNERS,
    hardlinks=st.integers(0, (1 << 63) - 1) | st.just(1),
    flags=st.just(4),
    digest=st.none(),
    symlink=st.lists(st.sampled_from([b"a/", b"$(X)", b"$(Y:-other)", b"$(", b")", b"..", b""])).map(b"".join),
    xattr_blob=st.none(),
)
ID_MAPS = st.builds(
    IdMap,
    st.dictionaries(st.sampled_from([0, 3, 1000]), st.integers(0, 9_999_999_999), max_size=3),
    st.none() | st.integers(0, 9_999_999_999),
)
VIEWS = st.builds(
    View,
    uid=st.sampled_from([0, 1000]) | UINT32,
    gid=st.sampled_from([0, 1000]) | UINT32,
    claim_ownership=st.booleans(),
    uid_map=st.just(IdMap({})) | ID_MAPS,
    gid_map=st.just(IdMap({})) | ID_MAPS,
    world_readable=st.booleans(),
    link_variables=st.dictionaries(st.sampled_from([b"X", b"Y"]), st.binary(max_size=40)),
    expand_links=st.booleans(),
)


def entry(**changes: Any) -> Entry:
    plain = Entry(1, b"name", stat.S_IFREG | 0o644, 5, 9, 0, 3, 4, 1, 4, None, b"", None)
    return plain._replace(**changes)


@given(st.integers(1, (1 << 64) - 1), ENTRIES, VIEWS)
@example(5, entry(size=1 << 63), View(1, 2))
@example(5, entry(size=-5), View(1, 2))
@example(5, entry(size=1 << 80), View(1, 2))
@example(5, entry(mtime_s=1 << 63), View(1, 2))
@example(5, entry(), View(1, 2, uid_map=IdMap({3: 1 << 32})))
@example(5, entry(mode=stat.S_IFCHR, size=-1), View(1, 2))
def test_the_fast_way_packs_the_same_bytes(ino: int, entry: Entry, view: View) -> None:
    assert AttrPacker(view).pack(ino, entry) == pack_attr(ino, attributes(entry, view))


@given(ENTRIES, VIEWS)
def test_what_the_kernel_accepts(entry: Entry, view: View) -> None:
    """It makes a bad inode of one whose size does not fit into 63 bits or whose type it does not know."""
    seen = read_back(AttrPacker(view).pack(5, entry))
    assert seen.size < 1 << 63
    assert stat.S_IFMT(seen.mode) in KINDS
    assert seen.mtimensec < 1_000_000_000
    assert seen.flags == 0
