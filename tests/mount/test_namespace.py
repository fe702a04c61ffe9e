"""Private namespaces: what is seen inside and outside, and what users are told where they are refused."""

from __future__ import annotations

import errno
import os
import platform
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.mountinfo import load_mounts, mount_at
from cvmfs_py.fuse.privileges import Capability, load_privileges
from cvmfs_py.fuse.syscalls import MountFlag, NamespaceFlag
from cvmfs_py.mount.namespace import enter_private_mounts, may_have_own_processes
from cvmfs_py.mount.private_root import CVMFS, provide_places
from tests.mount.limits import OF_CONTAINERS, keep_capabilities, refuse_unshare
from tests.mount.people import USER, directory_of, run_as

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.needs("other users")
pytestmark = pytest.mark.needs("mount namespaces")


@pytest.fixture(
    params=[pytest.param(0, marks=needs_root, id="root"), pytest.param(USER if IS_ROOT else os.geteuid(), id="user")]
)
def uid(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def place(uid: int) -> Iterator[str]:
    with directory_of(uid) as path:
        yield path


def refused(uid: int, function: Callable[[], object]) -> str:
    with pytest.raises(MountError) as caught:
        run_as(uid, function)
    text = str(caught.value)
    assert "\n" not in text
    return text


def enter_with_places(*names: str) -> None:
    enter_private_mounts()
    provide_places(names)


def test_everybody_stays_who_they_are(uid: int) -> None:
    def work() -> None:
        before = os.getresuid(), os.getresgid(), os.getgroups()
        enter_with_places("a.cern.ch", "b.cern.ch")
        assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
        assert load_privileges().include(Capability.SYS_ADMIN)
        assert sorted(os.listdir(CVMFS)) == ["a.cern.ch", "b.cern.ch"]
        assert os.listdir(f"{CVMFS}/a.cern.ch") == []

    had_cvmfs = os.path.exists(CVMFS)
    run_as(uid, work)
    assert not [mount for mount in load_mounts() if mount.source == "cvmfs-py"]
    assert os.path.exists(CVMFS) is had_cvmfs


def test_the_root_looks_as_before(uid: int, place: str) -> None:
    """What is mounted below it is there, too, and so is what lies in the directory where the new root was made."""

    def seen() -> dict[str, object]:
        found: dict[str, object] = {}
        for item in os.scandir("/"):
            if item.path != CVMFS:
                link = os.readlink(item.path) if item.is_symlink() else None
                status = os.stat(item.path, follow_symlinks=False)
                found[item.name] = (link, status.st_mode, None if link else status.st_ino)
        return found

    def work() -> None:
        enter_private_mounts()
        syscalls.mount("below", place, "tmpfs", MountFlag.NO_SUID)
        with open(f"{place}/file", "w") as file:
            file.write("below")
        before = seen()
        tops = {mount.mountpoint for mount in load_mounts() if mount.mountpoint.count("/") > 1}
        provide_places(["a.cern.ch"])
        assert seen() == before
        with open(f"{place}/file") as file:
            assert file.read() == "below"
        assert {mount.mountpoint for mount in load_mounts()} >= tops
        assert os.path.samefile("/proc/self/root", "/")
        for path in ("/new", f"{CVMFS}/new"):
            with pytest.raises(OSError, match="Read-only"):
                os.mkdir(path)

    run_as(uid, work)


def test_a_cvmfs_that_is_there_is_covered(uid: int) -> None:
    def work() -> None:
        enter_with_places("old.cern.ch")
        root = mount_at("/")
        enter_private_mounts()
        provide_places(["new.cern.ch"])
        assert os.listdir(CVMFS) == ["new.cern.ch"]
        now = mount_at("/")
        assert root is not None
        assert now is not None
        assert now.device == root.device  # the root is not made anew

    run_as(uid, work)


@needs_root
def test_later_mounts_of_the_machine_come_in_and_ours_do_not_go_out(tmp_path: object) -> None:
    top = f"{tmp_path}/shared"
    os.makedirs(f"{top}/late")
    os.makedirs(f"{top}/private")

    def inside(said: int, wait: int) -> None:
        enter_with_places("a.cern.ch")
        syscalls.mount("private", f"{top}/private", "tmpfs", MountFlag.NO_SUID)
        os.write(said, b"1")
        os.read(wait, 1)
        os._exit(0 if mount_at(f"{top}/late") else 1)

    def work() -> None:
        syscalls.unshare(NamespaceFlag.MOUNT)
        syscalls.mount("", "/", "", MountFlag.RECURSIVE | MountFlag.PRIVATE)
        syscalls.mount("shared", top, "tmpfs", MountFlag.NO_SUID)
        syscalls.mount("", top, "", MountFlag(1 << 20))  # MS_SHARED
        os.mkdir(f"{top}/late")
        os.mkdir(f"{top}/private")
        ready, said = os.pipe()
        wait, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                inside(said, wait)
            finally:
                os._exit(2)
        os.read(ready, 1)
        syscalls.mount("late", f"{top}/late", "tmpfs", MountFlag.NO_SUID)
        os.write(go, b"1")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert mount_at(f"{top}/private") is None

    run_as(0, work)


def test_a_process_namespace_can_be_tried(uid: int) -> None:
    def work() -> None:
        enter_private_mounts()
        before = load_mounts()
        assert may_have_own_processes()
        assert load_mounts() == before
        assert int(os.readlink("/proc/self")) == os.getpid()

    run_as(uid, work)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_where_proc_is_partly_hidden_no_new_one_can_be_had(is_hidden: bool) -> None:
    """Container runtimes hide parts."""

    def work() -> bool:
        enter_private_mounts()
        for mount in load_mounts():
            if mount.kind == "proc" and is_hidden:  # one that is whole would do for all
                syscalls.mount("hidden", f"{mount.mountpoint}/sys", "tmpfs", MountFlag.READ_ONLY)
        enter_again()
        return may_have_own_processes()

    def enter_again() -> None:
        """A user namespace of the next level, in which the mount over /proc/sys cannot be removed."""
        uid, gid = os.getuid(), os.getgid()
        syscalls.unshare(NamespaceFlag.USER | NamespaceFlag.MOUNT)
        for name, text in [("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")]:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)

    assert run_as(USER if IS_ROOT else os.geteuid(), work) is not is_hidden


