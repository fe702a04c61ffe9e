"""A progress line on standard error, on a terminal only: counts, bytes, rate. Redrawn at most ten times a second."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Self

from cvmfs_py.cli.output import size_text

REDRAW_S = 0.1


class Progress:
    """Counts what is done; draws it where somebody looks."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what = what
        self._drawn = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = time.monotonic()
        self._last_draw = 0.0
        self.objects = 0
        self.size_bytes = 0
        self.expected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Takes the line away, to print something else; it comes back with the next count."""
        if self._drawn and self._last_draw:
            self._last_draw = 0.0
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def expect(self, objects: int = 1) -> None:
        self.expected += objects

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None:
        self.objects += objects
        self.size_bytes += size_bytes
        now = time.monotonic()
        if self._drawn and now - self._last_draw >= REDRAW_S:
            self._last_draw = now
            # A line that wraps could not be taken back.
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\033[K{self.summary()[: columns - 1]}")
            sys.stderr.flush()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def summary(self) -> str:
        seconds = max(self.elapsed_s, 1e-6)
        share = ""
        if self.expected >= self.objects > 0:
            filled = round(20 * self.objects / self.expected)
            share = f" [{'#' * filled}{'.' * (20 - filled)}] of {self.expected}"
        return (
            f"{self._what}: {self.objects}{share}, {size_text(self.size_bytes)},"
            f" {size_text(self.size_bytes / seconds)}/s, {seconds:.0f} s"
        )
