"""How long to wait before the same path is tried again.

Pure: the random source is given. One object per request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


class Backoff:
    """First a random part of `init_s`, so that many clients do not come back together, then doubled up to `max_s`."""

    __slots__ = ("_init_s", "_last_s", "_max_s", "_rng")

    def __init__(self, init_s: float, max_s: float, rng: random.Random) -> None:
        self._init_s = init_s
        self._max_s = max_s
        self._rng = rng
        self._last_s = 0.0

    def next_s(self) -> float:
        if self._last_s:
            self._last_s *= 2
        else:
            self._last_s = self._rng.uniform(0, self._init_s)
        self._last_s = min(self._last_s, self._max_s)
        return self._last_s
