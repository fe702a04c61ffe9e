"""The command works whatever the user's set-up scripts have done to Python and to the search for libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_py import __main__ as start
from tests.house.sources import PACKAGES, TOP
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, Symlink

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = (sys.executable, str(TOP / "conf" / "cvmfs-py"))
MODULE = (sys.executable, "-m", "cvmfs_py")
PATH = (sys.executable, str(TOP / "cvmfs_py" / "__main__.py"))
WAYS = pytest.mark.parametrize("way", [SCRIPT, MODULE, PATH], ids=["script", "module", "path"])


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory as scientific stacks have them: other modules of the same names, broken or not."""
    directory = tmp_path / "hostile"
    (directory / "cvmfs_py").mkdir(parents=True)
    (directory / "cvmfs_py" / "__init__.py").write_text("this is no Python")
    for name in ("cache", "catalog", "trio", "httpx", "re", "json", "argparse", "logging"):
        (directory / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    return directory


def run(
    way: tuple[str, ...], *words: str, directory: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "HOME": str(directory), **(environment or {})}
    return subprocess.run(
        [*way, *words], cwd=directory, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def published(tmp_path: Path) -> Repository:
    published = Repository.create(tmp_path / "published")
    published.publish(Directory({"l": Symlink("$(LD_LIBRARY_PATH:-none)/$(PYTHONPATH:-none)/$(MINE)")}))
    return published


def list_root(
    way: tuple[str, ...], published: Repository, directory: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    url = f"file://{published.document_root}/cvmfs/{published.fqrn}"
    options = ("--key", str(published.master_public_key), "--cache-dir", str(directory / "cache"))
    return run(way, "ls", url, *options, directory=directory, environment=environment)


def works(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert "CVMFS_HTTP_PROXY" in done.stdout


# `python -m` itself looks into PYTHONPATH and the current directory for the package, before anybody can prevent it.
@pytest.mark.parametrize("way", [SCRIPT, PATH], ids=["script", "path"])
@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONSTARTUP", "LD_LIBRARY_PATH", "nothing"])
def test_nothing_of_the_user_is_loaded(way: tuple[str, ...], variable: str, hostile: Path) -> None:
    """Also not from the current directory, which is the hostile one."""
    value = str(hostile / "cache.py") if variable == "PYTHONSTARTUP" else f"{hostile}:/nowhere"
    works(run(way, "config", "parameters", directory=hostile, environment={variable: value}))


@pytest.mark.parametrize("is_in_path", [False, True])
def test_as_a_module(hostile: Path, is_in_path: bool) -> None:
    for name in ("cvmfs_py/__init__.py", "re.py", "json.py", "argparse.py", "logging.py"):
        (hostile / name).unlink()
    (hostile / "cvmfs_py").rmdir()
    environment = {"PYTHONPATH": str(hostile)} if is_in_path else {}
    works(run(MODULE, "config", "parameters", directory=hostile, environment=environment))


@WAYS
def test_words_arrive_as_they_are(way: tuple[str, ...], tmp_path: Path) -> None:
    words = ["ls", "", "a b", "*", "$HOME", "-", "é\udce9"]
    plain = run(way, *words, directory=tmp_path)
    repeated = run(
        way, *words, directory=tmp_path, environment={"PYTHONPATH": "/nowhere", "LD_LIBRARY_PATH": "/nowhere"}
    )
    assert (plain.returncode, plain.stdout, plain.stderr) == (repeated.returncode, repeated.stdout, repeated.stderr)
    assert plain.returncode == 2


def test_what_is_installed_nowhere_else_is_found_in_pythonpath(tmp_path: Path, published: Repository) -> None:
    """As after `pip install --target`, for a Python that knows nothing of us: there PYTHONPATH is the way."""
    target = tmp_path / "target"
    target.mkdir()
    packages = [TOP / name for name in PACKAGES]
    packages += [path for path in Path(sysconfig.get_path("purelib")).iterdir() if path.suffix != ".pth"]
    for path in packages:
        if not (target / path.name).exists():  # an editable installation may have a part of ours there
            (target / path.name).symlink_to(path)
    python = os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    way = (python, SCRIPT[1])
    assert run(way, "--version", directory=tmp_path).returncode != 0
    done = list_root(way, published, tmp_path, {"PYTHONPATH": str(target)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "l\n", "")


@pytest.mark.parametrize("variables", [{}, {"LD_LIBRARY_PATH": "/nowhere:/else"}, {"PYTHONPATH": "/nowhere"}])
def test_the_program_does_not_see_the_users_libraries(
    tmp_path: Path, published: Repository, variables: dict[str, str]
) -> None:
    """A variable link shows what the environment of the program is."""
    url = f"file://{published.document_root}/cvmfs/{published.fqrn}:/l"
    done = run(
        SCRIPT,
        *("stat", "--json", url, "--key", str(published.master_public_key), "--cache-dir", str(tmp_path / "cache")),
        directory=tmp_path,
        environment={"MINE": "mine", **variables},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"] == f"none/{variables.get('PYTHONPATH', 'none')}/mine"


def test_libraries_that_python_itself_is_from_stay() -> None:
    """Without them the second start would fail."""
    with open("/proc/self/maps") as maps:
        loaded = {line.split(maxsplit=5)[5].strip() for line in maps if "/libpython" in line}
    places = [os.path.dirname(os.path.realpath(path)) for path in loaded]
    assert all(start._loaded_interpreter_from(f"/nowhere:{place}") for place in places)
    assert not start._loaded_interpreter_from("/nowhere")
    assert not start._loaded_interpreter_from(":")


@WAYS
def test_a_current_directory_that_is_gone(way: tuple[str, ...], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), *way, "--version"]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": "/nowhere"}
    done = subprocess.run(command, cwd=gone, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cvmfs-py ")
