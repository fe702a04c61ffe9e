"""Tells the counts of a running mount when it gets SIGUSR1: one line of JSON in its log, or on standard error.

What happened since the mount, and what it holds now. For measurements. Changes nothing.
Concurrency: one task of the event loop.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cvmfs_py.fuse.engine import Engine
    from cvmfs_py.mount.volume import MountedVolume
    from cvmfs_py.stats import Stats

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # somebody has asked for it, whatever else is told


async def tell_counts_on_signal(stats: Stats, engine: Engine, volumes: Callable[[], Collection[MountedVolume]]) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            counts = {
                "requests": dict(stats.requests),
                "local_operations": stats.local_operations,
                "waiting_operations": stats.waiting_operations,
                "waited_s": stats.waited_s,
                "now": _held_now(engine, volumes()),
            }
            _log.info("counts since the mount: %s", json.dumps(counts))


def _held_now(engine: Engine, volumes: Collection[MountedVolume]) -> dict[str, int]:
    """What a mount without users lets go of, or keeps within bounds."""
    inodes = {
        id(volume.files.inodes): volume.files.inodes for volume in volumes
    }  # repositories of one mount share them
    return {
        "waiting_requests": engine.waiting_count,
        "lookups": sum(each.lookups for each in inodes.values()),
        "pins": sum(volume.finder.store.pin_count for volume in volumes),
        "kept_objects": engine.kept_count,
        "attached_catalogs": sum(volume.files.attached_count for volume in volumes),
        "downloads": sum(volume.finder.fetcher.download_count for volume in volumes),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "threads": threading.active_count(),
    }
