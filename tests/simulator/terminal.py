"""A real terminal: a program runs in a session of its own on a pseudo-terminal, which can be resized and typed at.

    with Terminal(words, columns=80, cwd=tmp_path, environment=env) as terminal:
        terminal.read_until(rb"of 1,690")     # a pattern in what was shown since; gives all of it
        terminal.resize(40)
        terminal.type(b"\\x03")                # Ctrl-C
    terminal.code, terminal.shown             # after its end

`screen_of` tells what is to be seen of all that in the end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TIMEOUT_S = 60.0
_PART = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\r\n\b]|[^\x1b\r\n\b]+|\x1b")


class Terminal:
    """One program on one terminal."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        columns: int = 80,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._fd, theirs = pty.openpty()
        self.resize(columns)
        variables = {**(os.environ if environment is None else environment), "TERM": "xterm"}
        variables.pop("COLUMNS", None)
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=variables
            )
        finally:
            os.close(theirs)
        self.shown = b""
        self._searched = 0

    @property
    def code(self) -> int:
        return self._process.wait(_TIMEOUT_S)

    @property
    def text(self) -> str:
        return self.shown.decode("utf-8", "replace")

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self._fd, data)

    def read_until(self, pattern: bytes) -> re.Match[bytes]:
        """Waits until something is shown that was not found before."""
        while (found := re.compile(pattern).search(self.shown, self._searched)) is None:
            assert self._read(), f"{pattern!r} was not shown: {self.shown!r}"
        self._searched = found.end()
        return found

    def finish(self) -> None:
        """Reads until the program has ended."""
        while self._read():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            if self._process.poll() is None and kind is not None:
                self._process.kill()
            self._process.wait(_TIMEOUT_S)
            os.close(self._fd)

    def _read(self) -> bool:
        assert select.select([self._fd], [], [], _TIMEOUT_S)[0], f"nothing more is shown: {self.shown!r}"
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # nobody has the other end open any more
            return False
        self.shown += data
        return bool(data)


def screen_of(shown: bytes, columns: int = 80) -> list[str]:
    """What is to be seen in the end: the lines, without empty ones at the end."""
    rows = [""]
    row = column = 0
    for part in _PART.findall(shown.decode("utf-8", "replace")):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif part in ("\x1b[K", "\x1b[J"):
            rows[row] = rows[row][:column]
            if part == "\x1b[J":
                del rows[row + 1 :]
        elif not part.startswith("\x1b"):
            for character in part:
                if column >= columns:
                    row, column = row + 1, 0
                    rows += [""] * (row + 1 - len(rows))
                rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
                column += 1
    while rows and not rows[-1].strip():
        rows.pop()
    return [line.rstrip() for line in rows]
