"""Whose mounts `cvmfs-py umount` ends: one's own, and those of others only when root names their mountpoint."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_py.errors import MountError
from cvmfs_py.mount.ending import Ending, end_mount
from cvmfs_py.mount.process_id import ProcessId, open_process
from cvmfs_py.mount.registry import ListedMount, MountRecord, MountState
from tests.simulator.command import PROGRAM, open_ways

TOP = Path(__file__).parents[2]
USER = 54321  # without an account
OTHER = 54322
needs_mounts = pytest.mark.needs("mounting")


def run_with_mounts(directory: Path, script: str) -> list[str]:
    """What a shell script prints that has mounts of root at `own` and `more`, and of others at `users` and `others`.

    `umount` tells code and messages, `alive` what is still mounted; `start MOUNTPOINT UID` makes one more mount.
    Records of this machine's real mounts are hidden.
    """
    python = shlex.quote(sys.executable)
    for name in ("own", "more", "users", "others", "hidden"):
        (directory / name).mkdir()
    functions = f"""
        mount -t tmpfs tmpfs /run
        mkdir -m 711 /run/user
        {open_ways(Path("/run/ways"))}
        for each in /tmp/cvmfs-py-[0-9]*; do
            ! [ -d "$each" ] || mount -t tmpfs -o mode=755,uid=$(stat -c %u "$each") tmpfs "$each"
        done
        for uid in {USER} {OTHER}; do mkdir -p -m 700 /run/user/$uid/cvmfs-py; chown -R $uid /run/user/$uid; done
        start() {{
            mkfifo out; XDG_RUNTIME_DIR=/run/user/$2 {python} -m tests.mount.owned_worker "$@" >out & daemon=$!
            read answer <out; rm out
        }}
        umount_it() {{
            code=0; $as_user {shlex.join(PROGRAM)} umount "$@" 2>messages || code=$?
            echo "$code $(wc -l <messages)"; cat messages
        }}
        alive() {{ sed -n "s|.* $PWD/\\([a-z]*\\) .*|\\1|p" /proc/self/mountinfo | tr '\\n' ' '; echo; }}
        as_user=; cd {shlex.quote(str(directory))}
        start $PWD/own 0; start $PWD/more 0; start $PWD/users {USER}; start $PWD/others {OTHER}
    """
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "/bin/sh", "-ec", functions + script],
        cwd=TOP,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@needs_mounts
def test_all_are_those_of_ones_own(tmp_path: Path) -> None:
    output = run_with_mounts(tmp_path, "umount_it --all; alive")
    assert output[0] == "0 2"
    assert sorted(output[1:3]) == [
        f"cvmfs-py umount: {tmp_path}/{name} (test.example.org) of user {uid} is left alone;"
        f" to end it: cvmfs-py umount {tmp_path}/{name}"
        for name, uid in (("others", OTHER), ("users", USER))
    ]
    assert output[3:] == ["users others "]


@needs_mounts
def test_a_name_means_ones_own(tmp_path: Path) -> None:
    output = run_with_mounts(tmp_path, "umount_it test.example.org; alive; umount_it test.example.org; alive")
    assert (output[0], output[3]) == ("0 2", "users others ")
    code, message, alive = output[4:]
    assert (code, alive) == ("3 1", "users others ")
    assert "of user 54321 is left alone" in message
    assert "of user 54322 is left alone" in message


@needs_mounts
def test_a_name_means_what_follows_and_a_tag_that_snapshot(tmp_path: Path) -> None:
    output = run_with_mounts(
        tmp_path,
        """
        umount_it $PWD/own $PWD/more $PWD/users $PWD/others; start $PWD/own 0; start $PWD/hidden 0 v1
        umount_it test.example.org@v2; umount_it test.example.org; alive
        umount_it test.example.org; umount_it test.example.org@v1; alive""",
    )
    own, pinned = f"test.example.org at {tmp_path}/own", f"test.example.org@v1 at {tmp_path}/hidden"
    command = "is left alone: cvmfs-py umount"
    assert output == [
        "0 0",
        "3 1",
        f"cvmfs-py umount: test.example.org@v2 is not mounted; {pinned}, {own} {command} {tmp_path}/hidden",
        "0 0",
        "hidden ",
        "3 1",
        f"cvmfs-py umount: test.example.org is not mounted; {pinned} {command} {tmp_path}/hidden",
        "0 0",
        "",
    ]


@needs_mounts
def test_root_ends_a_mount_of_others_by_its_mountpoint(tmp_path: Path) -> None:
    output = run_with_mounts(tmp_path, "umount_it $PWD/users; alive; umount_it others own; alive")
    assert output == ["0 0", "own more others ", "0 0", "more "]


@needs_mounts
def test_users_end_nothing_of_others(tmp_path: Path) -> None:
    output = run_with_mounts(
        tmp_path,
        f"""
        as_user="setpriv --reuid={USER} --regid={USER} --clear-groups env XDG_RUNTIME_DIR=/run/user/{USER}"
        umount_it $PWD/own; alive""",
    )
    code, message, alive = output
    assert (code, alive) == ("3 1", "own more users others ")
    assert message.endswith(f"{tmp_path}/own (test.example.org) of user root is left alone; only root can end it")


@needs_mounts
def test_what_is_in_another_mount_namespace(tmp_path: Path) -> None:
    """One's own daemon is asked to end; that of somebody else is left alone, and how to end it is told."""
    output = run_with_mounts(
        tmp_path,
        f"""
        inside() {{ XDG_RUNTIME_DIR=/run/user/$1 unshare -m {shlex.quote(sys.executable)} \\
            -m tests.mount.owned_worker $PWD/hidden $1 >out & hidden=$!; read answer <out; }}
        mkfifo out; inside {USER}; umount_it $PWD/hidden; echo $hidden; kill -0 $hidden; kill $hidden; wait $hidden
        inside 0; umount_it $PWD/hidden; wait $hidden && echo ended""",
    )
    code, message, pid = output[:3]
    assert code == "3 1"
    assert f"of user {USER} is left alone; it is in another namespace, to end it: kill {pid}" in message
    assert output[3:] == ["0 0", "ended"]