# --- root of a container


@needs_root
def test_root_of_a_container_keeps_all_users() -> None:
    def work() -> None:
        keep_capabilities(*OF_CONTAINERS)
        enter_with_places("a.cern.ch")
        assert os.getresuid() == (0, 0, 0)
        with open("/proc/self/uid_map") as file:
            assert len(file.read().split()) == 3
        os.setgroups([5])
        os.setresuid(4711, 4711, 4711)
        assert os.getuid() == 4711

    run_as(0, work)


@needs_root
def test_root_without_any_rights_is_told_which_one_is_missing() -> None:
    def work() -> None:
        keep_capabilities()
        enter_private_mounts()

    assert "--cap-add SETFCAP" in refused(0, work)


# --- refusals


@needs_root
def test_a_limit_of_user_namespaces_is_named() -> None:
    def work() -> None:
        enter_private_mounts()  # the limit is that of this namespace, which is not the machine's
        syscalls.unshare(NamespaceFlag.USER)
        with open("/proc/self/uid_map", "w") as file:
            file.write("0 0 1")
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        keep_capabilities()
        enter_private_mounts()

    assert "user.max_user_namespaces" in refused(0, work)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="needs to know the number of unshare(2)")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "--security-opt seccomp=unconfined"),
        (errno.ENOSPC, "user.max_user_namespaces"),
        (errno.EINVAL, "the kernel is built without"),
    ],
)
def test_refusals_come_with_a_cure(uid: int, number: int, words: str) -> None:
    def work() -> None:
        refuse_unshare(number)
        enter_private_mounts()

    assert words in refused(uid, work)
    assert os.strerror(number) in refused(uid, work)
