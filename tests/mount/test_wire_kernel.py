"""The kernel of this machine understands what the wire says, and says what the wire understands."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cvmfs_py.fuse.wire import INC_EPOCH_MINOR, InitFlag
from cvmfs_py.fuse.wire_init import WANTED_FLAGS
from tests.house.sources import TOP
from tests.mount.kernel_talk import CONTENT, LONG_NAME, SECOND_NS, XATTRS

if TYPE_CHECKING:
    from pathlib import Path

LINUX_5_4_FLAGS = InitFlag((InitFlag.EXPLICIT_INVAL_DATA << 1) - 1)
LARGEST = (1 << 63) - 1

pytestmark = pytest.mark.needs("mounting")


@pytest.fixture(
    params=[
        pytest.param((WANTED_FLAGS, 45), id="newest"),
        pytest.param((WANTED_FLAGS & LINUX_5_4_FLAGS, 31), id="Linux 5.4"),
    ],
    scope="module",
)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program saw of the mount, and which requests that cost."""
    flags, minor = request.param
    place: Path = tmp_path_factory.mktemp("mount")
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    command = [sys.executable, "-m", "tests.mount.kernel_talk", str(place), str(int(flags)), str(minor)]
    done = subprocess.run(
        ["unshare", *namespaces, *command], cwd=TOP, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_the_agreement(seen: dict[str, Any]) -> None:
    minor, flags = seen["agreed"]
    assert minor in (31, seen["kernel"], 45)
    needed = InitFlag.DO_READDIRPLUS | InitFlag.PARALLEL_DIROPS | InitFlag.CACHE_SYMLINKS | InitFlag.MAX_PAGES
    assert needed in InitFlag(flags)


def test_a_listing_brings_the_attributes_of_all(seen: dict[str, Any]) -> None:
    names, cost = seen["names"]
    assert names == sorted(["file", "link", "device", "old", os.fsdecode(LONG_NAME)])
    assert set(cost) <= {"INIT", "GETATTR", "OPENDIR", "READDIRPLUS"}
    seconds = 1_600_000_000 * SECOND_NS
    assert seen["stat file"] == [
        [2, stat.S_IFREG | 0o644, len(CONTENT), seconds + 9, len(CONTENT) // 512 + 1, 0, 0],
        [],
    ]
    assert seen["stat device"] == [[4, stat.S_IFCHR | 0o666, 0, 0, 1, 0x812, 0x34567], []]


def test_values_at_the_limits(seen: dict[str, Any]) -> None:
    (ino, _, size_bytes, mtime_ns, *_), cost = seen["stat old"]
    assert (ino, size_bytes, mtime_ns, cost) == (5, LARGEST, -SECOND_NS, [])
    (ino, _, size_bytes, *_), cost = seen["stat nnnnnn"]
    assert (ino, size_bytes, cost) == ((1 << 40) + 1, LARGEST, [])


def test_what_was_answered_once_is_not_asked_again(seen: dict[str, Any]) -> None:
    assert seen["link"] == ["file", ["READLINK"]]
    assert seen["link again"] == ["file", []]
    assert seen["absent"] == ["ENOENT", ["LOOKUP"]]
    assert seen["absent again"] == ["ENOENT", []]
    assert seen["read"] == [True, []]
    assert seen["read again"] == [True, []]


def test_statx(seen: dict[str, Any]) -> None:
    assert seen["birth"][0] == f"0 1600000000 {len(CONTENT)} 0:0 644\n0 0 0 812:34567 666"
    assert set(seen["birth"][1]) <= {"STATX"}


def test_the_rest_of_the_operations(seen: dict[str, Any]) -> None:
    assert seen["data"] == [4096, ["LSEEK"]]
    assert seen["hole"] == [len(CONTENT), ["LSEEK"]]
    assert seen["xattrs"][0] == [name.decode() for name in XATTRS]
    assert seen["xattr"][0] == XATTRS[b"user.first"].decode()
    assert seen["no xattr"] == ["ENODATA", ["GETXATTR"]]
    assert seen["statvfs"][0][:6] == [8192, 4096, 1000, 20, 10, 5]
    assert seen["ioctl"] == ["ENOTTY", ["IOCTL"]]


def test_notices(seen: dict[str, Any]) -> None:
    for notice in ("forget name", "expire name", "forget attributes", "forget pages", "store", "delete"):
        assert seen[notice] == ["told", []], notice
    for question in ("stat after it", "stat after that"):
        assert seen[question] == [2, ["LOOKUP"]], question
    assert seen["stat without them"] == [2, ["GETATTR"]]
    assert seen["read as before"] == [True, []]
    assert seen["read anew"] == [True, []]
    assert seen["read stored"] == [True, []]
    assert seen["stat deleted"] == [4, ["LOOKUP"]]
    assert seen["prune"][0] in ("told", "EINVAL")


def test_a_new_epoch_makes_all_names_stale(seen: dict[str, Any]) -> None:
    if seen["kernel"] < INC_EPOCH_MINOR:
        assert seen["epoch"][0] == "EINVAL"
    else:
        assert seen["epoch"] == ["told", []]
        assert seen["stat in it"] == [2, ["LOOKUP"]]
