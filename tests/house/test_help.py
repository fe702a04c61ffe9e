"""What --help says: every command with an example that works, every option with a sentence."""

from __future__ import annotations

import argparse
import shlex

import pytest

from cvmfs_py.cli.app import COMMANDS, WORDS_BEHIND, overview, run, split_words
from cvmfs_py.cli.options import request_of
from cvmfs_py.cli.parser import WIDTH
from tests.house.readme import parser_of, parsers

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


@pytest.mark.parametrize("command", PARSERS)
def test_help_fits_a_terminal(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run([*command.split(), "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: cvmfs-py {command} [OPTIONS]")
    assert [line for line in lines if len(line) > WIDTH] == []


def test_help_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for columns in ("20", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        texts.add("".join(parser.format_help() for parser in parsers().values()))
    assert len(texts) == 1


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
