"""Progress of whole commands on a terminal: a total, an end without a trace, and a word for whoever interrupts."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import PROGRAM, Client
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.terminal import Terminal, screen_of
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FQRN = "test.example.org"
WIDE = 300
FILES = 200


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    many = {f"f{number:03}": File(b"%d" % number * 500) for number in range(FILES)}
    tree = {"many": Directory(many), "below": Directory({"x": File(b"x")}, nested=True)}  # type: ignore[arg-type]
    repository.publish(Directory({"top": Directory(tree)}))  # type: ignore[arg-type,dict-item]
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[SlowServer]:
    with SlowServer(repository.document_root, delay_s=0.07) as server:
        yield server


@pytest.fixture
def client(repository: Repository, server: SlowServer, tmp_path: Path) -> Client:
    return Client(tmp_path, FQRN, [server.url], repository.master_public_key, TIMEOUT_DIRECT="10")


def on_terminal(client: Client, *arguments: str) -> Terminal:
    return Terminal(client.command(*arguments), columns=WIDE, cwd=client.directory, environment=client.environment)


def seen_of(terminal: Terminal) -> list[str]:
    return screen_of(terminal.shown, WIDE)


SHARE = rb" \[#*\.*\], [0-9.]+ KiB of [0-9.]+ KiB, "


@pytest.mark.parametrize(
    ("arguments", "shown", "left"),
    [
        (["cp", "-r", f"{FQRN}:/top", "out"], rb"copied: \d+ of 202", "202 files"),
        (["cache", "pin", f"{FQRN}:/top"], rb"pinned: \d+ of 203", "pinned"),
        (["verify", "--data", FQRN], rb"verified: \d+ of 205", FQRN),
    ],
    ids=["cp", "pin", "verify"],
)
def test_a_total_and_no_trace(client: Client, arguments: list[str], shown: bytes, left: str) -> None:
    with on_terminal(client, *arguments) as terminal:
        terminal.read_until(shown + SHARE)
    (line,) = seen_of(terminal)
    assert line.startswith(left)
    assert terminal.code == 0


def test_a_copy_that_is_interrupted_goes_on(client: Client) -> None:
    command = ("cp", "-r", f"{FQRN}:/top", "out")
    with on_terminal(client, *command) as terminal:
        terminal.read_until(rb"copied: [1-9]\d of")
        terminal.type(b"\x03")
    assert terminal.code == 130
    assert seen_of(terminal) == ["cvmfs-py: interrupted; the same command goes on with the copy where it was stopped"]
    done = client.run(*command)
    assert done.code == 0
    assert " were there already" in done.errors


def test_where_nothing_comes_what_is_waited_for_takes_the_place(client: Client, server: SlowServer) -> None:
    with on_terminal(client, "cp", "-r", f"{FQRN}:/top", "out") as terminal:
        terminal.read_until(rb"copied: [1-9]\d of")
        server.delay_s = 4.0
        terminal.read_until(rb"\r\033\[Jwaiting \d s for [^\r]* from [^\r]*\r")
        server.delay_s = 0.0
        terminal.read_until(rb"\r\033\[Jcopied: ")
    (line,) = seen_of(terminal)
    assert line.startswith("202 files")
    assert terminal.code == 0


def test_a_pin_that_is_interrupted_is_incomplete_and_goes_on(client: Client) -> None:
    command = ("cache", "pin", f"{FQRN}:/top")
    with on_terminal(client, *command) as terminal:
        terminal.read_until(rb"pinned: [1-9]\d of")
        terminal.type(b"\x03")
    assert terminal.code == 130
    (line,) = seen_of(terminal)
    assert line.startswith(
        "cvmfs-py: interrupted; what is here stays, and the same command goes on; `cvmfs-py cache pins`"
    )
    (record,) = json.loads(client.run("cache", "pins", "--json").output)
    assert (record["complete"], record["objects"]) == (False, 203)
    assert 10 < record["held_objects"] < 203
    (line,) = client.run("cache", "pins").names
    assert line.startswith(f"{FQRN}:/top: incomplete, {record['held_objects']} of 203 objects, ")
    assert line.endswith("; the same `cvmfs-py cache pin` goes on")
    assert line.partition(": ")[2] in client.run("cache", "status").output.decode()
    done = client.run(*command)
    (line,) = done.error_lines
    assert line.startswith(f"pinned {FQRN}:/top: 203 objects with ")
    assert line.endswith(f", {record['held_objects'] - 2} were here already")
    (line,) = client.run("cache", "pins").names
    assert line.startswith(f"{FQRN}:/top: 203 objects with ")


def test_a_verification_that_is_interrupted(client: Client) -> None:
    with on_terminal(client, "verify", "--data", FQRN) as terminal:
        terminal.read_until(rb"verified: [1-9]\d of")
        terminal.type(b"\x03")
    assert terminal.code == 130
    told = "cvmfs-py: interrupted; the same command begins anew, with what it has fetched in the cache"
    assert seen_of(terminal) == [told]


@pytest.mark.parametrize("words", [["-q"], []])
def test_nothing_on_pipes_or_when_told_to_be_quiet(client: Client, words: list[str]) -> None:
    done = client.run("cache", "pin", *words, f"{FQRN}:/top/below")
    assert done.code == 0
    assert "\r" not in done.errors
    assert (done.errors == "") is bool(words)
    with on_terminal(client, "cp", "-q", "-r", f"{FQRN}:/top/below", "out") as terminal:
        pass
    assert (terminal.shown, terminal.code) == (b"", 0)


# publishing


@pytest.fixture
def published(tmp_path: Path) -> list[str]:
    """The words of a command, but for what is to be published: a new repository and what takes a while to publish."""
    for number in range(20):
        (tmp_path / "tree" / f"d{number}").mkdir(parents=True)
        (tmp_path / "tree" / f"d{number}" / "file").write_bytes(os.urandom(1 << 20))
    with Terminal([*PROGRAM, "repo", "init", "a.example.org", "--storage", "a"], cwd=tmp_path) as terminal:
        pass
    assert terminal.code == 0, terminal.text
    return [*PROGRAM, "repo"]


def test_publishing_leaves_no_trace(published: list[str], tmp_path: Path) -> None:
    with Terminal([*published, "publish", "a", "--from", "tree"], columns=WIDE, cwd=tmp_path) as terminal:
        terminal.read_until(rb"published: \d+ of 41 \[#*\.*\], ")
    first, second = seen_of(terminal)
    assert first.startswith("published revision 2 of a.example.org")
    assert second.startswith("41 entries read, ")
    assert terminal.code == 0


def test_a_publication_that_is_interrupted(published: list[str], tmp_path: Path) -> None:
    # An interrupt may come between any two instructions, where something is open that nobody closes but its destructor.
    words = [word for word in published if word not in ("-W", "error")]
    with Terminal([*words, "publish", "a", "--from", "tree"], columns=WIDE, cwd=tmp_path) as terminal:
        terminal.read_until(rb"published: \d+ of 41 ")
        terminal.type(b"\x03")
    assert terminal.code == 130
    (line,) = seen_of(terminal)
    assert line.startswith("cvmfs-py: interrupted; nothing was published, and what is stored already")


def test_an_archive_tells_how_much_of_it_is_read(published: list[str], tmp_path: Path) -> None:
    with Terminal(["tar", "cf", "tree.tar", "tree"], cwd=tmp_path) as terminal:
        pass
    words = [*published, "ingest", "a", "--tar", "tree.tar", "--at", "/x"]
    with Terminal(words, columns=WIDE, cwd=tmp_path) as terminal:
        terminal.read_until(rb"unpacked: \d+ \[#+\.*\], [0-9.]+ MiB of 20.0 MiB, ")
    first, second = seen_of(terminal)
    assert first.startswith("published revision 2 of a.example.org")
    assert second.startswith("41 entries read, ")
    assert terminal.code == 0
