"""A terminal with a program on it, as somebody sees it who sits there.

    with Terminal(client.command("ls", fqrn), tmp_path, client.environment) as terminal:
        terminal.wait_for("waiting ")
        terminal.interrupt()
    terminal.code, terminal.shown

What is shown are the bytes that came, escape sequences included. A program that does not end in time is killed.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMIT_S = 60.0
ERASE = "\r\033[K"


class Terminal:
    """The program's standard streams are the terminal; one of them can be something else."""

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.shown = ""
        self.code: int | None = None
        self._deadline = time.monotonic() + LIMIT_S
        self._ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": str(columns), **environment}
        try:
            self._process = subprocess.Popen(
                words,
                cwd=directory,
                env=variables,
                stdin=theirs,
                stdout=theirs if stdout is None else stdout,
                stderr=theirs if stderr is None else stderr,
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._read():
                pass
        finally:
            if self._process.poll() is None and time.monotonic() >= self._deadline:
                self._process.kill()
            self.code = self._process.wait()
            os.close(self._ours)

    def wait_for(self, text: str) -> None:
        """Returns when it was shown."""
        while text not in self.shown:
            assert self._read(), f"{text!r} was never shown: {self.shown!r}"

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    @property
    def lines(self) -> list[str]:
        """What stays: the lines without what was erased again."""
        return [line.rpartition(ERASE)[2].rstrip("\r") for line in self.shown.split("\n")]

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], max(self._deadline - time.monotonic(), 0))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # nobody has the other end open any more
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)
