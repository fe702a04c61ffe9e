"""Reads the log files of daemons: the last lines, and what is added while they run, also across a rotation.

Where they are is for `daemon_log`. Blocking; whoever follows a file comes by from time to time.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Self

ROTATED = b".1"
_BLOCK_BYTES = 64 << 10


class LogFile:
    """One log under its name, from where it was opened on."""

    def __init__(self, path: bytes) -> None:
        """Raises OSError where there is none."""
        self.path = path
        self._fd = _open(path)
        self._begun = b""  # of a line that is not whole yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def last_lines(self, count: int) -> list[bytes]:
        """The last lines so far; when these are few, those before the last rotation, too. Each file is small."""
        lines = self._read_on()
        if len(lines) < count:
            with suppress(OSError), LogFile(self.path + ROTATED) as older:
                lines = [*older._read_on(), *lines]
        return lines[-count:] if count else []

    def new_lines(self) -> list[bytes]:
        """What was added since the last question: the rest of the file, and the one that has its name now."""
        lines = self._read_on()
        try:
            fd = _open(self.path)
        except OSError:  # the next one is not there yet
            return lines
        if os.path.sameopenfile(fd, self._fd):
            os.close(fd)
            return lines
        lines += self._read_on()  # what came between the two
        if self._begun:
            lines.append(self._begun)
        self._begun = b""
        os.close(self._fd)
        self._fd = fd
        return lines + self._read_on()

    def _read_on(self) -> list[bytes]:
        parts = [self._begun]
        while data := os.read(self._fd, _BLOCK_BYTES):
            parts.append(data)
        *lines, self._begun = b"".join(parts).split(b"\n")
        return lines


def _open(path: bytes) -> int:
    """Whoever wrote down where his log is may have named anything."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return fd
