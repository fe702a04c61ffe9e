"""Where changes are judged, a test that cannot run is a failure and not a line that nobody reads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.house.sources import TOP

if TYPE_CHECKING:
    from pathlib import Path

INSIDE = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif(True, reason="no moon")
def test_that_is_marked():
    pass

def test_that_gives_up():
    pytest.skip("no sun")
"""
NEEDS = """
import pytest

pytestmark = pytest.mark.needs("program-that-is-nowhere")

@pytest.mark.parametrize("number", [1, 2])
def test_that_needs_it(number):
    pass

@pytest.mark.needs("another-one")
def test_that_needs_more():
    pass
"""
MODULE = "import pytest\npytest.skip('no stars', allow_module_level=True)\n"


@pytest.mark.parametrize(
    ("text", "options", "code", "words"),
    [
        (INSIDE, [], 0, ["no moon", "no sun"]),
        (INSIDE, ["--no-skips"], 1, ["nothing may be skipped here: Skipped: no moon", "no sun"]),
        (NEEDS, [], 0, ["3 skipped: this machine lacks", "2 needs program-that-is-nowhere", "1 needs another-one"]),
        (NEEDS, ["--no-skips"], 1, ["nothing may be skipped here: Skipped: needs program-that-is-nowhere"]),
        (MODULE, ["--no-skips"], 2, ["nothing may be skipped here: Skipped: no stars"]),
    ],
    ids=["told", "tests", "needs", "needs where nothing may be skipped", "module"],
)
def test_what_is_skipped(tmp_path: Path, text: str, options: list[str], code: int, words: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    done = subprocess.run([*command, *options, tmp_path], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout


def test_nothing_is_skipped_where_changes_are_judged() -> None:
    assert "./dev test --no-skips" in (TOP / ".ci" / "run").read_text()
