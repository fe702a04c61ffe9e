"""The kernel's list of mounts: names with blanks, mounts on top of each other, lines of strange kernels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.fuse.mountinfo import find_file_system, find_mount, parse_mountinfo, real_path

if TYPE_CHECKING:
    from pathlib import Path

LIST = rb"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:40 / /cvmfs rw shared:5 master:2 - autofs /etc/auto.cvmfs rw,fd=5
41 40 0:41 / /cvmfs/a.b ro,nosuid,nodev - fuse cvmfs2 ro,user_id=0,group_id=0,allow_other
42 41 0:42 / /cvmfs/a.b rw - tmpfs tmpfs rw
50 27 0:50 / /mnt/with\040blank\134and\011tab rw - fuse.x so\040urce rw
60 27 0:60 / /over rw - tmpfs first rw
61 27 0:61 / /over/below rw - tmpfs hidden rw
62 60 0:62 / /over rw - tmpfs second rw
a broken line
63 27
"""
MOUNTS = parse_mountinfo(LIST)


def device_at(path: str) -> str | None:
    found = find_mount(MOUNTS, path)
    return None if found is None else found.device


def test_lines_are_read() -> None:
    assert len(MOUNTS) == 8
    fuse = MOUNTS[2]
    assert (fuse.mount_id, fuse.parent_id, fuse.device, fuse.kind) == (41, 40, "0:41", "fuse")
    assert fuse.options == {"ro", "nosuid", "nodev"}
    assert fuse.file_system_options == {"ro", "user_id=0", "group_id=0", "allow_other"}
    assert (MOUNTS[4].mountpoint, MOUNTS[4].source) == ("/mnt/with blank\\and\ttab", "so urce")


def test_the_uppermost_mount_is_seen() -> None:
    assert device_at("/") == "254:0"
    assert device_at("/cvmfs") == "0:40"
    assert device_at("/cvmfs/a.b") == "0:42"
    assert device_at("/cvmfs/a.b/c") is None
    assert device_at("/cvm") is None
    assert device_at("/over") == "0:62"
    assert device_at("/over/below") is None


def test_the_file_system_of_a_path() -> None:
    found = find_file_system(MOUNTS, "/cvmfs/a.b/c/d")
    assert found is not None
    assert found.device == "0:42"
    found = find_file_system(MOUNTS, "/cvmfsx")
    assert found is not None
    assert found.device == "254:0"


def test_a_changed_root_directory() -> None:
    """The first mount is then not in the list."""
    below = parse_mountinfo(b"\n".join(LIST.splitlines()[1:]))
    found = find_mount(below, "/cvmfs/a.b")
    assert found is not None
    assert found.device == "0:42"
    assert find_file_system(below, "/elsewhere") is None


@given(st.lists(st.sampled_from([*LIST.splitlines(), b"1 1 0:1 / / rw - a b c", b""])), st.binary(max_size=12))
def test_no_list_crashes(lines: list[bytes], path: bytes) -> None:
    mounts = parse_mountinfo(b"\n".join(lines) + path)
    find_file_system(mounts, os.fsdecode(b"/" + path))
    find_mount(mounts, "/over")


def test_the_path_as_the_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    place = str(tmp_path)
    assert real_path(place + "/link/mnt/") == place + "/real/mnt"
    assert real_path(place + "/link/./missing") == place + "/real/missing"
    assert real_path("/") == "/"
