"""A storage on a full disk: one line and exit code 5, the served revision stays, and room is all that is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import PROGRAM, in_mount_namespace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("mount namespaces")

# All steps run in one mount namespace, with which the disk goes.
STEPS = """
import json, os, subprocess, sys
from pathlib import Path

disk, source, *program = sys.argv[1:]
disk, source = Path(disk), Path(source)
storage, keys = disk / "storage", disk / "storage.keys"
told = {}


def run(step, *arguments):
    done = subprocess.run([*program, "repo", *arguments, "-q"], capture_output=True, text=True)
    left = [item.name for item in (storage / "data" / "txn").iterdir()]
    mark = keys / "full.test.org.writing"
    told[step] = (done.returncode, done.stderr.splitlines(), left, mark.exists() and not mark.read_bytes())


subprocess.run([*program, "repo", "init", "full.test.org", "--storage", storage], check=True, capture_output=True)
(source / "a").write_text("one")
run("first", "publish", storage, "--from", source)
(source / "large").write_bytes(os.urandom(8 << 20))
run("too large", "publish", storage, "--from", source)
run("check after it", "check", "--data", storage)
(source / "large").unlink()
(source / "c").write_text("three")
run("small again", "publish", storage, "--from", source)
with open(disk / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
(source / "b").write_text("two")
run("no room at all", "publish", storage, "--from", source)
run("check of it", "check", "--data", storage)
(disk / "filler").unlink()
run("room again", "publish", storage, "--from", source)
run("last check", "check", "--data", storage)
print(json.dumps(told))
"""


def test_a_full_disk_costs_nothing_but_the_publication(tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", tmp_path / "source"
    disk.mkdir()
    source.mkdir()
    wrapper = in_mount_namespace(f"mount -t tmpfs -o size=4m tmpfs {disk}")
    command = [*wrapper, sys.executable, "-c", STEPS, disk, source, *PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for step in ("too large", "no room at all"):
        code, errors, left, has_empty_mark = told.pop(step)
        assert (code, len(errors), left, has_empty_mark) == (5, 1, [], False), (step, errors)
        assert "No space left on device" in errors[0]
    assert told == {step: [0, [], [], False] for step in told}
    assert len(told) == 6
