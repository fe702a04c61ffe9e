"""Ctrl-C, readers that leave, and standard streams that are full, closed or dead: quiet ends or one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.people import wait_until
from tests.simulator.command import PROGRAM, ROOT, Client, Finished, Running
from tests.simulator.fault_server import FaultServer, Silence
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Iterator

FQRN = "test.example.org"
LARGE = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    many = {f"file-with-a-long-name-{number:04d}": File(b"%d" % number) for number in range(400)}
    tree = {"many": Directory(many), "large": File(LARGE, chunk_sizes=1 << 19), "small": File(b"small\n")}
    repository.publish(Directory(tree), tag="v1")
    return repository


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[SlowServer]:
    with SlowServer(repository.document_root) as server:
        yield server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, repository: Repository, server: SlowServer) -> Client:
    """A client with a full cache."""
    client = Client(tmp_path_factory.mktemp("client"), FQRN, [server.url], repository.master_public_key)
    assert client.run("verify", "--data", FQRN).code == 0
    assert client.run("tags", FQRN).code == 0
    return client


# Ctrl-C


GOES_ON = "cvmfs-py: interrupted; the same command goes on with the copy where it was stopped\n"


def is_interrupted(done: Finished, told: str = "") -> None:
    assert done.code == 130, done
    assert done.errors == told


@pytest.mark.parametrize("requests", [2, 6, 40, 200, 390])
def test_interrupting_a_copy(tmp_path: Path, repository: Repository, requests: int) -> None:
    with SlowServer(repository.document_root, delay_s=0.02) as server:
        client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
        running = client.start("cp", "-r", f"{FQRN}:/many", "copy")
        server.wait_for_requests(requests, running.is_alive)
        running.interrupt()
        started = time.monotonic()
        is_interrupted(running.finish(), GOES_ON)
        assert time.monotonic() - started < 3
        assert not list(tmp_path.rglob(".cvmfs-py-part*"))
        if (client.cache / "txn").exists():
            assert os.listdir(client.cache / "txn") == os.listdir(client.cache / "running") == []
        server.delay_s = 0
        done = client.run("cp", "-r", f"{FQRN}:/many", "copy")
        assert done.code == 0, done
        assert len(list((tmp_path / "copy").iterdir())) == 400


@pytest.mark.parametrize(
    "arguments", [["ls", FQRN], ["info", FQRN], ["cp", "-r", FQRN, "copy"], ["config", "show", FQRN]]
)
def test_interrupting_what_waits_for_a_silent_server(
    tmp_path: Path, repository: Repository, arguments: list[str]
) -> None:
    with FaultServer(lambda _: Silence()) as silent:
        # The configuration repository is waited for as well.
        client = Client(tmp_path, FQRN, [silent.url], repository.master_public_key, TIMEOUT_DIRECT="1000")
        if arguments[0] == "config":
            words = [*PROGRAM, *arguments, "-o", f"CVMFS_CONFIG_REPOSITORY=config.{FQRN}"]
            client.environment["CVMFS_PY_CACHE_DIR"] = str(client.cache)
            user = tmp_path / "home" / ".config" / "cvmfs-py" / "config.d"
            user.mkdir(parents=True)
            (user / f"config.{FQRN}.conf").write_text(
                f"CVMFS_SERVER_URL={silent.url}\nCVMFS_PUBLIC_KEY={repository.master_public_key}\n"
            )
            running = Running(words, tmp_path, client.environment, subprocess.PIPE)
        else:
            running = client.start(*arguments)
        deadline = time.monotonic() + 20
        while not silent.requests and running.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.interrupt()
        started = time.monotonic()
        is_interrupted(running.finish(), GOES_ON if arguments[0] == "cp" else "")
        assert time.monotonic() - started < 2


def test_interrupting_at_any_moment(client: Client) -> None:
    """From the first import to the last line there is nothing but silence."""
    words = [word for word in client.command("ls", "-R", "--json", FQRN) if word not in ("-W", "error")]
    for moment in range(12):
        running = Running(words, client.directory, client.environment, subprocess.PIPE)
        time.sleep(0.06 + moment * 0.02)
        running.interrupt()
        done = running.finish()
        if done.code in (1, -2) and "cvmfs_py" not in done.errors:
            continue  # it was Python itself that was interrupted, before it ran anything of ours
        assert done.code in (130, 0), done
        assert done.errors == ""


@pytest.mark.parametrize("arguments", [["ls", FQRN], ["config", "show", FQRN], ["cache", "status"]], ids=" ".join)
def test_interrupting_a_configuration_file_that_waits(client: Client, arguments: list[str]) -> None:
    """And the shell that reads it goes, too."""
    mark = client.directory / "shell"
    mark.unlink(missing_ok=True)
    waiting = client.directory / "waiting.conf"
    waiting.write_text(f"echo $$ > {mark}.new; mv {mark}.new {mark}\nsleep 60\nCVMFS_TIMEOUT=1\n")
    name, *rest = arguments
    words = [*PROGRAM, name, *rest, "--config", str(waiting)]
    running = Running(words, client.directory, client.environment, subprocess.PIPE)
    while not mark.exists():
        assert running.is_alive()
        time.sleep(0.01)
    running.interrupt()
    started = time.monotonic()
    is_interrupted(running.finish(5))
    assert time.monotonic() - started < 3
    shell = int(mark.read_text())
    assert wait_until(lambda: not is_running(shell))


def is_running(pid: int) -> bool:
    """Where nobody buries the dead, as in a container, they stay in the list of processes."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state != b"Z"


