"""What is waited for is told on a terminal, and nowhere else, and nothing of it stays."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import why_no_mounts
from tests.simulator.command import Client
from tests.simulator.fault_server import FaultServer, Silence, refused_port
from tests.simulator.signing import MasterKey
from tests.simulator.terminal import ERASE, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FQRN = "test.example.org"
WAITING = re.compile(r"waiting [0-9]+ s for \.cvmfs(published|whitelist) of test\.example\.org from ")


@pytest.fixture
def silent() -> Iterator[FaultServer]:
    with FaultServer(lambda _: Silence()) as server:
        yield server


def client_of(tmp_path: Path, *servers: str) -> Client:
    key = tmp_path / "key.pub"
    key.write_bytes(MasterKey.generate(slot=3).public_pem)
    return Client(tmp_path, FQRN, servers, key, TIMEOUT_DIRECT="3")


def told(terminal: Terminal) -> list[str]:
    """The lines that were drawn and erased again."""
    assert not any("waiting" in line for line in terminal.lines), terminal.shown
    return [part for part in terminal.shown.split(ERASE)[1:-1] if part]


def test_a_command_tells_what_it_waits_for(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, f"http://127.0.0.1:{refused_port()}", silent.url)
    quiet = client.changed([silent.url])
    commands = {
        "ls": client.command("ls", FQRN),
        "narrow": client.command("info", FQRN),
        "quiet": quiet.command("verify", "-q", FQRN),
        "dumb": quiet.command("ls", FQRN),
    }
    address = silent.url.removeprefix("http://")
    environment = client.environment
    with (
        Terminal(commands["ls"], tmp_path, environment, columns=120) as ls,
        Terminal(commands["narrow"], tmp_path, environment, columns=30) as narrow,
        Terminal(commands["quiet"], tmp_path, environment) as in_quiet,
        Terminal(commands["dumb"], tmp_path, {**environment, "TERM": "dumb"}) as dumb,
    ):
        ls.wait_for(f"from {address}")
        ls.wait_for("connection refused before")
    assert ls.code == narrow.code == in_quiet.code == dumb.code == 5
    for terminal in (ls, narrow):
        assert told(terminal)
        assert [line for line in terminal.lines if line] == [line for line in terminal.lines if "cvmfs-py " in line]
    assert WAITING.match(told(ls)[0])
    assert all(len(line) < 30 for line in told(narrow))
    for terminal in (in_quiet, dumb):
        assert "waiting" not in terminal.shown


def test_nothing_is_told_where_nobody_looks(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, silent.url)
    with (
        Terminal(client.command("ls", FQRN), tmp_path, client.environment, stderr=subprocess.DEVNULL) as terminal,
        Terminal(client.command("ls", "--debug", FQRN), tmp_path, client.environment) as debug,
    ):
        errors = client.run("ls", FQRN).errors
    assert "waiting" not in terminal.shown + errors
    assert "waiting " not in debug.shown


@pytest.mark.skipif(bool(why_no_mounts()), reason=why_no_mounts())
def test_what_a_daemon_waits_for(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, silent.url)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    environment = client.environment
    with (
        Terminal(client.command("mount", FQRN, str(mountpoint)), tmp_path, environment) as mount,
        Terminal(client.command("mount", "-f", FQRN, str(mountpoint)), tmp_path, environment) as foreground,
        Terminal(client.command("exec", FQRN, "--", "true"), tmp_path, environment) as confined,
    ):
        for terminal in (mount, foreground, confined):
            terminal.wait_for(f"of {FQRN} from {silent.url.removeprefix('http://')}")
    for terminal in (mount, foreground, confined):
        assert terminal.code == 5
        assert told(terminal)
        (line,) = [line for line in terminal.lines if line]
        assert line.startswith("cvmfs-py ")
        assert "cannot fetch .cvmfs" in line
    assert os.listdir(mountpoint) == []


def test_an_interrupt_takes_it_away(tmp_path: Path, silent: FaultServer) -> None:
    client = client_of(tmp_path, silent.url).changed(TIMEOUT_DIRECT="60")
    words = [
        client.command("ls", FQRN),
        client.command("mount", FQRN, str(tmp_path)),
        client.command("exec", FQRN, "--", "true"),
    ]
    terminals = [Terminal(each, tmp_path, client.environment) for each in words]
    for terminal in terminals:
        with terminal:
            terminal.wait_for("waiting ")
            terminal.interrupt()
        assert terminal.code == 130, terminal.shown
        assert [line for line in terminal.lines if line] == []
