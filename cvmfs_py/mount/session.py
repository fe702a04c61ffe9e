"""One mount from beginning to end: opens the repository, has it mounted, serves it, follows new revisions, unmounts.

Puts together what the rows below offer, and decides the order in which it begins and ends. Concurrency: the tasks of
one event loop; the daemon's process has nothing else.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from cvmfs_py.errors import CvmfsError, MountError
from cvmfs_py.fuse import handover
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.handover import MountOptions, Way
from cvmfs_py.mount import wiring
from cvmfs_py.mount.assemble import load_wanted_settings, open_finder
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.engines import make_engine
from cvmfs_py.mount.facts import mount_facts
from cvmfs_py.mount.log_lines import RecentLines
from cvmfs_py.mount.process_id import ProcessId
from cvmfs_py.mount.refresh import Refresh
from cvmfs_py.mount.registry import MountRecord, Registration, register
from cvmfs_py.mount.runtime_directory import runtime_directory
from cvmfs_py.mount.space import SingleSpace
from cvmfs_py.mount.volume import MountedVolume, load_snapshot
from cvmfs_py.stats import Stats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.fuse.handover import Handover
    from cvmfs_py.mount.assemble import Wanted

_log = logging.getLogger(__name__)
END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What is to be mounted where, and who may see it."""

    wanted: Wanted
    mountpoint: str  # or /dev/fd/N: a descriptor that somebody else has mounted
    allow_other: bool = False
    device: str | None = None  # for the list of mounts: what is seen in other namespaces only has one of its own


class Announcing(Protocol):
    """Who has to be told that the mount answers."""

    def ready(self, message: str = "") -> None: ...


async def serve_mount(plan: MountPlan, announcer: Announcing) -> None:
    """Serves until the end of the mount, or until a signal asks for it."""
    settings = await load_settings_of(plan.wanted)
    session = Session(plan, settings, announcer)
    if is_handed_over(plan.mountpoint):
        async with ended_by_signals() as nursery:
            await session.serve_handed_over(handover.accept_given(plan.mountpoint))
            nursery.cancel_scope.cancel()
    else:
        await session.serve_mounted()


def is_handed_over(mountpoint: str) -> bool:
    return handover.choose_way(mountpoint, may_mount=False) is Way.GIVEN


async def load_settings_of(wanted: Wanted) -> Settings:
    """The settings in force; what the user should know of them goes to the log."""
    settings, warnings = await load_wanted_settings(wanted)
    for warning in warnings:
        _log.warning("%s", warning)
    return settings


@asynccontextmanager
async def ended_by_signals() -> AsyncIterator[trio.Nursery]:
    """A block that is cancelled when somebody asks this process to end."""

    async def wait() -> None:
        with trio.open_signal_receiver(*END_SIGNALS) as signals:
            async for number in signals:
                _log.info("%s: ending", signal.Signals(number).name)
                nursery.cancel_scope.cancel()

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            yield nursery


class Session:
    """The parts of one mount."""

    def __init__(self, plan: MountPlan, settings: Settings, announcer: Announcing) -> None:
        self._plan = plan
        self._settings = settings
        self._announcer = announcer
        self._stats = Stats()
        self._lines = RecentLines()
        self._space = SingleSpace()
        self._engine = make_engine(settings.engine, self._space, Failures(self._stats))
        self._registration: Registration | None = None

    async def serve_mounted(self) -> None:
        """Opens the repository first: what is wrong with it is said before anything is mounted."""
        async with self._opened() as volume:
            self._space.open(volume)
            taken = handover.obtain(self._plan.mountpoint, mount_options(self._settings, self._plan))
            with ExitStack() as held:
                held.callback(os.close, taken.fd)
                held.callback(taken.unmount)
                await self._serve_and_follow(taken, volume, held)

    async def _serve_and_follow(self, taken: Handover, volume: MountedVolume, held: ExitStack) -> None:
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, taken, nursery)
                nursery.start_soon(self._end_on_signals, taken)
                await self._probe()
                self._register(volume, taken, held)
                self._follow(volume, nursery)
                shown = volume.files.snapshot
                self._announcer.ready(f"{shown.fqrn} is mounted at {taken.mountpoint} (revision {shown.revision})")

    async def serve_handed_over(self, taken: Handover) -> None:
        """Answers the kernel at once: who handed over the descriptor expects no handshake."""
        with ExitStack() as held, first_error():
            held.callback(os.close, taken.fd)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, taken, nursery)
                try:
                    async with self._opened() as volume:
                        self._space.open(volume)
                        self._register(volume, taken, held)
                        self._follow(volume, nursery)
                        self._announcer.ready()
                        await trio.sleep_forever()
                except BaseException as error:
                    self._space.fail(error)
                    raise

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[MountedVolume]:
        settings = self._settings
        view = wiring.make_view(settings, claim_by_default=True)
        logging.getLogger().addHandler(self._lines)
        warnings: list[str] = []
        async with open_finder(settings, warnings) as finder:
            root = await finder.find()
            for warning in warnings:
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
                # In a thread: the kernel may ask for something before it lets go.
                await trio.to_thread.run_sync(taken.unmount)
                self._engine.stop()
                break

    async def _probe(self) -> None:
        """Makes sure that the mount answers, as a program would see it."""
        try:
            await trio.to_thread.run_sync(os.stat, self._plan.mountpoint, abandon_on_cancel=True)
        except OSError as error:
            raise MountError(f"{self._plan.mountpoint} is mounted, but does not answer: {error.strerror}") from error

    def _follow(self, volume: MountedVolume, nursery: trio.Nursery) -> None:
        """Keeps a live repository up to date, and lets its attributes tell about the mount."""
        shown = volume.files.snapshot
        if shown.is_pinned or not self._settings.auto_update:
            volume.facts = mount_facts(volume, self._lines, lambda: 0.0)
            return
        refresh = Refresh(volume, lambda: self._revision_changed(volume))
        volume.facts = mount_facts(volume, self._lines, lambda: refresh.next_at - trio.current_time())
        nursery.start_soon(refresh.run)

    def _revision_changed(self, volume: MountedVolume) -> None:
        self._engine.revision_changed()
        if self._registration is not None:
            shown = volume.files.snapshot
            try:
                self._registration.update(revision=shown.revision, root_hash=str(shown.root_hash))
            except OSError as error:
                _log.warning("cannot note the new revision: %s", error.strerror)

    def _register(self, volume: MountedVolume, taken: Handover, held: ExitStack) -> None:
        """A mount that cannot be noted is a mount all the same."""
        shown = volume.files.snapshot
        record = MountRecord(
            fqrn=shown.fqrn,
            mountpoint=os.fsencode(taken.mountpoint),
            process=ProcessId.own(),
            started_at_s=time.time(),
            revision=shown.revision,
            root_hash=str(shown.root_hash),
            tag=shown.tag or None,
            cache_dir=os.fsencode(self._settings.cache_dir),
            engine=self._settings.engine,
            device=self._plan.device,
        )
        try:
            self._registration = register(record, runtime_directory(os.environ, os.geteuid()))
        except CvmfsError as error:
            _log.warning("%s", error)
        else:
            held.enter_context(self._registration)


def mount_options(settings: Settings, plan: MountPlan) -> MountOptions:
    is_root = os.geteuid() == 0
    return MountOptions(
        source=settings.fqrn,
        allow_other=is_root or plan.allow_other,
        default_permissions=settings.check_permissions,
        suid=settings.suid and is_root,
    )
