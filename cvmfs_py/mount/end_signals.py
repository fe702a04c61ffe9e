"""Signals that ask a daemon to end: told to its event loop, and enforced when that does not take them.

A loop can be stuck, in a system call that never returns or in endless work, and then no handler of Python runs. So the
main thread blocks these signals, and a small thread is there to be interrupted by them instead. It passes on what
arrives, as the loop expects it, and watches that the loop takes it, and that the end comes. When not, it ends the
process without the loop. It cannot when the loop holds the interpreter in endless work outside of Python; against that
SIGKILL helps, which `ending` resorts to.

Concurrency: entered and left by the main thread; the watching thread lives as long as the block.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_log = logging.getLogger(__name__)
END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TAKEN_LIMIT_S = 5.0  # for the loop to take a signal
END_LIMIT_S = 30.0  # for the end to come after that
CLEAR_LIMIT_S = 3.0  # for what is to be done without the loop
EXIT_STUCK = 5


@asynccontextmanager
async def received_end_signals(
    clear_away: Callable[[], None],
) -> AsyncIterator[Callable[[], Awaitable[signal.Signals]]]:
    """Yields what waits for the next signal. When the loop is stuck, another thread calls `clear_away` and ends."""
    with trio.open_signal_receiver(*END_SIGNALS) as signals, _Watch(clear_away) as watch:

        async def next_signal() -> signal.Signals:
            number = await anext(signals)
            watch.taken()
            return signal.Signals(number)

        yield next_signal


class _Watch:
    def __init__(self, clear_away: Callable[[], None]) -> None:
        self._clear_away = clear_away
        self._taken = threading.Event()
        self._is_over = False
        self._asked = signal.SIGTERM
        self._thread = threading.Thread(target=self._run, name="end signals", daemon=True)
        self._loop_fd = -1
        self._read_fd = self._write_fd = -1

    def __enter__(self) -> _Watch:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._loop_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._thread.start()  # before the signals are blocked, because a thread inherits that
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._loop_fd, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._is_over = True  # in this order, so that what came at the last moment is not waited for
        self._taken.set()
        os.close(self._write_fd)
        self._thread.join()
        os.close(self._read_fd)

    def taken(self) -> None:
        self._taken.set()

    def _run(self) -> None:
        arrival = select.poll()
        arrival.register(self._read_fd, select.POLLIN)
        left_ms: float | None = None
        while True:
            if not arrival.poll(left_ms):
                _end(self._asked, "has taken it, and has not come to its end", self._clear_away)
            numbers = os.read(self._read_fd, 64)
            if not numbers:
                return
            self._taken.clear()
            with suppress(BlockingIOError):
                os.write(self._loop_fd, numbers)  # wakes the loop, as if it had come there
            asked = next((number for number in numbers if number in END_SIGNALS), None)
            if asked is None:
                continue
            self._asked = signal.Signals(asked)
            if not self._is_over and not self._taken.wait(TAKEN_LIMIT_S):
                _end(self._asked, f"does not answer for {TAKEN_LIMIT_S:g} s", self._clear_away)
            left_ms = END_LIMIT_S * 1000


def _end(asked: signal.Signals, state: str, clear_away: Callable[[], None]) -> NoReturn:
    """What the loop may hold up, such as the lock of a log, is left to threads that nobody waits for beyond a limit."""
    told = threading.Thread(
        target=_log.error,
        args=(f"{asked.name}: the event loop {state}; unmounting and ending without it",),
        daemon=True,
    )
    cleared = threading.Thread(target=clear_away, daemon=True)
    for thread in (told, cleared):
        thread.start()
    for thread in (told, cleared):
        thread.join(CLEAR_LIMIT_S)
    os._exit(EXIT_STUCK)
