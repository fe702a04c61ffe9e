"""The line on a terminal that says what is waited for, once nothing else was said for a while.

It is taken away before anything else is printed: `streams` tells it of all that is written. Where standard error is no
terminal, or --quiet or --debug is given, there is none.

Concurrency: for one thread.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

SILENCE_S = 2.0
_STAYS_S = 1.0  # without a new text: short waits in a row are one for who looks on
_ERASE = b"\r\033[J"  # also what a terminal that became narrower has folded


class WaitingLine:
    """On standard error."""

    def __init__(self) -> None:
        self._silence_s = SILENCE_S
        self._is_usable = False
        self._shown = ""
        self._is_amid_line = False  # there is something behind the last end of a line, which must not be erased
        self._silent_since = time.monotonic()
        self._last_offer = 0.0

    def begin(self, *, quiet: bool) -> None:
        """A command begins."""
        self._is_usable = not quiet and is_terminal(2) and os.environ.get("TERM") != "dumb"
        self._silent_since = time.monotonic()

    @property
    def is_usable(self) -> bool:
        return self._is_usable

    def offer(self, text: str) -> None:
        """Shows what is waited for if the user has not heard anything for long; an empty text: nothing is."""
        if not self._is_usable:
            return
        now = time.monotonic()
        if not text:
            if self._shown and now - self._last_offer > _STAYS_S:
                self._erase()
            return
        self._last_offer = now
        if not self._is_amid_line and now - self._silent_since >= self._silence_s and _is_in_foreground():
            import shutil

            from cvmfs_py.cli.output import one_line

            columns = shutil.get_terminal_size().columns - 1  # one that wraps could not be taken back
            line = one_line(text)
            if len(line) > columns:
                line = line[: columns - 3] + "..."
            if line != self._shown:
                # The cursor goes back, so that the ^C of who interrupts it folds nothing.
                self._write(_ERASE + line.encode("utf-8", "replace") + b"\r")
                self._shown = line

    def withdraw(self) -> None:
        """Takes it away."""
        if self._shown:
            self._erase()

    def withdraw_of_child(self) -> None:
        """Takes away what a child process may have left behind when it was ended."""
        if self._is_usable and not self._is_amid_line:
            self._erase()

    def make_room(self, data: bytes) -> None:
        """Something else is about to be written to the terminal."""
        if not data:
            return
        if self._shown:
            self._erase()
        self._silent_since = time.monotonic()
        # What begins with a return is a line that is drawn again and again, and may go.
        self._is_amid_line = not data.endswith(b"\n") and not data.startswith(b"\r")

    def _erase(self) -> None:
        self._write(_ERASE)
        self._shown = ""

    def _write(self, data: bytes) -> None:
        with suppress(OSError):
            os.write(2, data)


def _is_in_foreground() -> bool:
    """Whether the terminal is ours; a job that was put into the background would draw over what is typed."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:  # a daemon's, which has a session of its own
        return True


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


WAITING_LINE = WaitingLine()
