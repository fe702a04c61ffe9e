"""Which mounts `cvmfs-py umount` means: of others only what is named by its place."""

from __future__ import annotations

import os

import pytest

from cvmfs_py.cli.umount import choose
from cvmfs_py.errors import MountError
from cvmfs_py.mount.process_id import ProcessId
from cvmfs_py.mount.registry import ListedMount, MountRecord, MountState

OWN, OTHER = 0, 1000


def mount(fqrn: str, place: str, user_id: int) -> ListedMount:
    process = ProcessId(os.getpid(), hash(place) & 0xFFFF, "boot", "pid:[1]")
    record = MountRecord(
        fqrn=fqrn, mountpoint=place.encode(), process=process, started_at_s=0.0, revision=1, root_hash=""
    )
    return ListedMount(record, MountState.MOUNTED, user_id)


OWN_A = mount("a.test.org", "/mnt/a", OWN)
OTHER_A = mount("a.test.org", "/mnt/other-a", OTHER)
OTHER_B = mount("b.test.org", "/mnt/other-b", OTHER)
MOUNTS = (OWN_A, OTHER_A, OTHER_B)


def test_the_name_of_a_repository_means_ones_own_mounts() -> None:
    assert choose(["a.test.org"], MOUNTS, OWN) == [OWN_A]
    assert choose(["a.test.org"], MOUNTS, OTHER) == [OTHER_A]


def test_a_place_means_whatever_is_there() -> None:
    assert choose(["/mnt/other-b", "/mnt/a"], MOUNTS, OWN) == [OTHER_B, OWN_A]
    assert choose(["/mnt/a", "a.test.org", "/mnt/a/"], MOUNTS, OWN) == [OWN_A]


def test_what_only_others_have_mounted_is_told_with_its_place() -> None:
    with pytest.raises(MountError, match="by others only; name the mountpoint to end that: /mnt/other-b"):
        choose(["b.test.org"], MOUNTS, OWN)


def test_what_nobody_has_mounted_is_refused() -> None:
    with pytest.raises(MountError, match=r"c\.test\.org is not mounted by cvmfs-py"):
        choose(["c.test.org"], MOUNTS, OWN)
