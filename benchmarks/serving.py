"""Starts the delayed server over a repository, and asks it what it was asked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_PROGRAM = Path(__file__).with_name("delayed_server.py")


class Repository(Protocol):
    """What there is to serve."""

    @property
    def fqrn(self) -> str: ...
    @property
    def document_root(self) -> Path: ...
    @property
    def master_public_key(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Served:
    """What a server was asked between two moments."""

    requests: int
    body_bytes: int
    connections: int
    most_in_flight: int
    missing: int


class DelayedServer:
    """A server in a process of its own, for the length of the block."""

    def __init__(self, repository: Repository, delay_ms: float = 0) -> None:
        self._repository = repository
        self._delay_ms = delay_ms
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> DelayedServer:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), str(self._repository.document_root), str(self._delay_ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._ask())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with self._process:
            self._process.terminate()

    @property
    def fqrn(self) -> str:
        return self._repository.fqrn

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/cvmfs/{self._repository.fqrn}"

    def options(self, cache: Path) -> list[str]:
        """What every command on this repository is given."""
        key = str(self._repository.master_public_key)
        return ["--key", key, "--proxy", "DIRECT", "--cache-dir", str(cache)]

    def served(self) -> Served:
        """What was asked since the last time."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Served(**json.loads(self._ask()))

    def _ask(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("benchmarks: the server has died; see above")
        return line
