"""Follows a live repository: asks for a newer revision when the time of the last one is over, and shows it.

No operation ever waits for it. What it cannot get it tries again; the mount goes on with what it has.
Concurrency: one task.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError, in_full
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.mount.volume import load_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfs_py.mount.roots import Root
    from cvmfs_py.mount.volume import MountedVolume
    from cvmfs_py.vfs.snapshot import Snapshot

_log = logging.getLogger(__name__)
AGAIN_S = 180.0  # after a failure
SHORTEST_S = 1.0
MINUTE_S = 60.0


class Refresh:
    """Keeps one volume up to date. `applied` is called after each change of the root."""

    def __init__(self, volume: MountedVolume, applied: Callable[[], None]) -> None:
        self._volume = volume
        self._applied = applied
        self._is_offline = False
        # why no server vouches for what is shown; empty: one does
        self.offline_reason = RootOrigin.OFFLINE.value if volume.root.origin is RootOrigin.OFFLINE else ""
        self._asked = trio.Event()
        self.next_at = trio.current_time() + self._interval_s()  # of the event loop's clock

    async def run(self) -> None:
        while True:
            with trio.move_on_at(self.next_at):
                await self._asked.wait()
            self._asked = trio.Event()
            is_good = await self.refresh()
            self.next_at = trio.current_time() + (self._interval_s() if is_good else AGAIN_S)

    def ask(self) -> None:
        """Look now."""
        self._asked.set()

    async def refresh(self) -> bool:
        """Asks the servers once, and shows what is newer. Says whether they had an answer."""
        volume, finder = self._volume, self._volume.finder
        known = len(finder.warnings)
        try:
            root = await finder.find()
            if root.origin is RootOrigin.OFFLINE:
                self._go_offline("; ".join(finder.warnings[known:]))
                if root.tree is not volume.files.snapshot.tree:
                    root.tree.close()
                return False
            if root.content_hash == volume.files.snapshot.root_hash:
                root.tree.close()
            else:
                self._show(root, await load_snapshot(finder, root, volume.files.snapshot.view))
        except (CvmfsError, CatalogError) as error:
            self._go_offline(in_full(error))
            return False
        finally:
            del finder.warnings[known:]
        self.offline_reason = ""
        if self._is_offline:
            self._is_offline = False
            _log.warning("%s: a server answers again", finder.settings.fqrn)
        return True

    def _show(self, root: Root, snapshot: Snapshot) -> None:
        self._volume.adopt(root, snapshot)
        _log.info("switched to revision %d, root hash %s", snapshot.revision, snapshot.root_hash)
        self._applied()

    def _go_offline(self, reason: str) -> None:
        self.offline_reason = reason
        if not self._is_offline:
            self._is_offline = True
            _log.warning("%s: no news, going on with what is known: %s", self._volume.finder.settings.fqrn, reason)

    def _interval_s(self) -> float:
        settings = self._volume.finder.settings
        ttl_s = float(self._volume.files.snapshot.properties.ttl_s)
        if settings.max_ttl_minutes:
            ttl_s = min(ttl_s, settings.max_ttl_minutes * MINUTE_S)
        return max(ttl_s, SHORTEST_S)
