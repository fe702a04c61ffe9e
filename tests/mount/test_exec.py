"""`cvmfs-py exec` and `shell` with a real repository: what the command sees, how it ends, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.compat.zoo_goldens import FQRN, KEY, make_document_root
from tests.mount.mounting import every_engine
from tests.simulator.command import PROGRAM, Client, as_nobody

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting")
SEES = f"cat /cvmfs/{FQRN}/hello.txt"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "client", FQRN, [f"file://{make_document_root(tmp_path / 'www')}"], KEY)
    client.environment["ZOO_SET"] = "a value"
    return client


@pytest.fixture(params=["root", "nobody"])
def wrapper(request: pytest.FixtureRequest, tmp_path: Path, client: Client) -> Sequence[str]:
    """As whom it runs."""
    if request.param == "root":
        return ()
    state = tmp_path / "state"
    state.mkdir()
    for place in (tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)
    for place in (client.directory, *client.directory.rglob("*")):
        os.chown(place, 65534, 65534)
    return as_nobody(state, tmp_path)


@every_engine
def test_a_command_sees_the_repository(client: Client, wrapper: Sequence[str], engine: str) -> None:
    script = f'{SEES}; id -u; ls /cvmfs; echo "$ZOO_SET"; exit 7'
    done = client.run("exec", "--engine", engine, FQRN, "--", "sh", "-c", script, wrapper=wrapper)
    uid = "65534" if wrapper else "0"
    assert (done.code, done.errors) == (7, "")
    assert done.names == ["hello, world", uid, FQRN, "a value"]
    assert left_behind() == []


def test_pins_side_by_side(client: Client, wrapper: Sequence[str]) -> None:
    script = 'ls /cvmfs; for place in /cvmfs/*; do cat "$place/changing/content" 2>/dev/null || echo none; done'
    done = client.run("exec", f"{FQRN}@v1", f"{FQRN}@v2", FQRN, "--", "sh", "-c", script, wrapper=wrapper)
    assert (done.code, done.errors) == (0, "")
    assert done.names[:3] == [FQRN, f"{FQRN}@v1", f"{FQRN}@v2"]
    one = client.run("exec", f"{FQRN}@v1", "--", "ls", "/cvmfs")
    assert one.names == [FQRN]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((FQRN,), 2, "write the command behind a --"),
        (("--", "true"), 2, "name the repositories"),
        ((f"{FQRN}:/path", "--", "true"), 2, "leave out the path"),
        ((f"{FQRN}@none", "--", "true"), 2, "has no tag 'none'"),
        ((FQRN, FQRN, "--", "true"), 3, "named twice"),
        ((FQRN, "--", "no-such-program"), 127, "cannot run no-such-program"),
        (("--engine", "pyfuse3", FQRN, f"{FQRN}@v1", "--", "true"), 2, "use --engine channel"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(client: Client, words: Sequence[str], code: int, text: str) -> None:
    client.environment["PATH"] = "/usr/bin:/bin"  # none of which is closed to anybody
    done = client.run("exec", *words)
    assert (done.code, len(done.error_lines)) == (code, 1), done
    assert text in done.errors
    assert left_behind() == []


def test_signals_arrive_and_end_it_alike(client: Client, wrapper: Sequence[str]) -> None:
    running = client.start("exec", FQRN, "--", "sh", "-c", "echo up; exec sleep 100", wrapper=wrapper)
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == b"up\n"
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == -signal.SIGTERM
    running.finish()
    assert left_behind() == []


@pytest.mark.parametrize("victim", ["front", "daemon"])
def test_nothing_is_left_when_it_is_killed(client: Client, victim: str) -> None:
    running = client.start("exec", FQRN, "--", "sh", "-c", f"{SEES}; cat; {SEES} || echo dead", stdout=subprocess.PIPE)
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == b"hello, world\n"
    if victim == "front":
        running.process.kill()
    else:
        others = [pid for pid in _running() if pid != running.process.pid]
        os.kill(min(others), signal.SIGKILL)  # the daemon comes before process 1
    running.finish()
    assert left_behind() == []


def test_a_shell_is_that_of_the_user(client: Client) -> None:
    client.environment["SHELL"] = "/bin/ls"  # a short session
    done = client.run("shell", FQRN, wrapper=["env", "-C", "/"])
    assert (done.code, done.errors) == (0, "")
    assert "cvmfs" in done.names


def left_behind() -> list[int]:
    """Processes of this program that run a command; those that are about to end get the time for it."""
    end_s = time.monotonic() + 20
    while (found := _running()) and time.monotonic() < end_s:
        time.sleep(0.02)
    return found


def _running() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[: len(PROGRAM) + 1] == [*map(os.fsencode, PROGRAM), b"exec"]:
            found.append(int(name))
    return found
