"""What --help says: every command with an example that works, every option with a sentence."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_py.cli.app import COMMANDS, WORDS_BEHIND, overview, run, split_words
from cvmfs_py.cli.options import request_of
from cvmfs_py.cli.parser import NARROWEST, WIDEST, WIDTH
from tests.house.readme import parser_of, parsers
from tests.house.sources import TOP

# where the parsers keep what names repositories
TARGETS = ("targets", "target", "repositories", "repository", "source")

PARSERS = parsers()


def check_arguments(words: list[str]) -> None:
    """Whether the words after `cvmfs-py` are a command that could be run."""
    command, *rest = words
    assert command in COMMANDS, words
    rest, behind = split_words(command, rest)
    assert behind or command not in WORDS_BEHIND, "it runs something"
    options = parser_of(command).parse_intermixed_args(rest)
    if not hasattr(options, "server"):
        return  # of a command on local directories
    for name in TARGETS:
        value = getattr(options, name, None)
        for target in [value] if isinstance(value, str) else value or ():
            request_of(options, target)


def examples_of(command: str) -> list[str]:
    epilog = PARSERS[command].epilog or ""
    return [line.strip() for line in epilog.splitlines()[1:]]


@pytest.mark.parametrize("command", PARSERS)
def test_every_command_has_examples_that_can_be_run(command: str) -> None:
    examples = examples_of(command)
    assert examples
    for example in examples:
        program, *words = shlex.split(example, comments=True)
        assert program == "cvmfs-py"
        assert " ".join(words).startswith(command)
        check_arguments(words)


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_has_a_sentence(command: str) -> None:
    for action in PARSERS[command]._actions:
        assert action.help, action.dest
        assert action.help is not argparse.SUPPRESS
        assert action.option_strings or action.metavar, f"{action.dest} has no name for people"
        if action.option_strings and action.nargs != 0:
            assert action.metavar, f"{action.dest}: what is its value?"


# What is to be copied stays in one piece.
EXAMPLES = re.compile(r"\nexamples?:\n.*|\nexample: .*?\n", re.DOTALL)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed."""
    with pytest.raises(SystemExit) as caught:
        run([*command.split(), "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", PARSERS)
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (20, NARROWEST, 61, WIDTH, 100, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        printed = help_of(command, capsys)
        assert printed.startswith(f"usage: cvmfs-py {command} [OPTIONS]")
        lines = EXAMPLES.sub("", printed).splitlines()
        assert [line for line in lines if len(line) > min(max(columns, NARROWEST), WIDEST)] == []
        if columns == WIDTH:
            assert printed == PARSERS[command].format_help()


def parser_of_words(command: str) -> argparse.ArgumentParser:
    return PARSERS[command]


def test_overview_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (NARROWEST, WIDTH, WIDEST):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(["--help"]) == 0
        lines = EXAMPLES.sub("", capsys.readouterr().out).splitlines()
        assert columns - 12 < max(map(len, lines)) <= columns


def test_documented_help_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for columns in ("20", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        texts.add("".join(parser.format_help() for parser in parsers().values()))
    assert len(texts) == 1


def pythons() -> list[str]:
    """Every Python of this machine that can run the program, one of each version."""
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    places = [Path(name) for name in [sys.executable, "/usr/bin/python3", *named] if name is not None]
    places += sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"))
    found: dict[str, str] = {}
    for place in places:
        words = [str(place), "-IS", "-c", "import sys; print(sys.version_info >= (3, 11), *sys.version_info[:3])"]
        try:
            is_new, *version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError):
            continue
        if is_new == "True":
            found.setdefault(".".join(version), str(place))
    return sorted(found.values())


PRINT_ALL = """
import sys
sys.path.insert(0, sys.argv[1])
from cvmfs_py.cli.app import run
for command in sys.argv[2:]:
    try:
        run([*command.split(), "--help"])
    except SystemExit:
        pass
"""


@pytest.mark.parametrize("python", pythons())
def test_help_is_the_same_in_every_python(python: str) -> None:
    commands = ["mount", "exec", "umount", "cp", "config", "cache", "repo tag"]
    words = [python, "-IS", "-c", PRINT_ALL, str(TOP), *commands]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.stderr == ""
    assert done.stdout == "".join(PARSERS[command].format_help() for command in commands)
    assert "usage: cvmfs-py mount [OPTIONS] [REPO] [MOUNTPOINT]\n" in done.stdout


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed == overview() + "\n"
    for name, command in COMMANDS.items():
        assert f"  {name} " in printed
        assert command.summary in printed


def test_help_about_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["help", "cp"])
    assert capsys.readouterr().out == parser_of("cp").format_help()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lss"], "there is no command 'lss'; did you mean ls?"),
        (["ls"], "the following arguments are required: REPO[:PATH]; see cvmfs-py ls --help"),
        (["ls", "--lng", "a.b"], "--lng"),
        (["cp", "-j", "many", "a.b:/x", "y"], "'many'"),
        (["cache", "empty"], "'empty'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = run(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("cvmfs-py")
    assert errors.count("\n") == 1
    assert words in errors
