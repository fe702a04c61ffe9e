"""Runs `cvmfs-py` as users do: a process of its own, its own cache and configuration, nothing of the machine's.

    client = Client(tmp_path, "test.example.org", [web.url], repository.master_public_key, TIMEOUT="1")
    done = client.run("ls", "-R", client.fqrn)          # done.code, done.output, done.errors, done.elapsed_s
    process = client.start("cp", "-r", client.fqrn + ":/", "copy")

Parameters are written into a configuration file of their own, so that neither /etc/cvmfs nor the user's files count. A
process that does not end in time is killed, and the test fails.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rights import require, unshare_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-I", "-W", "error", "-m", "cvmfs_py")
TIMEOUT_S = 60.0
# Short, so that tests are: what counts is which time limit applies, not how long it is.
IMPATIENT = {"TIMEOUT": "1", "TIMEOUT_DIRECT": "1", "MAX_RETRIES": "0", "BACKOFF_INIT": "0", "DNS_TIMEOUT": "1"}
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    output: bytes
    errors: str
    elapsed_s: float

    @property
    def error_lines(self) -> list[str]:
        return self.errors.splitlines()

    @property
    def names(self) -> list[str]:
        """The lines of the output."""
        return self.output.decode().splitlines()


class Client:
    """One user's `cvmfs-py` with one configuration and one cache directory."""

    def __init__(
        self, directory: Path, fqrn: str, servers: Sequence[str], key: Path | None = None, **parameters: str
    ) -> None:
        """Servers are completed with `/cvmfs/FQRN`; parameters are named without `CVMFS_`."""
        self.fqrn = fqrn
        self.directory = directory
        self.cache = directory / "cache"
        self.parameters = {"SERVER_URL": _base_urls(servers, fqrn), "HTTP_PROXY": "DIRECT", **IMPATIENT}
        self.parameters["PY_CACHE_DIR"] = str(self.cache)
        if key is not None:
            self.parameters["PUBLIC_KEY"] = str(key)
        self.parameters.update(parameters)
        home = directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "LC_ALL": "C.UTF-8"}

    def changed(self, servers: Sequence[str] | None = None, **parameters: str) -> Client:
        """The same user with the same cache and other parameters."""
        other = Client(self.directory, self.fqrn, servers or [])
        other.environment = dict(self.environment)
        other.parameters = self.parameters | parameters
        if servers is not None:
            other.parameters["SERVER_URL"] = _base_urls(servers, self.fqrn)
        return other

    def command(self, *arguments: str) -> list[str]:
        """The words of a command, with this configuration."""
        name, *rest = arguments
        configuration = self.directory / f"client{next(_serial)}.conf"
        text = "".join(f"CVMFS_{name}='{value}'\n" for name, value in self.parameters.items())
        configuration.write_bytes(os.fsencode(text))
        return [*PROGRAM, name, "--config", str(configuration), *rest]

    def start(self, *arguments: str, wrapper: Sequence[str] = (), stdout: int = subprocess.PIPE) -> Running:
        """Starts a command in the client's directory; `wrapper` is a program that runs the rest of its arguments."""
        return Running([*wrapper, *self.command(*arguments)], self.directory, self.environment, stdout)

    def run(self, *arguments: str, wrapper: Sequence[str] = (), timeout_s: float = TIMEOUT_S) -> Finished:
        return self.start(*arguments, wrapper=wrapper).finish(timeout_s)


class Running:
    """A process under way."""

    def __init__(self, words: Sequence[str], directory: Path, environment: Mapping[str, str], stdout: int) -> None:
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            words, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE
        )

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> Finished:
        """Ends it the hard way."""
        self.process.kill()
        return self.finish()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout_s: float = TIMEOUT_S) -> Finished:
        """Waits for the end."""
        with self.process:
            try:
                output, errors = self.process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                _, errors = self.process.communicate()
                raise AssertionError(f"{self.process.args!r} did not end in {timeout_s:g} s: {errors!r}") from None
        text = (errors or b"").decode("utf-8", "replace")
        return Finished(self.process.returncode, output or b"", text, time.monotonic() - self._started)


def in_mount_namespace(script: str) -> list[str]:
    """A wrapper: a shell in a mount namespace of its own, and where we are not root also a user namespace.

    The script may mount things; then the wrapped program runs. Nothing of it is seen outside, nothing stays.
    """
    require("mount namespaces")
    return [*unshare_command(), "/bin/sh", "-ec", f'{script}\nexec "$@"', "sh"]


def _base_urls(servers: Sequence[str], fqrn: str) -> str:
    return ";".join(f"{server}/cvmfs/{fqrn}" for server in servers)


def as_nobody(state: Path, *needed: Path, number: int = 65534) -> list[str]:
    """A wrapper: an ordinary account for whoever is root, in a mount namespace in which it can reach Python.

    What else it needs has to be readable for everybody, or `needed`. Those who are not root are ordinary already.
    """
    if os.geteuid() != 0:
        return []
    become = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
    return [*in_mount_namespace(open_ways(state, *needed)), *become]


def open_ways(state: Path, *needed: Path) -> str:
    """A shell script for a mount namespace: Python, this tree and `needed` can be reached by everybody there.

    A directory that others may not enter, such as root's home, shows nothing but what is needed; `state` keeps it.
    """
    places = sorted({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT, *needed})
    closed = {top for place in places if (top := _first_closed(place)) is not None}
    hidden = [place for place in places if _first_closed(place) is not None]
    lines = [
        f"mkdir -p {state}/{number} && mount --bind {place} {state}/{number}" for number, place in enumerate(hidden)
    ]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {top}" for top in sorted(closed)]
    lines += [f"mkdir -p {place} && mount --bind {state}/{number} {place}" for number, place in enumerate(hidden)]
    return "\n".join(lines)


def _first_closed(path: Path) -> Path | None:
    """The topmost directory on the way to a path, or the path, that others may not enter."""
    for place in (*reversed(path.parents), path):
        if not place.stat().st_mode & 0o001:
            return place
    return None
