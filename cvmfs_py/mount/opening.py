"""Opens a repository as a volume for an engine, and keeps it up to date while it is shown.

Concurrency: tasks of one event loop; a volume lives as long as its block.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from cvmfs_py.mount import wiring
from cvmfs_py.mount.assemble import load_wanted_settings, open_finder
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.facts import mount_facts
from cvmfs_py.mount.limits import attached_catalogs
from cvmfs_py.mount.refresh import Refresh
from cvmfs_py.mount.volume import MountedVolume, load_snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.log_lines import RecentLines
    from cvmfs_py.stats import Stats
    from cvmfs_py.vfs.files import RepositoryFiles
    from cvmfs_py.vfs.snapshot import Snapshot

_log = logging.getLogger(__name__)


async def load_settings_of(wanted: Wanted) -> Settings:
    """The settings in force; what the user should know of them goes to the log."""
    settings, warnings = await load_wanted_settings(wanted)
    for warning in warnings:
        _log.warning("%s", warning)
    return settings


@asynccontextmanager
async def opened_volume(
    settings: Settings, stats: Stats, make_files: Callable[[Snapshot], RepositoryFiles]
) -> AsyncIterator[MountedVolume]:
    """The repository at the root that its settings ask for. `make_files` gives it its place among the inodes."""
    view = wiring.make_view(settings, claim_by_default=True)
    warnings: list[str] = []
    async with open_finder(settings, warnings, attached_limit=attached_catalogs()) as finder:
        root = await finder.find()
        for warning in warnings:
            _log.warning("%s", warning)
        snapshot = await load_snapshot(finder, root, view)
        with ExitStack() as held, first_error():
            async with trio.open_nursery() as background:
                volume = MountedVolume(finder, root, make_files(snapshot), background, stats)
                held.callback(volume.files.close)
                yield volume
                background.cancel_scope.cancel()


def follow(volume: MountedVolume, lines: RecentLines, nursery: trio.Nursery, changed: Callable[[], None]) -> None:
    """Keeps a live repository up to date, and lets its attributes tell about the mount."""
    if volume.files.snapshot.is_pinned or not volume.finder.settings.auto_update:
        volume.facts = mount_facts(volume, lines, lambda: 0.0, lambda: "")
        return
    refresh = Refresh(volume, changed)
    volume.facts = mount_facts(
        volume, lines, lambda: refresh.next_at - trio.current_time(), lambda: refresh.offline_reason
    )
    nursery.start_soon(refresh.run)
