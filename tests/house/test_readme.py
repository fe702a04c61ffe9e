"""README.md tells the truth: its lists are the program's, its examples can be run, its files exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs
from tests.house.readme import README, sections, shell_lines, updated, words_of
from tests.house.sources import TOP
from tests.house.test_help import check_arguments

TEXT = README.read_text("utf-8")
LINES = list(shell_lines(TEXT))
DEV_COMMANDS = {match[1] for match in re.finditer(r"^    (\w+)\)", (TOP / "dev").read_text(), re.MULTILINE)}
# what lines of examples may begin with besides the program itself
OTHER_PROGRAMS = {"python3", "pip", "pipx", "podman", "apptainer", "ln", "mount"}


def test_the_generated_parts_are_up_to_date() -> None:
    assert updated(TEXT) == TEXT, "run ./dev readme"


def test_generated_parts_say_something() -> None:
    assert all(len(body) > 1000 for body in sections().values())
    outdated = TEXT.replace("| `CVMFS_HTTP_PROXY` |", "| `CVMFS_HTTP_POXY` |").replace(
        "usage: cvmfs-py cp", "usage: cp"
    )
    assert outdated != TEXT
    assert updated(outdated) == TEXT


@pytest.mark.parametrize("line", [line for line in LINES if words_of(line)])
def test_every_example_can_be_run(line: str) -> None:
    words = words_of(line)
    if words[0] == "cvmfs-py":
        if words[1:] != ["--version"]:
            check_arguments(words[1:])
    elif words[0] == "./dev":
        assert words[1] in DEV_COMMANDS
    else:
        assert words[0].rpartition("/")[2] in OTHER_PROGRAMS


def test_the_quick_start_is_two_commands_of_dev() -> None:
    quick_start = TEXT.partition("## Quick start\n")[2].partition("\n## ")[0]
    assert list(shell_lines(quick_start)) == ["./dev demo", "./dev test"]
    done = subprocess.run(["./dev", "help"], cwd=TOP, capture_output=True, text=True, check=True)
    for command in DEV_COMMANDS - {"help"}:
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE), command


def test_examples_are_found() -> None:
    assert sum(line.startswith("cvmfs-py") for line in LINES) > 15
    assert list(shell_lines("```sh\na \\\n  b\n\nc # d\n```\n```text\ne\n```\n")) == ["a    b", "c # d"]
    assert words_of("A=1 B='2 3' cvmfs-py ls x | head  # no") == ["cvmfs-py", "ls", "x"]
    assert words_of("# only a word") == []


def test_every_parameter_in_the_text_exists() -> None:
    known = {*specs(), *IGNORED_NAMES, *UNUSED_NAMES}
    for name in re.findall(r"\b(?:CVMFS|X509)_[A-Z0-9_]*[A-Z0-9](?!\w|\*)", TEXT):
        assert name in known, name


def test_the_picture_of_the_layers_has_every_package() -> None:
    picture = TEXT.partition("## Architecture\n")[2].partition("\n## ")[0]
    packages = {f"cvmfs_py.{path.parent.name}" for path in (TOP / "cvmfs_py").glob("*/__init__.py")}
    assert packages | {"cvmfs_py.driver", "cvmfs_py.errors"} == set(re.findall(r"cvmfs_py\.\w+", picture))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("https://") or (TOP / target).exists(), target
