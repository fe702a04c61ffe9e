"""The command that prints the examples of conf/."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_py.cli.app import run
from cvmfs_py.cli.example import EXAMPLES

CONF = Path(__file__).parents[2] / "conf"
OF_THE_PROGRAM = {"cvmfs-py", "domains.toml"}  # used by itself


def test_every_example_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    files = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_file()}
    assert set(EXAMPLES) == files - OF_THE_PROGRAM
    assert run(["example"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for form in (name, name.rpartition("/")[2], f"conf/{name}"):
        assert run(["example", form]) == 0
        assert capsys.readouterr().out == (CONF / name).read_text()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Containerfiel", "did you mean containers/Containerfile?"),
        ("fstab", "did you mean fstab.example?"),
        ("automount", "did you mean systemd/cvmfs-sft.cern.ch.automount?"),
        ("systemd", "did you mean systemd/cvmfs-py@.service or systemd/"),
        ("", f"there are {', '.join(EXAMPLES)}"),
        ("../pyproject.toml", f"there are {', '.join(EXAMPLES)}"),
    ],
)
def test_what_could_be_meant_is_named(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["example", name]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"cvmfs-py example: there is no example {name!r}; {hint}")
    assert errors.count("\n") == 1
