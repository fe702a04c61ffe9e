"""`cvmfs-py list` and `doctor` see what no daemon tells of: broken mounts, silent ones, those of other programs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_py.fuse.mountinfo import parse_mountinfo
from cvmfs_py.mount.unrecorded import find_unrecorded
from tests.simulator.command import PROGRAM

TOP = Path(__file__).parents[2]
FQRN = "test.example.org"
# A process that mounts at the given place and ends at the end of its input; nothing ever answers.
MOUNTER = """
import ctypes, os, sys
place, kind, source = (word.encode() for word in sys.argv[1:])
fd = os.open("/dev/fuse", os.O_RDWR)
data = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
assert ctypes.CDLL(None).mount(source, place, kind, ctypes.c_ulong(0), data) == 0
sys.stdin.read()
"""


@pytest.mark.needs("mounting")
def test_broken_silent_and_foreign_mounts(tmp_path: Path) -> None:
    program = shlex.join(PROGRAM)
    script = f"""
        mount -t tmpfs tmpfs /run; cd {shlex.quote(str(tmp_path))}
        mounter() {{ {shlex.quote(sys.executable)} -c {shlex.quote(MOUNTER)} "$@"; }}
        mkdir ours reference silent other; mkfifo in
        mounter $PWD/ours fuse.cvmfs-py {FQRN} </dev/null
        mounter $PWD/reference fuse cvmfs2 </dev/null
        mounter $PWD/other fuse.sshfs somewhere: </dev/null
        mounter $PWD/silent fuse cvmfs2 <in & exec 3>in
        until grep -q $PWD/silent /proc/self/mountinfo; do :; done
        {program} list --json
        {program} doctor --json -o CVMFS_CONFIG_REPOSITORY= >doctor.json
        {program} umount $PWD/ours
        ! {program} umount $PWD/reference 2>refused
        {program} list | wc -l
        exec 3>&-; wait
    """
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "/bin/sh", "-ec", script],
        cwd=TOP,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed, count = done.stdout.rsplit("]", 1)
    rows = {Path(row["mountpoint"]).name: row for row in json.loads(f"{listed}]") if str(tmp_path) in row["mountpoint"]}
    assert {name: (row["program"], row["state"]) for name, row in rows.items()} == {
        "ours": ("cvmfs-py", "broken"),
        "reference": ("the C++ client", "broken"),
        "silent": ("the C++ client", "does not answer"),
    }
    assert rows["ours"]["fqrn"] == FQRN
    assert int(count) >= 3
    checks = {check["name"]: check for check in json.loads((tmp_path / "doctor.json").read_text())["checks"]}
    found = checks["mounts"]
    assert found["outcome"] == "warning"
    for text in (f"the daemon of {FQRN} at {tmp_path}/ours is gone", f"{tmp_path}/silent, and does not answer"):
        assert text in found["found"]
    for text in (f"cvmfs-py umount {tmp_path}/ours", f"umount -l {tmp_path}/silent"):
        assert text in found["cure"]
    refused = (tmp_path / "refused").read_text()
    assert refused == (
        f"cvmfs-py umount: {tmp_path}/reference is mounted by the C++ client and left alone; to end it:"
        f" umount -l {tmp_path}/reference\n"
    )


def test_whose_are_shown() -> None:
    lines = [
        "1 0 0:1 / / rw - ext4 /dev/root rw",
        "2 1 0:2 / /cvmfs rw - tmpfs tmpfs rw",
        "3 2 0:3 / /cvmfs/a.b rw - fuse.squashfuse image rw,user_id=0",
        "4 2 0:4 / /cvmfs/c.d rw - autofs auto rw",
        "5 1 0:5 / /tmp/nowhere/x rw - fuse.cvmfs-py e.f rw,user_id=1000",
        "6 1 0:6 / /tmp/nowhere/y rw - fuse.cvmfs-py cvmfs-py rw,user_id=1001",
        "7 1 0:7 / /tmp/nowhere/z rw - fuse.sshfs s: rw,user_id=1000",
    ]
    mounts = parse_mountinfo("\n".join(lines).encode())
    shown = {
        user_id: [(each.fqrn, each.program) for each in find_unrecorded(mounts, [], user_id)] for user_id in (0, 1000)
    }
    foreign, ours, all_of_other = ("a.b", "another program (fuse.squashfuse)"), ("e.f", "cvmfs-py"), ("*", "cvmfs-py")
    assert shown == {0: [foreign, ours, all_of_other], 1000: [foreign, ours]}
    assert [each.fqrn for each in find_unrecorded(mounts, [b"/cvmfs/a.b"], 1000)] == ["e.f"]
