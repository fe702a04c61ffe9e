"""Mounts come up whatever set-up scripts have done to Python and to libraries, and commands get their settings back."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cvmfs_py import __main__ as start
from cvmfs_py.cli import exec as exec_command
from cvmfs_py.fuse import syscalls
from tests.compat.zoo_goldens import FQRN, KEY, make_document_root
from tests.house.sources import TOP

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As after the set-up script of a scientific stack, and with files in the current directory that must not count."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("cache", "catalog", "trio", "json", "logging", "socket", "sitecustomize"):
        (hostile / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    (hostile / "libc.so.6").write_text("no library")
    configuration = {
        "CVMFS_SERVER_URL": f"file://{make_document_root(tmp_path / 'www')}/cvmfs/{FQRN}",
        "CVMFS_PUBLIC_KEY": str(KEY),
        "CVMFS_HTTP_PROXY": "DIRECT",
    }
    (tmp_path / "client.conf").write_text("".join(f"{name}={value}\n" for name, value in configuration.items()))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(hostile),
        "PYTHONHOME": str(hostile / "no-such-place"),
        "PYTHONSTARTUP": str(hostile / "cache.py"),
        "LD_LIBRARY_PATH": f"{hostile}/lib",
    }


def run(tmp_path: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The script as it is installed: beside its Python."""
    installed = tmp_path / "bin"
    installed.mkdir()
    (installed / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (installed / "python3").chmod(0o755)
    shutil.copy(TOP / "conf" / "cvmfs-py", installed / "cvmfs-py")
    (installed / "cvmfs-py").chmod(0o755)
    command = [str(installed / "cvmfs-py"), words[0], "--config", str(tmp_path / "client.conf"), *words[1:]]
    return subprocess.run(
        command, cwd=tmp_path / "hostile", env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_mount_comes_up(tmp_path: Path, environment: dict[str, str]) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    done = run(tmp_path, environment, "mount", FQRN, str(place))
    try:
        assert (done.returncode, done.stderr) == (0, "")
        assert (place / "hello.txt").read_text() == "hello, world\n"
    finally:
        syscalls.unmount(str(place), lazily=True)


def test_a_command_gets_what_its_user_has_set(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run(tmp_path, environment, "exec", FQRN, "--", "env")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: value for name, value in shown.items() if name not in ("_", "PWD", "LC_CTYPE")} == environment


def test_both_ends_know_the_name() -> None:
    assert exec_command.SAVED_LIBRARIES == start.SAVED_LIBRARIES
