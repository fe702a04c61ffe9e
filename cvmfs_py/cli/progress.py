"""Progress of a command: counts, bytes, the share of the whole where that is known, rate and remaining time.

Shown in the transient line, redrawn at most ten times a second; nothing where nobody looks.

Concurrency: one thread.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from cvmfs_py.cli.output import size_text
from cvmfs_py.cli.transient_line import LINE

if TYPE_CHECKING:
    from collections.abc import Callable

REDRAW_S = 0.1
WINDOW_S = 15.0
_BAR = 20
_SURE_AFTER_S = 2.0  # before that a remaining time would be a guess


class Pace:
    """How fast something goes, over the last seconds: a long stop or a fast beginning is forgotten soon. Pure."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def note(self, now_s: float, objects: int, size_bytes: int) -> None:
        """So much is done in all."""
        samples = self._samples
        samples.append((now_s, objects, size_bytes))
        while len(samples) > 2 and samples[1][0] <= now_s - WINDOW_S:
            samples.popleft()

    def skip(self, objects: int, size_bytes: int) -> None:
        """So much was done before: it says nothing about the pace."""
        self._samples = deque((when_s, count + objects, size + size_bytes) for when_s, count, size in self._samples)

    @property
    def bytes_per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (start_s, _, before), (end_s, _, after) = self._samples[0], self._samples[-1]
        return max(0, after - before) / max(end_s - start_s, 1e-6)

    def remaining_s(self, share_of: Callable[[int, int], float]) -> float | None:
        """How long the rest takes, by the share of the whole that so many objects and bytes are. None: who knows."""
        if len(self._samples) < 2:
            return None
        start_s, *before = self._samples[0]
        end_s, *after = self._samples[-1]
        done = share_of(*after)
        gained = done - share_of(*before)
        if end_s - start_s < _SURE_AFTER_S or gained <= 0:
            return None
        return max(0.0, 1 - done) * (end_s - start_s) / gained


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
        self._pace = Pace()
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
        self._pace.skip(objects, size_bytes)
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
        """The line; where it does not fit, what matters least is left out."""
        known = self.expected_objects >= self.objects > 0
        bytes_known = self.expected_bytes >= self.size_bytes and self.expected_bytes > 0
        head = f"{self._what}: {self.objects:,}" + (f" of {self.expected_objects:,}" if known else "")
        sizes = rates = []
        if self.size_bytes or self.expected_bytes:
            whole = f" of {size_text(self.expected_bytes)}" if bytes_known else ""
            sizes = [f"{size_text(self.size_bytes)}{whole}"]
            rates = [f"{size_text(self._pace.bytes_per_second)}/s"]
        left_s = self._pace.remaining_s(self._share) if known or bytes_known else None
        times = [time_text(self.elapsed_s) if left_s is None else f"{time_text(left_s)} left"]
        variants = ([head, *sizes, *rates, *times], [head, *sizes, *times], [head, *times], [head])
        lines = [", ".join(parts) for parts in variants]
        if known or bytes_known:
            filled = int(_BAR * self._share(self.objects, self.size_bytes))
            bar = f"{head} [{'#' * filled}{'.' * (_BAR - filled)}]"
            lines.insert(0, lines[0].replace(head, bar, 1))
        return next((line for line in lines if len(line) <= columns), head[:columns])

    def _share(self, objects: int, size_bytes: int) -> float:
        """How much of the whole that is. Both objects and bytes take their time, and which of them is not known."""
        shares = []
        if self.expected_objects >= self.objects > 0:
            shares.append(objects / self.expected_objects)
        if self.expected_bytes >= self.size_bytes and self.expected_bytes > 0:
            shares.append(size_bytes / self.expected_bytes)
        return sum(shares) / len(shares)

    def _note_pace(self, now: float) -> None:
        self._pace.note(now, self.objects, self.size_bytes)


def time_text(seconds: float) -> str:
    """A time for people: two units at most."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours // 24} days"
