"""Tells the counts of a running mount when it gets SIGUSR1: one line of JSON in its log, or on standard error.

What it has done since the mount, and what it holds now. For measurements. Changes nothing.

Concurrency: one task of the event loop.
"""

from __future__ import annotations

import json
import logging
import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cvmfs_py.stats import Stats

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # somebody has asked for it, whatever else is told


async def tell_counts_on_signal(stats: Stats, held: Callable[[], Mapping[str, int]]) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            counts = {
                "requests": dict(stats.requests),
                "local_operations": stats.local_operations,
                "waiting_operations": stats.waiting_operations,
                "waited_s": stats.waited_s,
                "now": {"tasks": trio.lowlevel.current_statistics().tasks_living, **held()},
            }
            _log.info("counts since the mount: %s", json.dumps(counts))