def test_interrupting_a_listing_of_what_is_here(tmp_path: Path, repository: Repository) -> None:
    """Nothing is waited for, and still it ends at once."""
    other = Repository.create(tmp_path / "other", FQRN, master=repository.master)
    other.publish(Directory({f"entry{number}": File(b"") for number in range(30_000)}))
    with SlowServer(other.document_root) as server:
        client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
        assert client.run("ls", "-d", FQRN).code == 0
        for arguments in (["ls", "--json", FQRN], ["ls", "-l", FQRN]):
            reading, writing = os.pipe()
            running = client.start(*arguments, stdout=writing)
            os.close(writing)
            os.read(reading, 1)  # it is under way
            running.interrupt()
            while os.read(reading, 1 << 20):
                pass
            os.close(reading)
            is_interrupted(running.finish(5))


# the reader has gone


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "-R", FQRN],
        ["ls", "-R", "--json", FQRN],
        ["cat", f"{FQRN}:/large", f"{FQRN}:/large"],
        ["config", "parameters"],
    ],
    ids=" ".join,
)
def test_the_reader_has_seen_enough(client: Client, arguments: list[str]) -> None:
    """As with `cvmfs-py ls -R REPO | head -1`."""
    reading, writing = os.pipe()
    running = client.start(*arguments, stdout=writing) if arguments[0] != "config" else config(client, writing)
    os.close(writing)
    assert os.read(reading, 1)
    os.close(reading)
    done = running.finish()
    assert (done.code, done.errors) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["ls", FQRN], ["cat", f"{FQRN}:/small"], ["info", FQRN], ["ls", "--help"]], ids=" ".join
)
def test_there_never_was_a_reader(client: Client, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = client.start(*arguments, stdout=writing).finish()
    os.close(writing)
    assert (done.code, done.errors) == (0, "")


def config(client: Client, stdout: int) -> Running:
    return Running([*PROGRAM, "config", "parameters"], client.directory, client.environment, stdout)


# full and closed streams

PRINTING = [
    ["ls", FQRN],
    ["ls", "-R", "--json", FQRN],
    ["stat", f"{FQRN}:/small"],
    ["cat", f"{FQRN}:/small"],
    ["cat", f"{FQRN}:/large"],
    ["tags", FQRN],
    ["info", FQRN],
    ["verify", FQRN],
    ["cache", "status"],
    ["cache", "ls"],
    ["config", "show", FQRN],
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_that_cannot_be_written(client: Client, arguments: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = client.start(*arguments, stdout=full).finish()
    os.close(full)
    message = f"cvmfs-py {arguments[0]}: cannot write to standard output: "
    assert (done.code, done.errors) == (5, f"{message}No space left on device\n")
    done = client.run(*arguments, wrapper=["/bin/sh", "-c", 'exec "$@" >&-', "sh"])
    assert (done.code, done.errors) == (5, f"{message}Bad file descriptor\n")
    done = client.run(*arguments, wrapper=["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    assert (done.code, done.output, done.errors) == (5, b"", "")


def test_help_that_cannot_be_written(client: Client) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    for arguments in (["--help"], ["--version"], ["ls", "--help"]):
        done = Running([*PROGRAM, *arguments], client.directory, client.environment, full).finish()
        assert (done.code, done.errors) == (5, "cvmfs-py: cannot write to standard output: No space left on device\n")
    os.close(full)


def test_what_prints_nothing_needs_no_output(client: Client) -> None:
    """And the files that are opened do not take the places of closed streams."""
    wrapper = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    for number in range(2):
        done = client.run("cp", "-r", f"{FQRN}:/", f"copy{number}", wrapper=wrapper)
        assert (done.code, done.errors) == (0, "")
        assert (client.directory / f"copy{number}" / "large").read_bytes() == LARGE
    assert client.run("cache", "check").code == 0
    done = client.changed(["http://127.0.0.1:9"]).run("cp", f"{FQRN}:/small", "copy2", wrapper=wrapper)
    assert done.code == 0, done
    assert (client.directory / "copy2").read_bytes() == b"small\n"


@pytest.mark.parametrize("place", ["/dev/full", "a pipe without a reader"])
def test_messages_that_cannot_be_written(client: Client, place: str) -> None:
    """They are lost, and nothing else is."""
    if place == "/dev/full":
        broken = os.open(place, os.O_WRONLY)
    else:
        reading, broken = os.pipe()
        os.close(reading)
    try:
        for arguments, code, output in (
            (["ls", f"{FQRN}:/nothing"], 5, b""),
            (["ls", "--nonsense"], 2, b""),
            (["nonsense"], 2, b""),
            (["cat", f"{FQRN}:/nothing", f"{FQRN}:/small"], 5, b"small\n"),
            (["cat", "--debug", f"{FQRN}:/small"], 0, b"small\n"),
        ):
            words = client.command(*arguments) if len(arguments) > 1 else [*PROGRAM, *arguments]
            done = subprocess.run(
                words, cwd=client.directory, env=client.environment, stdout=subprocess.PIPE, stderr=broken, check=False
            )
            assert (done.returncode, done.stdout) == (code, output), arguments
    finally:
        os.close(broken)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
def test_output_in_an_encoding_that_lacks_something(client: Client, encoding: str) -> None:
    """As on a terminal with a locale of the last century, or a path that is no text under any locale."""
    environment = {**client.environment, "PYTHONIOENCODING": encoding}
    program = [sys.executable, "-W", "error", str(ROOT / "cvmfs_py" / "__main__.py")]  # isolated, it ignores that
    wanted = {"utf-8:strict": "\u65e5\u00e9".encode(), "latin-1:strict": rb"\u65e5" + b"\xe9"}
    for value, expected in (
        ("\u65e5\u00e9", wanted.get(encoding, rb"\u65e5\xe9")),
        (os.fsdecode(b"x \xff"), b"x \xff"),
    ):
        words = [*program, "config", "show", "--config", "", f"-oFOO={value}"]
        done = Running(words, client.directory, environment, subprocess.PIPE).finish()
        assert (done.code, done.errors) == (0, ""), done
        assert b"FOO='" + expected + b"'" in done.output
