"""Mounts and their descriptors come to be as they should, as root and as an ordinary user, and go away again."""

from __future__ import annotations

import os
import re
import signal
import stat
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import device, fusermount, handover, mountpoint
from cvmfs_py.fuse.handover import MountOptions, Way, obtain
from cvmfs_py.fuse.mountinfo import mount_at, parse_mountinfo
from cvmfs_py.fuse.mountpoint import Life, probe
from cvmfs_py.fuse.privileges import Capability, load_privileges, parse_privileges
from tests.mount.limits import gain_nothing
from tests.mount.people import USER, directory_of, end, run_as, start_server
from tests.mount.tiny_fuse import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_ROOT = os.geteuid() == 0
OPTIONS = MountOptions("sft.cern.ch")
NAMELESS = 54325
PATIENCE_S = 0.3  # in place of seconds, where the answer never comes

pytestmark = pytest.mark.needs("fuse")
needs_root = pytest.mark.needs("mounting", "other users")
needs_fusermount = pytest.mark.needs("user mounts")


@pytest.fixture(
    params=[
        pytest.param(0, marks=needs_root, id="root"),
        pytest.param(USER if IS_ROOT else os.geteuid(), marks=needs_fusermount, id="user"),
    ]
)
def uid(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def place(uid: int) -> Iterator[str]:
    with directory_of(uid) as path:
        yield path


@pytest.fixture
def user_place() -> Iterator[str]:
    with directory_of(USER if IS_ROOT else os.geteuid()) as path:
        yield path


def reason_of(error: pytest.ExceptionInfo[MountError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_mount_is_what_was_asked_for(uid: int, place: str) -> None:
    def work() -> None:
        made = obtain(place, MountOptions("repo with, odd\\name", max_read_bytes=65536))
        assert made.way is (Way.DIRECT if uid == 0 else Way.HELPED)
        server = start_server(made.fd)
        mount = mount_at(place)
        assert mount is not None
        assert (mount.kind, mount.source, mount.device) == ("fuse.cvmfs-py", "repo with, odd\\name", made.device)
        assert mount.options >= {"ro", "nodev", "nosuid"}
        wanted = {f"user_id={uid}", f"group_id={uid}", "default_permissions", "max_read=65536"}
        assert mount.file_system_options >= wanted
        assert "allow_other" not in mount.file_system_options
        with open(f"{place}/hello", "rb") as file:
            assert file.read() == FILES[b"hello"][2]
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(f"{place}/new")
        mountpoint.unmount(place)
        os.waitpid(server, 0)
        assert mount_at(place) is None

    run_as(uid, work)


def test_the_last_directory_is_made_and_stays(uid: int, place: str) -> None:
    def work() -> None:
        new = f"{place}/new"
        os.umask(0o077)
        taken = obtain(new, OPTIONS)
        assert taken.made == (new,)
        server = start_server(taken.fd)
        mountpoint.unmount(new)
        os.waitpid(server, 0)
        assert stat.S_IMODE(os.stat(new).st_mode) == 0o755
        os.rmdir(new)
        with pytest.raises(MountError, match=f"nor does {re.escape(new)}; make it: mkdir -p"):
            obtain(f"{new}/deep", OPTIONS)
        with pytest.raises(MountError):
            obtain(new, MountOptions("a\nb" * 4000))  # the kernel refuses it
        assert not os.path.exists(new)

    run_as(uid, work)


@needs_root
@pytest.mark.parametrize(("allow_other", "suid"), [(True, False), (False, True)])
def test_root_decides_about_others_and_setuid(allow_other: bool, suid: bool, user_place: str) -> None:
    def read() -> bytes:
        with open(f"{user_place}/hello", "rb") as file:
            return file.read()

    def work() -> None:
        made = obtain(user_place, MountOptions("a.b", allow_other=allow_other, suid=suid))
        server = start_server(made.fd)
        mount = mount_at(user_place)
        assert mount is not None
        assert ("nosuid" in mount.options) is not suid
        if allow_other:
            assert run_as(USER, read) == FILES[b"hello"][2]
        else:
            with pytest.raises(PermissionError):
                run_as(USER, read)
        mountpoint.unmount(user_place)
        os.waitpid(server, 0)

    run_as(0, work)


def test_unmounting_ends_the_daemon_even_while_files_are_open(uid: int, place: str) -> None:
    def work() -> None:
        made = obtain(place, OPTIONS)
        server = start_server(os.dup(made.fd))
        file = os.open(f"{place}/hello", os.O_RDONLY)
        made.unmount()
        assert mount_at(place) is None
        assert os.read(file, 100) == FILES[b"hello"][2]  # lazily: who has it open keeps it
        os.close(file)
        os.waitpid(server, 0)
        made.unmount()  # a second time does no harm

    run_as(uid, work)


def test_somebody_elses_mount_is_left_alone(uid: int, place: str) -> None:
    """The kernel gives the number of the device again at once."""

    def work() -> None:
        first = obtain(place, OPTIONS)
        mountpoint.unmount(place)
        second = obtain(place, OPTIONS)
        server = start_server(os.dup(second.fd))
        assert first.device == second.device
        first.unmount()
        assert probe(place) is Life.ALIVE
        second.unmount()
        os.waitpid(server, 0)

    run_as(uid, work)


def test_a_dead_mount_is_replaced(uid: int, place: str) -> None:
    def crash() -> None:
        made = obtain(place, OPTIONS)
        server = start_server(made.fd)
        assert os.stat(place).st_ino == 1
        end(server)
        assert probe(place) is Life.DEAD
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(place)

    def work() -> None:
        crash()
        crash()
        server = start_server(obtain(place, OPTIONS).fd)
        assert os.path.exists(f"{place}/hello")
        mountpoint.unmount(place)
        assert mount_at(place) is None
        os.waitpid(server, 0)

    run_as(uid, work)


def test_a_living_mount_is_not_mounted_over(uid: int, place: str) -> None:
    def work() -> None:
        server = start_server(obtain(place, OPTIONS).fd)
        try:
            obtain(place, MountOptions("other.cern.ch"))
        finally:
            mountpoint.unmount(place)
            os.waitpid(server, 0)

    with pytest.raises(MountError) as caught:
        run_as(uid, work)
    program = "umount" if uid == 0 else "fusermount3 -u"
    assert f"sft.cern.ch is mounted at {place} already" in reason_of(caught)
    assert reason_of(caught).endswith(f"{program} '{place}'")


def test_a_stopped_daemon_holds_nobody_up(uid: int, place: str) -> None:
    def work() -> None:
        mountpoint._DEADLINE_S = PATIENCE_S
        server = start_server(obtain(place, OPTIONS).fd)
        assert os.path.exists(place)
        os.kill(server, signal.SIGSTOP)
        try:
            obtain(place, OPTIONS)
        finally:
            end(server)
            mountpoint.unmount(place, lazily=True)

    with pytest.raises(MountError) as caught:
        run_as(uid, work)
    assert "does not answer" in reason_of(caught)


def test_where_no_mount_can_be(uid: int, place: str) -> None:
    def reason(path: str) -> str:
        with pytest.raises(MountError) as caught:
            run_as(uid, lambda: obtain(path, OPTIONS))
        return reason_of(caught)

    with open(f"{place}/file", "w"):
        pass
    os.mkdir(f"{place}/closed", 0)
    try:
        assert f"mkdir -p {place}/missing/deep" in reason(f"{place}/missing/deep")
        assert "is not a directory" in reason(f"{place}/file")
        assert "Not a directory" in reason(f"{place}/file/below")
        if uid != 0:
            assert "Permission denied" in reason(f"{place}/closed/below")
    finally:
        os.chmod(f"{place}/closed", 0o700)  # who is not root cannot remove it otherwise


def test_a_directory_with_content_and_a_link_to_it_will_do(uid: int, place: str) -> None:
    os.mkdir(f"{place}/full")
    os.chown(f"{place}/full", uid, uid)
    with open(f"{place}/full/file", "w"):
        pass
    os.symlink("full", f"{place}/link")

    def work() -> None:
        made = obtain(f"{place}/link", OPTIONS)
        server = start_server(os.dup(made.fd))
        assert made.mountpoint == f"{place}/full"
        assert os.path.exists(f"{place}/full/hello")
        made.unmount()
        os.waitpid(server, 0)
        assert os.listdir(f"{place}/link") == ["file"]

    run_as(uid, work)


def test_a_given_descriptor_is_used_and_not_unmounted(uid: int, place: str) -> None:
    def work() -> None:
        made = obtain(place, OPTIONS)
        given = obtain(f"/dev/fd/{made.fd}", OPTIONS)
        assert (given.fd, given.way, given.mountpoint) == (made.fd, Way.GIVEN, f"/dev/fd/{made.fd}")
        server = start_server(os.dup(given.fd))
        given.unmount()
        assert os.path.exists(f"{place}/hello")
        made.unmount()
        os.waitpid(server, 0)

    run_as(uid, work)


def test_what_is_no_descriptor_of_a_mount_is_refused(uid: int) -> None:
    def work(kind: str) -> None:
        if kind == "closed":
            obtain("/dev/fd/987", OPTIONS)
        elif kind == "file":
            obtain(f"/dev/fd/{os.open('/dev/null', os.O_RDWR)}", OPTIONS)
        else:
            obtain(f"/dev/fd/{device.open_device()}", OPTIONS)

    for kind, words in [
        ("closed", "no open descriptor 987"),
        ("file", "not one of /dev/fuse"),
        ("new", "nothing is mo"),
    ]:
        with pytest.raises(MountError, match=words) as caught:
            run_as(uid, partial(work, kind))
        reason_of(caught)


@pytest.mark.parametrize(
    ("place", "may_mount", "way"),
    [
        ("/dev/fd/3", True, Way.GIVEN),
        ("/dev/fd/3", False, Way.GIVEN),
        ("/dev/fd/3/", True, Way.DIRECT),
        ("/dev/fd/x", False, Way.HELPED),
        ("/cvmfs/a.b", True, Way.DIRECT),
        ("/cvmfs/a.b", False, Way.HELPED),
    ],
)
def test_the_way_follows_from_place_and_rights(place: str, may_mount: bool, way: Way) -> None:
    assert handover.choose_way(place, may_mount=may_mount) is way


# --- what users are told about the device


def test_the_device_is_missing(tmp_path: object) -> None:
    with pytest.raises(MountError, match="--device /dev/fuse") as caught:
        device.open_device(f"{tmp_path}/fuse")
    assert "No such file" in reason_of(caught)


def test_another_device() -> None:
    with pytest.raises(MountError, match="is not the FUSE device"):
        device.open_device("/dev/null")


@pytest.mark.needs("device files")
@pytest.mark.parametrize(
    ("mode", "minor", "words"),
    [(0o600, 229, r"its mode is 600; as root: chmod 666"), (0o666, 251, "modprobe fuse")],
)
def test_a_device_that_cannot_be_opened(mode: int, minor: int, words: str, user_place: str) -> None:
    path = f"{user_place}/fuse"
    os.mknod(path, stat.S_IFCHR, os.makedev(10, minor))
    os.chmod(path, mode)
    with pytest.raises(MountError, match=words) as caught:
        run_as(USER, lambda: device.open_device(path))
    reason_of(caught)


# --- fusermount3


@needs_fusermount
@needs_root
def test_what_fusermount_refuses_comes_with_a_cure(user_place: str) -> None:
    with open("/etc/fuse.conf") as file:
        if re.search(r"^user_allow_other", file.read(), re.MULTILINE):
            pytest.skip("/etc/fuse.conf allows allow_other here")
    with pytest.raises(MountError, match=r"as root add the line user_allow_other") as caught:
        run_as(USER, lambda: obtain(user_place, MountOptions("a.b", allow_other=True)))
    reason_of(caught)
    with pytest.raises(MountError, match="mount on a directory that you may write to") as caught:
        run_as(USER, lambda: obtain("/usr", OPTIONS))
    reason_of(caught)


@needs_fusermount
@needs_root
def test_a_user_without_a_name(user_place: str) -> None:
    os.chown(user_place, NAMELESS, NAMELESS)
    with pytest.raises(MountError, match="could not determine username; this user has no name here") as caught:
        run_as(NAMELESS, lambda: obtain(user_place, OPTIONS))
    assert "cvmfs-py exec" in reason_of(caught)


@needs_fusermount
def test_without_new_privileges_setuid_programs_fail(user_place: str) -> None:
    def work() -> None:
        gain_nothing()
        obtain(user_place, OPTIONS)

    with pytest.raises(MountError, match="no_new_privs") as caught:
        run_as(USER if IS_ROOT else os.geteuid(), work)
    assert "cvmfs-py exec" in reason_of(caught)


def test_without_the_program_users_are_told_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount, "NAMES", ("fusermount-that-is-nowhere",))
    could_mount = load_privileges().may_gain(Capability.SYS_ADMIN)
    with pytest.raises(MountError, match="install the package fuse3" if could_mount else "use cvmfs-py exec"):
        fusermount.mount("/tmp", [])


def test_the_setuid_program_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    program = fusermount.find_program()
    if program is None or not fusermount.is_setuid_root(program):
        pytest.skip("needs fusermount3 with setuid root")
    copy = f"{tmp_path}/fusermount3"
    with open(copy, "w") as file:
        file.write("#!/bin/sh\nexit 1\n")
    os.chmod(copy, 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert fusermount.find_program() == program


@needs_fusermount
@needs_root
def test_automatic_unmounting_outlives_the_daemon() -> None:
    """As root: fusermount3 3.14 fails to see that a mount of a user, which root may not look into, is dead."""

    def work() -> None:
        made = handover.mount_with_help(place, MountOptions("a.b", auto_unmount=True))
        assert made.lifeline is not None
        server = start_server(made.fd)
        assert os.path.exists(f"{place}/hello")
        end(server)
        assert probe(place) is Life.DEAD
        made.lifeline.close()
        assert mount_at(place) is None

    with directory_of(0) as place:
        run_as(0, work)


# --- reading what the kernel says

MOUNTINFO = rb"""
21 26 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
90 26 0:47 / /a\040b\011c\012d\134e ro,nosuid master:1 shared:2 - fuse.cvmfs-py sft.cern.ch ro,user_id=0
91 26 8:1 /inner /plain rw - ext4 /dev/sda1 rw
this line is broken
92 x 8:1 / /odd rw - ext4 /dev/sda1 rw
"""


def test_mountinfo_is_read_with_its_escapes() -> None:
    proc, ours, plain = parse_mountinfo(MOUNTINFO)
    assert (ours.mountpoint, ours.kind, ours.source) == ("/a b\tc\nd\\e", "fuse.cvmfs-py", "sft.cern.ch")
    assert (ours.options, ours.file_system_options) == ({"ro", "nosuid"}, {"ro", "user_id=0"})
    assert (ours.is_fuse, proc.is_fuse) == (True, False)
    assert (plain.mount_id, plain.parent_id, plain.device, plain.root) == (91, 26, "8:1", "/inner")


def test_what_is_no_mountpoint_has_no_mount(tmp_path: object) -> None:
    assert mount_at(str(tmp_path)) is None
    assert mount_at(f"{tmp_path}/missing") is None
    top = mount_at("/")
    assert top is not None
    assert top.mountpoint == "/"


def test_privileges_are_read() -> None:
    held = parse_privileges("Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nCapEff:\t00000000002000c0\n")
    assert (held.has_no_new_privileges, held.is_filtered) == (True, True)
    assert held.include(Capability.SYS_ADMIN, Capability.SETUID, Capability.SETGID)
    assert not held.include(Capability.SYS_ADMIN, Capability.SETFCAP)
