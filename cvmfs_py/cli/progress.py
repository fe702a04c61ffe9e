"""Progress of a command: counts, bytes, the share of the whole where that is known, rate and remaining time.

Shown in the transient line, redrawn at most ten times a second; nothing where nobody looks.

Concurrency: one thread.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Self

from cvmfs_py.cli.output import size_text
from cvmfs_py.cli.transient_line import LINE

REDRAW_S = 0.1
WINDOW_S = 15.0
_BAR = 20
_SURE_AFTER_S = 2.0  # before that a remaining time would be a guess


class Pace:
    """How fast something goes, over the last seconds: a long stop or a fast beginning is forgotten soon. Pure."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, done: int) -> None:
        samples = self._samples
        samples.append((now_s, done))
        while len(samples) > 2 and samples[1][0] <= now_s - WINDOW_S:
            samples.popleft()

    def skip(self, done: int) -> None:
        """So much was done before: it says nothing about the pace."""
        self._samples = deque((when_s, before + done) for when_s, before in self._samples)

    @property
    def per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (start_s, before), (end_s, after) = self._samples[0], self._samples[-1]
        return max(0, after - before) / max(end_s - start_s, 1e-6)

    def remaining_s(self, left: int) -> float | None:
        """None: not to be said."""
        if not self._samples or self._samples[-1][0] - self._samples[0][0] < _SURE_AFTER_S or not self.per_second:
            return None
        return left / self.per_second


class Progress:
    """Counts what is done; draws it where somebody looks. Whoever interrupts it is told what the same command does."""

    def __init__(self, what: str, *, quiet: bool = False, interrupted: str = "") -> None:
        """`interrupted`: what to tell after Ctrl-C."""
        self.interrupted = "" if quiet else interrupted
        self.is_drawn = not quiet and LINE.is_possible
        self._start = time.monotonic()
        self.begin(what)

    def begin(self, what: str) -> None:
        """Counts something else from now on."""
        self._what = what
        self._last_draw = 0.0
        self.objects = 0
        self.size_bytes = 0
        self.expected_objects = 0
        self.expected_bytes = 0
        self._objects_pace = Pace()
        self._bytes_pace = Pace()
        self._note_pace(time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self.interrupted:
            print(f"cvmfs-py: interrupted; {self.interrupted}", file=sys.stderr)

    def end(self) -> None:
        """Takes the line away for good."""
        if self.is_drawn:
            LINE.draw("")

    def hide(self) -> None:
        """Takes the line away, to print something else; it comes back with the next count."""
        self._last_draw = 0.0
        LINE.hide()

    def expect(self, objects: int = 1, size_bytes: int = 0) -> None:
        """So much more is to be done in all. It may be a little wrong."""
        self.expected_objects += objects
        self.expected_bytes += size_bytes

    def skip(self, size_bytes: int = 0, objects: int = 1) -> None:
        """So much was done already by somebody else."""
        self._objects_pace.skip(objects)
        self._bytes_pace.skip(size_bytes)
        self.advance(size_bytes, objects)

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None:
        self.objects += objects
        self.size_bytes += size_bytes
        if not self.is_drawn:
            return
        now = time.monotonic()
        if now - self._last_draw >= REDRAW_S:
            self._last_draw = now
            self._note_pace(now)
            LINE.draw(self.summary(LINE.columns))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def summary(self, columns: int) -> str:
        """The line; without its bar where it would not fit."""
        for bar in (self._bar(), ""):
            line = self._summary_with(bar)
            if len(line) <= columns:
                break
        return line

    def _note_pace(self, now: float) -> None:
        self._objects_pace.note(now, self.objects)
        self._bytes_pace.note(now, self.size_bytes)

    @property
    def _has_total(self) -> bool:
        return self.expected_objects >= self.objects > 0

    @property
    def _has_bytes_total(self) -> bool:
        return self.expected_bytes >= self.size_bytes and self.expected_bytes > 0

    def _bar(self) -> str:
        if self._has_bytes_total:
            share = self.size_bytes / self.expected_bytes
        elif self._has_total:
            share = self.objects / self.expected_objects
        else:
            return ""
        filled = int(_BAR * share)
        return f" [{'#' * filled}{'.' * (_BAR - filled)}]"

    def _summary_with(self, bar: str) -> str:
        total = f" of {self.expected_objects:,}" if self._has_total else ""
        parts = [f"{self._what}: {self.objects:,}{total}{bar}"]
        if self.size_bytes or self.expected_bytes:
            whole = f" of {size_text(self.expected_bytes)}" if self._has_bytes_total else ""
            parts += [f"{size_text(self.size_bytes)}{whole}", f"{size_text(self._bytes_pace.per_second)}/s"]
        left_s = None
        if self._has_bytes_total:
            left_s = self._bytes_pace.remaining_s(self.expected_bytes - self.size_bytes)
        elif self._has_total:
            left_s = self._objects_pace.remaining_s(self.expected_objects - self.objects)
        parts.append(time_text(self.elapsed_s) if left_s is None else f"{time_text(left_s)} left")
        return ", ".join(parts)


def time_text(seconds: float) -> str:
    """A time for people: two units at most."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours // 24} days"
