"""What is waited for is told on a terminal, and nowhere else, and nothing of it stays."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.rights import why_not
from tests.simulator.command import Client
from tests.simulator.fault_server import FaultServer, Silence, refused_port
from tests.simulator.signing import MasterKey
from tests.simulator.terminal import Terminal, screen_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FQRN = "test.example.org"
ERASE = "\r\033[J"
WAITING = re.compile(r"waiting [0-9]+ s for \.cvmfs(published|whitelist) of test\.example\.org from ")


@pytest.fixture
def silent() -> Iterator[FaultServer]:
    with FaultServer(lambda _: Silence()) as server:
        yield server


def client_of(tmp_path: Path, *servers: str) -> Client:
    key = tmp_path / "key.pub"
    key.write_bytes(MasterKey.generate(slot=3).public_pem)
    return Client(tmp_path, FQRN, servers, key, TIMEOUT_DIRECT="3")


def terminal_of(client: Client, *arguments: str, columns: int = 80, wrapper: tuple[str, ...] = ()) -> Terminal:
    words = [*wrapper, *client.command(*arguments)]
    return Terminal(words, cwd=client.directory, environment=client.environment, columns=columns)


def told(terminal: Terminal) -> list[str]:
    """The lines that were drawn and erased again."""
    assert not any("waiting" in line for line in screen_of(terminal.shown, 1000)), terminal.text
    return [part.rstrip("\r") for part in terminal.text.split(ERASE)[1:-1] if part]


def test_a_command_tells_what_it_waits_for(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, f"http://127.0.0.1:{refused_port()}", silent.url)
    address = silent.url.removeprefix("http://").encode()
    with (
        terminal_of(client, "ls", FQRN, columns=120) as ls,
        terminal_of(client, "info", FQRN, columns=30) as narrow,
        terminal_of(client, "verify", "-q", FQRN) as quiet,
        terminal_of(client, "ls", FQRN, wrapper=("env", "TERM=dumb")) as dumb,
        terminal_of(client, "ls", "--debug", FQRN) as debug,
        terminal_of(client, "ls", FQRN, wrapper=("sh", "-c", 'exec "$@" 2>errors', "sh")) as elsewhere,
    ):
        ls.read_until(b"from " + address + rb" .connection refused before")
    for terminal in (ls, narrow, quiet, dumb, debug, elsewhere):
        assert terminal.code == 5
    assert WAITING.match(told(ls)[0])
    assert told(narrow)
    assert all(len(line) < 30 for line in told(narrow))
    (left,) = screen_of(ls.shown, 1000)
    assert left.startswith("cvmfs-py ls: cannot fetch .cvmfs")
    for terminal in (quiet, dumb, debug, elsewhere):
        assert "waiting " not in terminal.text
    assert "waiting " not in (tmp_path / "errors").read_text()


@pytest.mark.needs("mounting")
def test_what_a_daemon_waits_for(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, silent.url)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    with (
        terminal_of(client, "mount", FQRN, str(mountpoint)) as mount,
        terminal_of(client, "mount", "-f", FQRN, str(mountpoint)) as foreground,
        terminal_of(client, "exec", FQRN, "--", "true") as confined,
    ):
        for terminal in (mount, foreground, confined):
            terminal.read_until(f"of {FQRN} from {silent.url.removeprefix('http://')}".encode())
    for terminal in (mount, foreground, confined):
        assert terminal.code == 5
        assert told(terminal)
        (line,) = screen_of(terminal.shown, 1000)
        assert line.startswith("cvmfs-py ")
        assert "cannot fetch .cvmfs" in line
    assert os.listdir(mountpoint) == []


def test_an_interrupt_takes_it_away(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, silent.url).changed(TIMEOUT_DIRECT="60")
    commands = [["ls", FQRN]]
    if not why_not("mounting"):
        commands += [["mount", FQRN, str(tmp_path)], ["exec", FQRN, "--", "true"]]
    with ExitStack() as held:
        terminals = [held.enter_context(terminal_of(client, *words)) for words in commands]
        for terminal in terminals:
            terminal.read_until(b"waiting ")
            terminal.type(b"\x03")
    for terminal in terminals:
        assert terminal.code == 130, terminal.text
        assert screen_of(terminal.shown) in ([], ["^C"])
