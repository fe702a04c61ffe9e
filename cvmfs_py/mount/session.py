"""One mount from beginning to end: opens the repository, has it mounted, serves it, follows new revisions, unmounts.

Puts together what the rows below offer, and decides the order in which it begins and ends. Concurrency: the tasks of
one event loop; the daemon's process has nothing else.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from cvmfs_py.errors import ConfigError, MountError
from cvmfs_py.fuse import handover
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.handover import MountOptions, Way
from cvmfs_py.mount import wiring
from cvmfs_py.mount.assemble import load_wanted_settings, open_finder
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.facts import mount_facts
from cvmfs_py.mount.log_lines import RecentLines
from cvmfs_py.mount.refresh import Refresh
from cvmfs_py.mount.space import SingleSpace
from cvmfs_py.mount.volume import MountedVolume, load_snapshot
from cvmfs_py.stats import Stats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.fuse.engine import Engine
    from cvmfs_py.fuse.handover import Handover
    from cvmfs_py.mount.assemble import Wanted

_log = logging.getLogger(__name__)
END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What is to be mounted where."""

    wanted: Wanted
    mountpoint: str  # or /dev/fd/N: a descriptor that somebody else has mounted
    engine: str = ""  # empty: as configured


async def serve_mount(plan: MountPlan, ready: Callable[[Settings], None]) -> None:
    """Serves until the end of the mount; `ready` is called when it answers."""
    settings, warnings = await load_wanted_settings(plan.wanted)
    for warning in warnings:
        _log.warning("%s", warning)
    session = _Session(plan, settings, warnings)
    if handover.choose_way(plan.mountpoint, may_mount=False) is Way.GIVEN:
        await session.serve_handed_over(ready)
    else:
        await session.serve_mounted(ready)


class _Session:
    """The parts of one mount."""

    def __init__(self, plan: MountPlan, settings: Settings, warnings: list[str]) -> None:
        self._plan = plan
        self._settings = settings
        self._warnings = warnings
        self._stats = Stats()
        self._lines = RecentLines()
        self._space = SingleSpace()
        self._engine = make_engine(plan.engine or settings.engine, self._space, Failures(self._stats))

    async def serve_mounted(self, ready: Callable[[Settings], None]) -> None:
        """Opens the repository first: what is wrong with it is said before anything is mounted."""
        async with self._opened() as volume:
            self._space.open(volume)
            taken = handover.obtain(self._plan.mountpoint, mount_options(self._settings))
            try:
                with first_error():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._serve, taken, nursery)
                        nursery.start_soon(self._end_on_signals, taken)
                        await self._probe()
                        ready(self._settings)
                        self._follow(volume, nursery)
            finally:
                taken.unmount()

    async def serve_handed_over(self, ready: Callable[[Settings], None]) -> None:
        """Answers the kernel at once: who handed over the descriptor expects no handshake."""
        taken = handover.accept_given(self._plan.mountpoint)
        try:
            with first_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._serve, taken, nursery)
                    nursery.start_soon(self._end_on_signals, taken)
                    try:
                        async with self._opened() as volume:
                            self._space.open(volume)
                            ready(self._settings)
                            self._follow(volume, nursery)
                            await trio.sleep_forever()
                    except Exception as error:
                        self._space.fail(error)
                        raise
        finally:
            taken.unmount()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[MountedVolume]:
        settings = self._settings
        view = wiring.make_view(settings, claim_by_default=True)
        async with open_finder(settings, self._warnings) as finder:
            told = len(self._warnings)
            root = await finder.find()
            for warning in self._warnings[told:]:
                _log.warning("%s", warning)
            snapshot = await load_snapshot(finder, root, view)
            with ExitStack() as held, first_error():
                async with trio.open_nursery() as background:
                    volume = MountedVolume(finder, root, snapshot, background, self._stats)
                    held.callback(volume.files.close)
                    yield volume
                    background.cancel_scope.cancel()

    async def _serve(self, taken: Handover, nursery: trio.Nursery) -> None:
        """Ends everything when the mount ends."""
        await self._engine.serve(taken.fd, ())
        nursery.cancel_scope.cancel()

    async def _end_on_signals(self, taken: Handover) -> None:
        with trio.open_signal_receiver(*END_SIGNALS) as signals:
            async for number in signals:
                _log.info("%s: unmounting", signal.Signals(number).name)
                taken.unmount()
                self._engine.stop()
                break

    async def _probe(self) -> None:
        """Makes sure that the mount answers, as a program would see it."""
        try:
            await trio.to_thread.run_sync(os.stat, self._plan.mountpoint, abandon_on_cancel=True)
        except OSError as error:
            raise MountError(f"{self._plan.mountpoint} is mounted, but does not answer: {error.strerror}") from error

    def _follow(self, volume: MountedVolume, nursery: trio.Nursery) -> None:
        volume.facts = mount_facts(volume, self._lines, lambda: 0.0)
        if volume.files.snapshot.is_pinned or not self._settings.auto_update:
            return
        refresh = Refresh(volume, self._engine.revision_changed)
        volume.facts = mount_facts(volume, self._lines, lambda: refresh.next_at - trio.current_time())
        nursery.start_soon(refresh.run)


def mount_options(settings: Settings) -> MountOptions:
    is_root = os.geteuid() == 0
    return MountOptions(
        source=settings.fqrn,
        allow_other=is_root,
        default_permissions=settings.check_permissions,
        suid=settings.suid and is_root,
    )


def make_engine(name: str, space: SingleSpace, failures: Failures) -> Engine:
    """The engine of this name."""
    if name == "pyfuse3":
        try:
            from cvmfs_py.fuse.pyfuse3_engine import Pyfuse3Engine
        except ImportError as error:
            raise MountError(f"the engine pyfuse3 cannot be used here: {error}; pip install pyfuse3") from error
        return Pyfuse3Engine(space, failures)
    raise ConfigError(f"there is no engine {name!r}; there is pyfuse3")
