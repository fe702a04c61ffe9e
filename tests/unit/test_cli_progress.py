"""Progress: what its line says, that it fits, that it is taken back, and that nobody fights for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cvmfs_py.cli.progress import Pace, Progress, time_text
from tests.simulator.terminal import Terminal, screen_of

COUNT = """
import sys, time
from cvmfs_py.cli.progress import Progress
with Progress("copied", quiet="quiet" in sys.argv) as progress:
    progress.expect(3, 3 << 20)
    for _ in range(3):
        progress.advance(1 << 20)
        time.sleep(0.11)
    progress.hide()
    print("between", file=sys.stderr)
    progress.advance(1)
"""
STEPS = """
import sys, time
from cvmfs_py.cli import progress as module
module.REDRAW_S = 0
with module.Progress("copied") as progress:
    progress.expect(100, 100 << 20)
    for line in sys.stdin:
        progress.advance(1 << 20)
"""
INTERRUPTED = """
from cvmfs_py.cli.progress import Progress
with Progress("copied", interrupted="the same command goes on") as progress:
    progress.advance()
    raise KeyboardInterrupt
"""


def program(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *words]


def parts_of(shown: bytes) -> list[bytes]:
    """What the line was, one after the other."""
    return [part.partition(b"\r")[0] for part in shown.split(b"\r\x1b[J") if part.partition(b"\r")[0]]


def test_it_is_drawn_and_taken_back() -> None:
    with Terminal(program(COUNT)) as terminal:
        pass
    first, second, third, between, last = parts_of(terminal.shown)
    assert first.startswith(b"copied: 1 of 3 [######..............], 1.0 MiB of 3.0 MiB, ")
    assert second.startswith(b"copied: 2 of 3 [#############.......], 2.0 MiB of 3.0 MiB, ")
    assert third.startswith(b"copied: 3 of 3 [####################], 3.0 MiB of 3.0 MiB, ")
    assert between == b"between"  # a message has a line of its own
    assert last.startswith(b"copied: 4, 3.0 MiB, ")  # what was expected was wrong
    assert screen_of(terminal.shown) == ["between"]
    assert terminal.code == 0


def test_it_fits_a_terminal_that_changes() -> None:
    with Terminal(program(STEPS), columns=100) as terminal:
        for columns, objects in ((100, 1), (30, 2), (14, 3), (120, 4)):
            terminal.resize(columns)
            terminal.type(b"\n")
            terminal.read_until(rb"copied: %d[^\r]*\r" % objects)
        terminal.type(b"\x04")
    drawn = [part for part in parts_of(terminal.shown) if part.startswith(b"copied")]
    assert [len(part) < columns for part, columns in zip(drawn, (100, 30, 14, 120), strict=True)] == [True] * 4
    assert b"[" in drawn[0]
    assert drawn[1].startswith(b"copied: 2 of 100, ")
    assert drawn[2] == b"copied: 3 of"
    assert drawn[3].startswith(b"copied: 4 of 100 [")


def test_the_cursor_waits_at_the_beginning() -> None:
    """So that all of a line that a narrower terminal folds is behind it, and can be taken away."""
    with Terminal(program(STEPS), columns=60) as terminal:
        terminal.type(b"\n")
        terminal.read_until(rb"copied: 1")
        terminal.type(b"\x04")
    drawn = terminal.shown[terminal.shown.index(b"copied: 1") :]
    assert drawn[: drawn.index(b"\r\x1b[J")].endswith(b"\r") or b"\r\r\x1b[J" in drawn


@pytest.mark.parametrize(("words", "environment"), [(("quiet",), {}), ((), {"TERM": "dumb"})])
def test_it_is_not_shown_where_nobody_wants_it(words: tuple[str, ...], environment: dict[str, str]) -> None:
    wrapper = ["env", *(f"{name}={value}" for name, value in environment.items())]
    with Terminal([*wrapper, *program(COUNT, *words)]) as terminal:
        pass
    assert terminal.shown == b"between\r\n"


def test_pipes_get_nothing_of_it() -> None:
    done = subprocess.run(program(COUNT), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"between\n")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_whoever_interrupts_it_is_told_what_comes(on_terminal: bool) -> None:
    told = "cvmfs-py: interrupted; the same command goes on"
    if on_terminal:
        with Terminal(program(INTERRUPTED), columns=200) as terminal:
            pass
        lines = screen_of(terminal.shown, 200)
    else:
        done = subprocess.run(program(INTERRUPTED), capture_output=True, check=False, env={**os.environ})
        lines = done.stderr.decode().splitlines()
    assert lines[0] == told
    assert lines[-1] == "KeyboardInterrupt"


# what it computes


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(100):
        pace.note(second, second, second * 1000 if second < 50 else 50_000)
    assert pace.bytes_per_second == 0
    assert pace.remaining_s(lambda objects, size_bytes: objects / 200) == pytest.approx(101)
    assert pace.remaining_s(lambda objects, size_bytes: size_bytes / 100_000) is None


def test_what_was_there_before_says_nothing_about_the_pace() -> None:
    pace = Pace()
    pace.note(0, 0, 0)
    pace.skip(500, 5000)
    pace.note(10, 510, 5100)
    assert pace.bytes_per_second == pytest.approx(10)
    assert pace.remaining_s(lambda objects, size_bytes: objects / 1000) == pytest.approx(490)


def test_no_remaining_time_before_it_can_be_known() -> None:
    pace = Pace()
    assert pace.remaining_s(lambda objects, size_bytes: objects / 10) is None
    pace.note(0, 0, 0)
    pace.note(1, 1, 1)
    assert pace.remaining_s(lambda objects, size_bytes: objects / 10) is None


def test_many_small_ones_before_a_few_large_ones_do_not_mislead() -> None:
    progress = Progress("copied", quiet=True)
    progress.expect(100, 1000)
    progress.advance(10, objects=50)
    assert progress.summary(100).startswith("copied: 50 of 100 [#####...............], 10 B of 1000 B, ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (5400, "1 h 30 min"), (1e6, "11 days")],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
