"""One file and the real /bin/sh."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.config.config_repository import is_directory_visible
from cvmfs_py.config.parse import assigned_names
from cvmfs_py.config.shell import ShellValues, evaluate_file, quote
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def evaluate(path: Path, text: str | bytes, timeout_s: float = 10.0, **variables: str) -> ShellValues:
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    names = assigned_names(os.fsdecode(content))
    return evaluate_file(path, names, {"PATH": os.environ["PATH"], **variables}, timeout_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.conf"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\n", {"A": "1"}),
        ("A=1", {"A": "1"}),
        ("A='x;y'\nB=\"$A|z\"\n", {"A": "x;y", "B": "x;y|z"}),
        ('A="a # b"\n', {"A": "a # b"}),
        ("A=1; B=2\n", {"A": "1"}),
        ("A=1; B=2\nC=$B\n", {"A": "1", "C": "2"}),
        ("A=1\nB=$A\nA=2\n", {"A": "2", "B": "1"}),
        ("A='x   y'\n", {"A": "x y"}),
        ("A='  x  '\n", {"A": "x"}),
        ("A='x\ny'\n", {"A": "x y"}),
        ("A=$(echo x; echo y)\n", {"A": "x y"}),
        ("A=$((6 * 7))\n", {"A": "42"}),
        ('f() { echo "<$1>"; }\nA=$(f x)\n', {"A": "<x>"}),
        ('if [ "$GIVEN" = yes ]; then\n  A=1\nelse\n  A=2\nfi\n', {"A": "1"}),
        ("if false; then\n  GIVEN=no\nfi\n", {"GIVEN": "yes"}),
        ("if false; then\n  A=1\nfi\n", {"A": ""}),
        ("readonly A=1\nexport B=2\neval C=3\n", {"A": "1", "B": "2", "C": "3"}),
        ("A=1\nreadonly A\n", {"A": "1"}),
        ("A=$UNSET\n", {"A": ""}),
        ("A=1\nunset A\n", {"A": ""}),
        ("A=''\nB=\n", {"A": "", "B": ""}),
        ("A=-n\nB=1\n", {"A": "", "B": "1"}),
        ("A='-n x'\nB=1\n", {"A": "x", "B": "1"}),
        ("A=1\nreturn\nA=2\nB=3\n", {"A": "1", "B": ""}),
        ("echo nonsense\necho A=7\nA=1\n", {"A": "1"}),
        ('A=1\nread B\nC="<$B>"\n', {"A": "1", "C": "<>"}),
        ("cat\nA=1\n", {"A": "1"}),
        ("A=1\nexec 1>&-\n", {"A": "1"}),
        ("A=1\nset -e\n", {"A": "1"}),
        ("set -x\nA=1\n", {"A": "1"}),
        ("printf() { :; }\nA=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1 # one\n", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_values(path: Path, text: str, values: dict[str, str]) -> None:
    assert evaluate(path, text, GIVEN="yes") == ShellValues(values, None)


def test_the_shell_runs_in_the_directory_of_the_file(tmp_path: Path) -> None:
    directory = tmp_path / 'it\'s a "directory" $HOME'
    directory.mkdir()
    (directory / "other.inc").write_text("B=included\n")
    result = evaluate(directory / "test.conf", "A=$PWD\n. ./other.inc\nB=$B\n")
    assert result.values == {"A": str(directory), "B": "included"}


def test_patterns_expand_in_that_directory(path: Path) -> None:
    (path.parent / "b.x").touch()
    (path.parent / "a.x").touch()
    assert evaluate(path, "A='*.x'\nB='*.y'\n").values == {"A": "a.x b.x", "B": "*.y"}


def test_names_that_only_a_sourced_file_sets_do_not_count(path: Path) -> None:
    (path.parent / "other.inc").write_text("B=1\n")
    assert evaluate(path, ". ./other.inc\nA=1\n").values == {"A": "1"}


@pytest.mark.parametrize("text", ["A=1\nif [ x\n", "A=1\nB=$(\n", "A=1\nfi\nB=2\n", "A=1\nexit 0\n", "exit 3\nA=1\n"])
def test_a_shell_that_ends_leaves_everything_empty(path: Path, text: str) -> None:
    result = evaluate(path, text, A="before")
    assert set(result.values.values()) == {""}
    assert result.failure


def test_the_complaint_of_the_shell_is_kept(path: Path) -> None:
    failure = evaluate(path, "A=1\nif [ x\n").failure
    assert failure is not None
    assert "yntax error" in failure
    assert "\n" not in failure


def test_a_file_that_hangs(path: Path) -> None:
    pipe = path.parent / "alive"
    os.mkfifo(pipe)
    alive = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ConfigError, match=r"test\.conf did not end within 0\.3 s"):
            evaluate(path, f"exec 8>'{pipe}'\necho started >&8\nA=1\nsleep 1000\n", timeout_s=0.3)
        assert os.read(alive, 100) == b"started\n"
        # the end of the pipe comes when the last process that holds it is gone
        select.select([alive], [], [], 10)
        assert os.read(alive, 100) == b""
    finally:
        os.close(alive)


def test_what_a_file_leaves_running_is_not_waited_for(path: Path) -> None:
    begin_s = time.monotonic()
    result = evaluate(path, "sleep 3 &\nA=$!\n")
    dead = evaluate(path, "sleep 3 &\nA=1\nexit\n")
    assert time.monotonic() - begin_s < 2
    assert dead.values == {"A": ""}
    os.kill(int(result.values["A"]), 9)


def test_endless_values(path: Path) -> None:
    with pytest.raises(ConfigError, match="more than"):
        evaluate(path, "A=$(head -c 6000000 /dev/zero | tr '\\0' x)\n")


def test_noise_without_end_is_stopped(path: Path) -> None:
    with pytest.raises(ConfigError, match="did not end"):
        evaluate(path, "A=1\nyes >&2\n", timeout_s=0.3)


def test_much_noise(path: Path) -> None:
    text = "i=0\nwhile [ $i -lt 20000 ]; do\necho out\necho err >&2\ni=$((i+1))\ndone\nA=1\n"
    assert evaluate(path, text).values == {"i": "20000", "A": "1"}


@pytest.mark.parametrize(
    "content",
    [b"\x00\x01\x02A=1\x00\n\xff\xfe=\n", b"\x7fELF\x02\x01\x01\x00A=1\nB=\xff\n", os.urandom(4096), b"A=\xff\xfe\n"],
)
def test_garbage(path: Path, content: bytes) -> None:
    for value in evaluate(path, content).values.values():
        assert "\0" not in value
        assert "\n" not in value


def test_bytes_that_are_no_text_survive(path: Path) -> None:
    assert os.fsencode(evaluate(path, b"A=\xff\xfe\n").values["A"]) == b"\xff\xfe"


def test_more_names_than_any_configuration_has(path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        evaluate(path, "".join(f"A{number}=1\n" for number in range(5000)))


def test_many_names(path: Path) -> None:
    names = [f"A{number}" for number in range(400)]
    assert evaluate(path, "".join(f"{name}={name}\n" for name in names)).values == {name: name for name in names}


def test_the_environment_is_what_was_given_and_stays(path: Path) -> None:
    before = dict(os.environ)
    result = evaluate(path, "A=$CVMFS_FQRN\nB=$HOME\nCVMFS_NEW=1\n", CVMFS_FQRN="grid.example.org")
    assert result.values == {"A": "grid.example.org", "B": "", "CVMFS_NEW": "1"}
    assert dict(os.environ) == before


def test_an_environment_that_no_program_can_have(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot run"):
        evaluate(path, "A=1\n", BIG="x" * (1 << 20))


@pytest.mark.parametrize("text", ["", "a", "it's", "''", "$HOME `x` \\", "a\nb"])
def test_quoting(path: Path, text: str) -> None:
    result = evaluate(path, f"X={quote(text)}\nA=$(printf '%s' \"$X\" | od -An -tx1 | tr -d ' \\n')\n")
    assert bytes.fromhex(result.values["A"]) == text.encode()


def test_looking_for_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = dict(os.environ)
    assert is_directory_visible(tmp_path, environment) is True
    assert is_directory_visible(tmp_path / "none", environment) is False
    assert is_directory_visible(tmp_path / "file", environment) is False