@needs_mounts
def test_what_is_in_another_process_namespace(tmp_path: Path) -> None:
    """Its number means something else here, or nothing."""
    output = run_with_mounts(
        tmp_path,
        f"""
        mkfifo out; unshare -m -p -f --mount-proc {shlex.quote(sys.executable)} \\
            -m tests.mount.owned_worker $PWD/hidden 0 >out & hidden=$!; read answer <out
        umount_it $PWD/hidden; kill -0 $hidden; kill $(pgrep -P $hidden); wait $hidden""",
    )
    assert output[0] == "3 1"
    assert f"{tmp_path}/hidden is left alone: it is in another namespace, and its daemon, pid 1 there" in output[1]


def listed(process: ProcessId, user_id: int) -> ListedMount:
    record = MountRecord(
        fqrn="test.example.org",
        mountpoint=b"/nowhere/at/all",
        process=process,
        started_at_s=1.5,
        revision=7,
        root_hash="ab" * 20,
        device="0:999999",
    )
    return ListedMount(record, MountState.ELSEWHERE, user_id)


def test_a_signal_reaches_the_daemon_or_nobody() -> None:
    uid = os.geteuid()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        process = ProcessId.of(bystander.pid)
        assert process is not None
        for wrong, owner in (
            (replace(process, start_ticks=process.start_ticks - 1), uid),
            (replace(process, namespace="pid:[1]"), uid),
            (replace(process, boot_id="another"), uid),
            (process, uid + 1),  # the record of somebody who would like root to end it
        ):
            with pytest.raises(MountError, match="is left alone"):
                end_mount(listed(wrong, owner))
            assert open_process(wrong, owner) is None
            assert bystander.poll() is None
        assert end_mount(listed(process, uid)) is Ending.DONE
        assert bystander.wait() == -15
    finally:
        bystander.kill()
        bystander.wait()
