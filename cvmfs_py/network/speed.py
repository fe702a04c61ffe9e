"""The low-speed limit: how slowly a peer may send before it is given up.

Counts only time spent waiting for the peer, so that a busy machine of our own does not get a server blamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cvmfs_py.network.outcomes import Failure
from cvmfs_py.network.transport import NO_TIMEOUT_S, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class SpeedWindow:
    """One transfer's window of `timeout_s` seconds, in which `limit_bytes_s` must be reached on average."""

    __slots__ = ("_bytes", "_limit_bytes_s", "_total_bytes", "_waited_s", "_window_s")

    def __init__(self, timeout_s: float, limit_bytes_s: int) -> None:
        self._window_s = timeout_s or NO_TIMEOUT_S
        self._limit_bytes_s = limit_bytes_s
        self._waited_s = 0.0
        self._bytes = 0
        self._total_bytes = 0

    async def wait(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Waits for the peer; raises TransportError when the window closes on too little."""
        while True:
            started = trio.current_time()
            with trio.move_on_after(self._window_s - self._waited_s) as scope:
                await ready()
            self._waited_s += trio.current_time() - started
            if not scope.cancelled_caught:
                return
            self._close_window()

    def received(self, count_bytes: int) -> None:
        self._bytes += count_bytes
        self._total_bytes += count_bytes
        if self._waited_s >= self._window_s:
            self._close_window()

    def _close_window(self) -> None:
        if not self._total_bytes:
            raise TransportError(Failure.SLOW, f"no answer in {self._window_s:g} s")
        if self._bytes < max(self._limit_bytes_s * self._window_s, 1):
            limit = f"slower than {self._limit_bytes_s} B/s" if self._limit_bytes_s else "nothing received"
            raise TransportError(Failure.SLOW, f"{limit} for {self._window_s:g} s")
        self._waited_s = 0.0
        self._bytes = 0
