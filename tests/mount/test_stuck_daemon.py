"""Daemons that are stuck: whoever ends them succeeds, and no other command waits for them."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.mount.private_machine import GOOD, private_machine
from tests.simulator.command import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting", "nginx")
STUCK = ("told", "asked")  # their keys are on a file system that does not answer: a daemon reads them on its loop


def test_stuck_daemons_are_ended_and_hold_up_nobody(tmp_path: Path) -> None:
    """Stuck in the kernel and told by a signal, and by umount; stopped; and one that takes no SIGTERM."""
    python = shlex.quote(sys.executable)
    with private_machine(tmp_path) as machine:
        good = "".join(f"{name}={value}\n" for name, value in machine.good.items())
        keys = f"CVMFS_PUBLIC_KEY=\nCVMFS_KEYS_DIR={tmp_path}/keys"
        machine.configure(
            {
                "default.conf": f"CVMFS_PY_CACHE_DIR={tmp_path}/cache\n",
                f"config.d/{GOOD}.conf": good,
                **{f"config.d/{name}.test.org.conf": f"{good}{keys}/{name}\n" for name in STUCK},
            }
        )
        lines = machine.run(
            f"""
            mkdir -m 700 told asked stopped deaf nowhere sick keys /run/cvmfs-py; mkfifo never; exec 9<>never
            for each in {" ".join(STUCK)}; do
                mkdir keys/$each sick/$each; ln -s ../../sick/$each/key keys/$each/key.pub
                {python} -m tests.mount.registry_worker $PWD/nowhere $PWD/sick/$each <&9 >/dev/null 2>&1 &
                until grep -q $PWD/sick/$each /proc/self/mountinfo; do sleep 0.05; done
            done
            (trap '' TERM; exec {python} -m tests.mount.registry_worker /run/cvmfs-py $PWD/deaf <&9 >deaf.ready) &
            {shlex.join(PROGRAM)} mount -f --all $PWD/told >told.said 2>&1 & told=$!
            for each in asked stopped; do client mount --all $PWD/$each >/dev/null; ls $each/{GOOD} >/dev/null; done
            until grep -qs below told.said && [ -s deaf.ready ]; do sleep 0.05; done
            for each in {" ".join(STUCK)}; do
                ls $each/$each.test.org >/dev/null 2>&1 &
                until grep -q fuse_get_req /proc/$(pid $each)/wchan; do sleep 0.05; done
            done
            kill -STOP $(pid stopped)
            echo "list $(client list | grep -c "$PWD/[a-z]*$")"
            export CVMFS_MOUNT_DIR=$PWD/stopped
            CVMFS_CONFIG_REPOSITORY=config.test.org {shlex.join(PROGRAM)} ls {GOOD} >ls.said 2>&1 & ls=$!
            client doctor >doctor.said 2>&1 & doctor=$!
            client mount {GOOD} $PWD/asked >at.said 2>&1 & at=$!
            client mount {GOOD} $PWD/stopped/below >below.said 2>&1 & below=$!
            client mount.cvmfs {GOOD} $PWD/stopped/below >helper.said 2>&1 & helper=$!
            for each in ls doctor at below helper; do
                code=0; eval "wait \\$$each" || code=$?; echo "$each $code $(head -n1 $each.said)"
            done
            kill -TERM $(pid told)
            for each in asked stopped deaf; do
                (code=0; client umount $PWD/$each >$each.ended 2>&1 || code=$?; echo $code >>$each.ended) &
                eval "$each=\\$!"
            done
            code=0; wait $told || code=$?; echo "told $code $(tail -n1 told.said)"
            wait $asked $stopped $deaf
            for each in asked stopped deaf; do echo "$each $(tr '\n' ' ' <$each.ended)"; done
            client list | grep "$PWD/[a-z]*$" || :
            ls /run/cvmfs-py | wc -l; grep -cE " $PWD/(told|asked|stopped|deaf) " /proc/self/mountinfo || :
            grep -h "without it" /var/log/cvmfs-py/*""",
        )
    said = dict(line.split(" ", 1) for line in lines[:10])
    assert said["list"] == "4", lines
    assert said["ls"].split(" ", 1)[0] == "0", lines
    assert said["doctor"].split(" ", 1)[0] == "0", lines
    assert (
        f"whose daemon does not answer within 5 s; wake it, or unmount it with: cvmfs-py umount {tmp_path}/asked"
        in said["at"]
    )
    assert said["at"].startswith("3 "), lines
    below = f"{tmp_path}/stopped/below lies below {tmp_path}/stopped, a mount of cvmfs-py whose daemon does not answer"
    assert said["below"].startswith("3 ")
    assert said["helper"].startswith("1 ")
    assert below in said["below"]
    assert below in said["helper"]
    stuck = "SIGTERM: the event loop does not answer for 5 s; unmounting and ending without it"
    assert said["told"].startswith("5 "), lines
    assert stuck in said["told"], lines
    for name in ("asked", "stopped"):
        assert "did not answer, and has ended when it was told to by SIGTERM 0 " in said[name], lines
    assert "did not answer and did not end when it was told to, and was killed 0 " in said["deaf"], lines
    assert lines[10:12] == ["0", "0"], lines
    assert len(lines) == 13
    assert stuck in lines[12]
