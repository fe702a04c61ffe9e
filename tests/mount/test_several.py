"""Several repositories, each at a place of its own, served by one process: none of them minds what the others do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse import syscalls
from tests.simulator.command import ROOT
from tests.simulator.publisher import OwnRepository, write_tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting")
NAMES = ("one", "two", "three")


def test_each_is_served_until_it_is_unmounted(tmp_path: Path) -> None:
    mounts = {}
    for name in NAMES:
        fqrn = f"{name}.test.org"
        (tmp_path / name).mkdir()
        own = OwnRepository(tmp_path / name, fqrn)
        write_tree(tmp_path / f"tree-{name}", {f"sub/{number}": f"{name} {number}".encode() for number in range(30)})
        own.publish_directory(tmp_path / f"tree-{name}")
        (tmp_path / f"mnt-{name}").mkdir()
        place = str(tmp_path / f"mnt-{name}")
        mounts[fqrn] = (f"file://{own.storage}", str(own.place.public_key_file), str(tmp_path / "cache"), place)
    (tmp_path / "mounts.json").write_text(json.dumps(mounts))
    words = [sys.executable, "-m", "tests.mount.several", str(tmp_path / "mounts.json")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = {process.stdout.readline().split()[0].decode() for _ in NAMES}
        assert ready == set(mounts)
        for left in range(len(NAMES)):
            for name in NAMES[left:]:
                top = tmp_path / f"mnt-{name}" / "sub"
                found = {each: (top / each).read_bytes() for each in os.listdir(top)}
                assert found == {str(number): f"{name} {number}".encode() for number in range(30)}
            syscalls.unmount(str(tmp_path / f"mnt-{NAMES[left]}"), lazily=False)
            assert process.stdout.readline() == f"{NAMES[left]}.test.org has ended\n".encode()
        assert process.wait(30) == 0
    finally:
        for name in NAMES:
            with suppress(OSError):
                syscalls.unmount(str(tmp_path / f"mnt-{name}"), lazily=True)
        with process:
            process.kill()
