"""The transient line of standard error: what is going on, on a terminal only, taken away before anything is printed.

Whoever prints hides it first; it comes back when it is drawn the next time. Logging takes it away by itself. All of it
begins with a return, by which others tell that it may be written over.

The cursor stays at the first column: when a terminal becomes narrower and folds the line, all of it can be taken back.

Concurrency: one thread.
"""

from __future__ import annotations

import os
import sys

from cvmfs_py.cli.output import one_line

_COLUMNS = 80


class TransientLine:
    """The one line of this process; use `LINE`."""

    def __init__(self) -> None:
        self._is_shown = False

    @property
    def is_possible(self) -> bool:
        """Whether anybody would see it, and it could be taken back."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def columns(self) -> int:
        """How wide it may be now: a line that is folded could not be taken back everywhere."""
        return terminal_columns() - 1

    def draw(self, text: str) -> None:
        """Shows what is going on, in place of what was drawn before; nothing: takes that away."""
        if not text:
            self.hide()
        elif self.is_possible:
            self._is_shown = True
            self._write(f"\r\033[J{one_line(text)[: self.columns]}\r")

    def hide(self) -> None:
        """Takes the line away, to print something else."""
        if self._is_shown:
            self._is_shown = False
            self._write("\r\033[J")

    def _write(self, data: str) -> None:
        sys.stderr.write(data)
        sys.stderr.flush()


def terminal_columns() -> int:
    """The width of standard error at this moment; where it has none, what COLUMNS says."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    said = os.environ.get("COLUMNS", "")
    return max(2, columns or (int(said) if said.isdecimal() else 0) or _COLUMNS)


LINE = TransientLine()
