"""What users are told when something is wrong: one line, the right exit code, and what to do about it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.cli.app import COMMANDS, run
from tests.house.readme import parser_of
from tests.simulator.command import Client, in_mount_namespace
from tests.simulator.signing import MasterKey

if TYPE_CHECKING:
    from collections.abc import Iterator

ZOO = Path(__file__).parents[1] / "data" / "zoo"
KEY = ZOO / "zoo.test.org.pub"


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's configuration; logging as it was afterwards."""
    for name in [name for name in os.environ if name.startswith("CVMFS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "zoo.test.org").symlink_to(ZOO / "server")
    (tmp_path / "settings").write_text("CVMFS_HTTP_PROXY=DIRECT\n")
    (tmp_path / "no.pub").write_text("no key\n")
    (tmp_path / "wrong.pub").write_bytes(MasterKey.generate(slot=7).public_pem)
    (tmp_path / "a file").write_text("")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    before = [(logger, logger.level, list(logger.handlers), list(logger.filters)) for logger in loggers]
    yield
    for logger, level, handlers, filters in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.filters[:] = filters


def tell(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """The exit code, the output and the complaints of a command; REPO, KEY and HERE stand for what is there."""
    words = {"REPO": f"file://{tmp_path}/www/zoo.test.org", "KEY": str(KEY), "HERE": f"file://{tmp_path}/www"}
    for short, long in words.items():
        arguments = [argument.replace(short, long) for argument in arguments]
    try:
        code: object = run(arguments)
    except SystemExit as error:
        code = error.code
    output, errors = capsys.readouterr()
    return code, output, errors


USAGE = [
    (["ls", ""], "names no repository; write FQRN[@TAG][:PATH]"),
    (["ls", "/etc"], "names no repository"),
    (["ls", "ftp://h/cvmfs/a.b"], "must begin with http://, https:// or file://"),
    (["ls", "a.b", "--server", "h:80"], "must begin with http://, https:// or file://"),
    (["ls", "REPO", "--server", "http://h"], "is a URL already: leave out --server"),
    (["ls", "REPO@v1", "--tag", "v2"], "exclude one another"),
    (["ls", "REPO", "-o", "CVMFS_TIMEOUT"], "write NAME=VALUE"),
    (["ls", "REPO", "-o", "timeout=1"], "names are capitals, digits and underscores"),
    (["ls", "REPO", "-o", "CVMFS_TIMEOUT=x"], "CVMFS_TIMEOUT: 'x' is not a number of seconds"),
    (["ls", "REPO", "--date", "yesterday"], "Use YYYY-MM-DDTHH:MM:SSZ"),
    (["ls", "REPO", "--root-hash", "abc"], "'abc' is no hash of a root catalog (40 hexadecimal digits"),
    (["ls", "REPO", "--config", "none"], "none does not exist"),
    (["cp", "REPO:/hello.txt", "x", "-j", "0"], "--jobs must be at least 1"),
    (["tags", "REPO:/x"], "this is about the whole repository"),
    (["tags", "REPO@v1"], "this is about the whole repository"),
    (["info", "REPO:/x"], "this is about the whole repository"),
    (["cache", "pin"], "pin what? Write REPO:PATH"),
    (["cache", "status", "a.b"], "status is about the whole cache; leave out a.b"),
    (["cache", "gc", "--to", "much"], "'much' is no size; write for example 500M or 2G"),
    (["cache", "check", "--cache-dir", "none"], "there is no cache in"),
    (["config", "parameters", "a.b"], "leave out a.b"),
    (["config", "show", "REPO:/x"], "leave out the path"),
]


@pytest.mark.parametrize(("arguments", "words"), USAGE, ids=[" ".join(arguments) for arguments, _ in USAGE])
def test_what_makes_no_sense(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--config" in arguments else ["--config", "settings"]
    code, output, errors = tell([*arguments, *where], tmp_path, capsys)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1, errors
    assert errors.startswith(f"cvmfs-py {arguments[0]}: ")
    assert words in errors


WORLD = [
    (["ls", "REPO:/none", "--key", "KEY"], 5, "/none: there is no such file or directory in this snapshot"),
    (["ls", "REPO:/hello.txt/x", "--key", "KEY"], 5, "/hello.txt is not a directory"),
    (["stat", "REPO:/none", "--key", "KEY"], 5, "/none: there is no such file or directory"),
    (["cat", "REPO:/release", "--key", "KEY"], 5, "/release is a directory; list it with cvmfs-py ls"),
    (["cat", "REPO:/special/fifo", "--key", "KEY"], 5, "is a special file and has no content"),
    (["cp", "REPO:/release", "x", "--key", "KEY"], 5, "/release is a directory; add -r"),
    (["cp", "REPO:/hello.txt", "none/x", "--key", "KEY"], 5, "No such file or directory"),
    (["cp", "-r", "REPO:/release", "a file", "--key", "KEY"], 5, "there is something else of this name"),
    (["verify", "-q", "REPO:/none", "--key", "KEY"], 5, "/none: there is no such file or directory"),
    (["cache", "pin", "REPO:/none", "--key", "KEY"], 5, "/none: there is no such file or directory"),
    (["cache", "unpin", "REPO:/none"], 2, "nothing is pinned as zoo.test.org:/none; `cvmfs-py cache pins`"),
    (["ls", "REPO@v99", "--key", "KEY"], 2, "zoo.test.org has no tag 'v99'; `cvmfs-py tags zoo.test.org` lists"),
    (["ls", "REPO", "--date", "2001-01-01", "--key", "KEY"], 2, "has no tagged snapshot as early as 2001-01-01"),
    (["ls", "REPO", "--root-hash", "01" * 20], 5, "no server of zoo.test.org has a root catalog 01010101"),
    (["ls", "HERE/other.test.org", "--key", "KEY"], 5, "of other.test.org: is its name right? (tried file://"),
    (["ls", "http://127.0.0.1:1/cvmfs/a.b", "--key", "KEY"], 5, "check the network, the servers and the proxies"),
    (["ls", "REPO"], 2, "(--key)"),
    (["ls", "REPO", "--key", "none"], 2, "none does not exist"),
    (["ls", "REPO", "--key", "empty"], 2, "not a regular file"),
    (["ls", "REPO", "--key", "no.pub"], 2, "it holds no public key in PEM form"),
    (["ls", "REPO", "--key", "wrong.pub"], 4, "get the right key from the repository's owner"),
    (["ls", "REPO", "--keys-dir", "none"], 2, "none does not exist"),
    (["ls", "REPO", "--keys-dir", "empty"], 2, "there is no *.pub file in"),
    (["ls", "REPO", "--key", "KEY", "--cache-dir", "a file"], 5, "a file"),
    (["ls", "nowhere.example.org"], 2, "--server"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WORLD, ids=[" ".join(arguments) for arguments, _, _ in WORLD])
def test_what_is_not_there_or_not_right(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, output, errors = tell([*arguments, "--config", "settings"], tmp_path, capsys)
    assert (done, output) == (code, ""), errors
    assert errors.count("\n") == 1, errors
    assert errors.startswith(f"cvmfs-py {arguments[0]}: ")
    assert words in errors


TELLING = [
    ["ls", "REPO"],
    ["stat", "REPO:/hello.txt"],
    ["cat", "REPO:/hello.txt"],
    ["cp", "-q", "REPO:/hello.txt", "copy"],
    ["find", "REPO:/hello.txt"],
    ["du", "-s", "REPO"],
    ["diff", "REPO@v1", "REPO@v2"],
    ["tags", "REPO"],
    ["info", "REPO"],
    ["verify", "-q", "REPO"],
    ["cache", "status"],
    ["cache", "ls"],
    ["cache", "gc"],
    ["cache", "check", "-q"],
    ["cache", "pin", "-q", "REPO:/hello.txt"],
    ["cache", "unpin", "REPO:/hello.txt"],
    ["config", "show", "REPO"],
    ["config", "check", "REPO"],
    ["config", "parameters"],
    ["doctor", "REPO"],
    ["mount", "REPO", "mnt"],
    ["mount", "--all", "mnt"],
    ["exec", "REPO", "--", "true"],
    ["shell", "REPO"],
]
MOUNTING = ("mount", "exec", "shell", "doctor")


def test_every_command_with_parameters_is_tried() -> None:
    found = [name for name in COMMANDS if "-o" in parser_of(name)._option_string_actions]
    assert sorted(found) == sorted({words[0] for words in TELLING})


MISSPELT = "-o CVMFS_TIMOUT is unknown; is CVMFS_TIMEOUT meant?"


def is_told(arguments: list[str], output: str, errors: str) -> bool:
    """Once; by who looks for what is wrong among what was found."""
    if arguments[0] == "doctor" or arguments[:2] == ["config", "check"]:
        return output.count(MISSPELT) == 1
    return errors == f"cvmfs-py: {MISSPELT}\n"


@pytest.mark.parametrize("arguments", [each for each in TELLING if each[0] not in MOUNTING], ids=" ".join)
def test_a_misspelt_parameter_is_told_and_the_command_goes_on(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--config", "settings", "--key", "KEY", "--cache-dir", "cache"]
    if arguments[0] == "cache":
        assert tell(["cache", "pin", "-q", "REPO:/hello.txt", *common], tmp_path, capsys)[0] == 0
    code, output, errors = tell([*arguments, *common, "-o", "CVMFS_TIMOUT=1"], tmp_path, capsys)
    assert code == 0, errors
    assert is_told(arguments, output, errors), (output, errors)


@pytest.mark.needs("mounting")
@pytest.mark.parametrize("arguments", [each for each in TELLING if each[0] in MOUNTING], ids=" ".join)
def test_a_misspelt_parameter_of_a_mount_is_told(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    wrapper = in_mount_namespace("trap 'umount -l mnt 2>/dev/null || true' EXIT; SHELL=/bin/true; export SHELL")
    wrapper[-2] = wrapper[-2].replace('exec "$@"', '"$@"')  # so that it unmounts
    client = Client(tmp_path, "zoo.test.org", [], KEY, SERVER_URL=f"file://{tmp_path}/www/zoo.test.org")
    words = [word.replace("REPO", client.fqrn) for word in arguments]
    done = client.run(words[0], "-o", "CVMFS_TIMOUT=1", *words[1:], wrapper=wrapper)
    assert done.code == 0, done
    assert is_told(arguments, done.output.decode(), done.errors), done


@pytest.mark.parametrize(
    ("option", "intended"), [("CVMFS_SERVER_URLL", "CVMFS_SERVER_URL"), ("HTTP_PROXY", "CVMFS_HTTP_PROXY")]
)
def test_a_misspelt_parameter_is_told_also_when_nothing_works(
    option: str, intended: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in ("nobody.knows.this", "http://127.0.0.1:1/cvmfs/a.b"):
        words = ["ls", target, "--key", "KEY", "--config", "settings", "-o", f"{option}=http://127.0.0.1:1"]
        code, _, errors = tell(words, tmp_path, capsys)
        assert code != 0
        assert errors.count(f"-o {option} is unknown; is {intended} meant?") == 1


def test_what_one_of_several_cannot_do_the_others_still_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cat", "REPO:/none", "REPO:/hello.txt", "--key", "KEY", "--config", "settings"]
    code, output, errors = tell(arguments, tmp_path, capsys)
    assert (code, output) == (5, "hello, world\n")
    assert errors == "cvmfs-py cat: /none: there is no such file or directory in this snapshot\n"


def test_looking_at_a_cache_that_is_not_there_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(["cache", "status", "--cache-dir", "none"], tmp_path, capsys)[0] == 2
    assert not (tmp_path / "none").exists()
