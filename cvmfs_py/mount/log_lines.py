"""Keeps the last messages of the log in memory, for those who look at a mount instead of a file.

Concurrency: any thread may log; one deque.
"""

from __future__ import annotations

import logging
import time
from collections import deque

KEPT = 10


class RecentLines(logging.Handler):
    """The last messages, the newest first."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        stamp = time.strftime("%-d %b %Y %H:%M:%S %Z", time.localtime(record.created))
        text = " ".join(record.getMessage().split())
        self._lines.appendleft(f"[{stamp}] {text}")

    def newest(self) -> tuple[str, ...]:
        return tuple(self._lines)
