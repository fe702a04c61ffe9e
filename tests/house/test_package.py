"""What is installed: everything that the program needs, nothing else, and it runs from there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

import cvmfs_py
from tests.house.sources import PACKAGES, TOP

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = f"cvmfs_py-{cvmfs_py.__version__}.data/scripts/cvmfs-py"
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import cvmfs_py
from cvmfs_py.cli.app import run
from cvmfs_py.config.domains import built_in_directory, load_knowledge
assert cvmfs_py.__file__.startswith(sys.path[0]), cvmfs_py.__file__
assert str(built_in_directory()).startswith(sys.path[0])
assert "cern.ch" in load_knowledge().domains
sys.exit(run(sys.argv[1:]))
"""


def build(source: Path, target: str, directory: Path) -> Path:
    """One distribution of a source tree, built without asking anybody."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TOP, "wheel", tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    information = f"cvmfs_py-{cvmfs_py.__version__}.dist-info"
    expected = {f"{information}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    expected |= {SCRIPT, *(f"cvmfs_py/{path.relative_to(TOP)}" for path in (TOP / "conf").rglob("*") if path.is_file())}
    for package in PACKAGES:
        expected.add(f"{package}/py.typed")
        expected |= {str(path.relative_to(TOP)) for path in (TOP / package).rglob("*.py")}
    assert names_in(wheel) == expected


def test_the_command_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        first, *rest = archive.read(SCRIPT).decode().splitlines()
    assert first == "#!/bin/sh"  # it looks for the Python beside it, whatever the environment says
    assert rest[-1] == "main()"


def test_it_runs_where_there_is_no_source_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    for arguments, words in ((["--version"], cvmfs_py.__version__), (["config", "parameters"], "CVMFS_HTTP_PROXY")):
        command = [sys.executable, "-I", "-c", RUN, str(tmp_path / "site"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive_path = build(TOP, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", archive_path], cwd=tmp_path, check=True)
    source = tmp_path / archive_path.name.removesuffix(".tar.gz")
    for name in ("README.md", "LICENSE", "dev", ".ci/run", "tests/data/zoo/zoo.test.org.pub", "benchmarks/__main__.py"):
        assert (source / name).is_file(), name
    again = build(source, "wheel", tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_containerfile_copies_all_that_the_wheel_is_made_of(wheel: Path, tmp_path: Path) -> None:
    """Else it would be built of half the program, or not at all."""
    source = tmp_path / "source"
    source.mkdir()
    text = (TOP / "conf" / "containers" / "Containerfile").read_text()
    copied = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    for *names, target in copied:
        assert target.startswith("/tmp/cvmfs-py")
        place = source / target.removeprefix("/tmp/cvmfs-py").strip("/")
        for name in names:
            if (TOP / name).is_dir():
                shutil.copytree(TOP / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TOP / name, place)
    assert "pip install --no-cache-dir /tmp/cvmfs-py " in text
    assert build(source, "wheel", tmp_path / "again").read_bytes() == wheel.read_bytes()
