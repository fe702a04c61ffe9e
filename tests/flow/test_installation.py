"""Installations that are broken in one way or another: the command says so in one line, and what to do."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cvmfs_py.installation import fault_of_python
from tests.house.sources import PACKAGES, TOP
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File

LAUNCHER = TOP / "conf" / "cvmfs-py"
BASE = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")  # knows nothing of this program
DEPENDENCIES = ("cryptography", "deflate", "httpx", "sqlite_utils", "trio", "zstandard")
NOT_FOR_READING = {"deflate", "zstandard"}  # quicker, or for what this repository does not have


def run(*words: str | Path, **environment: str) -> tuple[int, str, list[str]]:
    variables = {"PATH": os.environ["PATH"], "HOME": "/", **environment}
    done = subprocess.run(words, cwd="/", env=variables, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()


def says(done: tuple[int, str, list[str]], *texts: str) -> None:
    code, output, lines = done
    assert (code, output, len(lines)) == (2, "", 1), done
    assert lines[0].startswith("cvmfs-py")
    for text in ("install", *texts):
        assert text in lines[0]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """As pip puts it into an environment."""
    (tmp_path / "bin").mkdir()
    return Path(shutil.copy(LAUNCHER, tmp_path / "bin" / "cvmfs-py"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The packages of an environment with a copy of this program's and links to all others; the script is in bin."""
    top = tmp_path / "environment"
    subprocess.run([BASE, "-m", "venv", "--without-pip", top], check=True)
    (site,) = top.glob("lib/python*/site-packages")
    shutil.copytree(TOP / "cvmfs_py", site / "cvmfs_py", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*(TOP / name for name in PACKAGES), *Path(sysconfig.get_path("purelib")).iterdir()]:
        if path.suffix != ".pth" and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    (site / "cvmfs_py" / "conf").symlink_to(TOP / "conf")
    shutil.copy(LAUNCHER, top / "bin" / "cvmfs-py")
    return site


def ways(site: Path) -> list[list[str | Path]]:
    programs = site.parents[2] / "bin"
    return [[programs / "cvmfs-py"], [programs / "python3", "-m", "cvmfs_py"]]


def test_a_python_that_is_gone(script: Path, tmp_path: Path) -> None:
    (script.parent / "python3").symlink_to(tmp_path / "removed" / "python3")
    says(run(script, "--version"), f"{script.parent}/python3", f"{tmp_path}/removed/python3", "missing or closed")
    link = tmp_path / "link"
    link.symlink_to(script)
    says(run(link, "--version"), f"{tmp_path}/removed/python3")


def test_a_python_that_does_not_have_the_program(script: Path) -> None:
    """The Python beside it was exchanged for another version, or the script was copied beside another one."""
    (script.parent / "python3").symlink_to(BASE)
    version = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    says(run(script, "--version"), f"{script.parent}/python3", version, "cvmfs_py", "instead of a copy")


def test_a_copy_where_there_is_no_python(script: Path, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    says(run("/bin/sh", script, PATH=str(tmp_path / "path")), "there is no Python")
    (tmp_path / "path" / "python3").symlink_to(BASE)
    says(run("/bin/sh", script, PATH=str(tmp_path / "path")), "does not have the program")


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    """It has to understand what it reads first."""
    assert fault_of_python() is None
    first = [LAUNCHER, *(TOP / "cvmfs_py" / f"{name}.py" for name in ("__init__", "__main__", "installation"))]
    for path in first:
        ast.parse(path.read_text(), feature_version=(3, 6))
    old = "import sys; sys.version_info = (3, 9, 0); sys.argv = sys.argv[1:]; import runpy;"
    for way in ("runpy.run_path(sys.argv[0])", "runpy.run_module('cvmfs_py', run_name='__main__')"):
        says(run(sys.executable, "-I", "-c", old + way, LAUNCHER, "--version"), "Python 3.9", "3.11 or newer")


@pytest.mark.parametrize("part", ["cvmfs_py/cli", "cvmfs_py/errors.py", "cvmfs_py/vfs", "cache", "catalog"])
def test_a_part_is_missing(part: str, site: Path) -> None:
    path = site / part
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    for way in ways(site):
        says(run(*way, "ls", "a.example.org"), part.split("/")[-1].removesuffix(".py"))


def test_the_program_is_missing(site: Path) -> None:
    (site / "cvmfs_py" / "__main__.py").unlink()
    says(run(ways(site)[0][0], "ls", "a.example.org"), "cvmfs_py")


def test_a_part_is_damaged(site: Path) -> None:
    (site / "cvmfs_py" / "cli" / "app.py").write_text("def run(")
    for way in ways(site):
        says(run(*way, "ls", "a.example.org"), "app.py")


@pytest.mark.parametrize("name", DEPENDENCIES)
def test_a_dependency_is_missing(name: str, site: Path, tmp_path: Path) -> None:
    for path in (site / name, *site.glob(f"{name}.*so")):
        path.unlink(missing_ok=True)
    repository = Repository.create(tmp_path / "repository")
    repository.publish(Directory({"file": File(b"content")}))
    protocol = "https://127.0.0.1:1" if name == "httpx" else f"file://{repository.document_root}"
    for number, way in enumerate(ways(site)):
        options = ("--key", str(repository.master_public_key), "--cache-dir", str(tmp_path / f"cache{number}"))
        code, output, lines = run(*way, "ls", f"{protocol}/cvmfs/{repository.fqrn}", *options)
        if name in NOT_FOR_READING:
            assert (code, output, lines) == (0, "file\n", [])
        else:
            says((code, "", lines), name)


def test_the_demonstration_of_a_program_that_lacks_something(site: Path) -> None:
    (site / "cryptography").unlink()
    code, output, (line,) = run(ways(site)[0][0], "demo")
    assert (code, line) == (2, "cvmfs-py demo: the demonstration failed at the last command (exit code 2)")
    assert "cryptography" in output.splitlines()[-1]
