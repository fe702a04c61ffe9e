"""A test that fails while its processes run fails alone: they are ended, and nothing warns in the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.house.sources import TOP

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
import gc, os, subprocess, time

import pytest

@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()

def test_that_fails(server):
    reader = subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE)
    if (forked := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    with open({place!r}, "w") as file:
        print(reader.pid, forked, file=file)
    assert False, "as it should"

def test_that_comes_after(server):
    gc.collect()
    assert server.poll() is None
"""


def test_a_failure_takes_no_other_with_it(tmp_path: Path) -> None:
    place = tmp_path / "pids"
    (tmp_path / "test_it.py").write_text(TEXT.format(place=str(place)))
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    said = tmp_path / "said"  # what is left behind would hold a pipe open
    with said.open("w") as file:
        subprocess.run([*command, tmp_path], cwd=TOP, stdout=file, stderr=file, check=False)
    left = [int(pid) for pid in place.read_text().split() if os.path.exists(f"/proc/{pid}")]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert "1 failed, 1 passed" in said.read_text()
    assert not left
