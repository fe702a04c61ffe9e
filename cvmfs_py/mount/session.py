"""One mount from beginning to end: opens the repository, has it mounted, serves it, follows new revisions, unmounts.

Puts together what the rows below offer, and decides the order in which it begins and ends. Concurrency: the tasks of
one event loop; the daemon's process has nothing else.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from cvmfs_py import own_mounts
from cvmfs_py.config.config_repository import ask_for_directory
from cvmfs_py.errors import CvmfsError, MountError
from cvmfs_py.fuse import handover
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.handover import MountOptions, Way
from cvmfs_py.fuse.mountinfo import find_places, real_path
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.counts import tell_counts_on_signal
from cvmfs_py.mount.end_signals import received_end_signals
from cvmfs_py.mount.engines import make_channel, make_engine
from cvmfs_py.mount.limits import raise_readahead
from cvmfs_py.mount.log_lines import RecentLines
from cvmfs_py.mount.needed_paths import check_nothing_hidden
from cvmfs_py.mount.opening import follow, load_settings_of, opened_volume
from cvmfs_py.mount.process_id import ProcessId
from cvmfs_py.mount.registry import MountRecord, Registration, register
from cvmfs_py.mount.repositories import RepositoriesSpace
from cvmfs_py.mount.runtime_directory import runtime_directory
from cvmfs_py.mount.space import SingleSpace
from cvmfs_py.stats import Stats
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import Inodes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.fuse.engine import Engine
    from cvmfs_py.fuse.handover import Handover
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.volume import MountedVolume
    from cvmfs_py.vfs.snapshot import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What is to be mounted where, and who may see it."""

    wanted: Wanted  # without a name: every repository, each at the first access to its name
    mountpoint: str  # or /dev/fd/N: a descriptor that somebody else has mounted
    allow_other: bool = False
    listed: tuple[str, ...] = ()  # of every repository: names to be listed before they are asked for
    device: str | None = None  # for the list of mounts: what is seen in other namespaces only has one of its own
    log: bytes = b""  # for the list of mounts: where its daemon writes what happens


class Announcing(Protocol):
    """Who has to be told that the mount answers."""

    def ready(self, message: str = "") -> None: ...


async def serve_mount(plan: MountPlan, announcer: Announcing) -> None:
    """Serves until the end of the mount, or until a signal asks for it."""
    if is_handed_over(plan.mountpoint):
        taken = handover.accept_given(plan.mountpoint)
        with own_mounts.noted(partial(find_places, taken.device)):  # it is mounted already
            session = make_session(plan, await load_settings_of(plan.wanted), announcer)
            async with ended_by_signals() as nursery:
                await session.serve_handed_over(taken)
                nursery.cancel_scope.cancel()
    else:
        await make_session(plan, await load_settings_of(plan.wanted), announcer).serve_mounted()


def is_handed_over(mountpoint: str) -> bool:
    return handover.choose_way(mountpoint, may_mount=False) is Way.GIVEN


@asynccontextmanager
async def ended_by_signals() -> AsyncIterator[trio.Nursery]:
    """A block that is cancelled when somebody asks this process to end."""

    async def wait() -> None:
        async with received_end_signals(lambda: None) as next_signal:
            while True:
                _log.info("%s: ending", (await next_signal()).name)
                nursery.cancel_scope.cancel()

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            yield nursery


class _AnySession:
    """What all mounts have in common: an engine that serves a space, signals, an entry in the list of mounts.

    Several may be served in one process; then none of them `hears_signals`, and whoever runs them unmounts them.
    """

    def __init__(
        self, plan: MountPlan, settings: Settings, announcer: Announcing, *, hears_signals: bool = True
    ) -> None:
        self._hears_signals = hears_signals
        self._plan = plan
        self._settings = settings
        self._announcer = announcer
        self._stats = Stats()
        self._lines = RecentLines()
        self._volumes: Mapping[int, MountedVolume] = {}
        self._registration: Registration | None = None
        logging.getLogger().addHandler(self._lines)

    async def _serve(self, engine: Engine, taken: Handover, nursery: trio.Nursery) -> None:
        """Ends everything when the mount ends."""
        if self._hears_signals:
            nursery.start_soon(tell_counts_on_signal, self._stats, lambda: self._held(engine))
        await engine.serve(taken.fd, ())
        nursery.cancel_scope.cancel()

    def _held(self, engine: Engine) -> dict[str, int]:
        """What the mount holds now: requests, inodes that the kernel refers to, open catalogs, open objects, downloads.

        A mount of which nobody wants anything has a pin for each catalog and each object that is kept, and no other.
        """
        volumes = list(self._volumes.values())
        numbers = {id(volume.files.inodes): volume.files.inodes for volume in volumes}.values()
        return {
            "waiting_requests": engine.waiting_count,
            "lookups": sum(each.lookups for each in numbers),
            "catalogs": sum(volume.files.attached_count for volume in volumes),
            "pins": sum(volume.finder.store.pin_count for volume in volumes),
            "kept_objects": engine.kept_count,
            "downloads": sum(volume.finder.fetcher.download_count for volume in volumes),
        }

    async def _end_on_signals(self, engine: Engine, taken: Handover) -> None:
        if not self._hears_signals:
            return
        async with received_end_signals(partial(self._clear_away, taken)) as next_signal:
            _log.info("%s: unmounting", (await next_signal()).name)
            # In a thread: the kernel may ask for something before it lets go.
            await trio.to_thread.run_sync(taken.unmount)
            engine.stop()

    def _clear_away(self, taken: Handover) -> None:
        """What is left to do without the event loop: nobody may wait for an answer any longer."""
        try:
            taken.unmount(by_force=True)
        finally:
            if self._registration is not None:
                self._registration.remove()

    async def _probe(self) -> None:
        """Makes sure that the mount answers, as a program would see it.

        Another process asks: a thread of this one, killed while it waits, would keep the descriptor that it waits for.
        """
        place = self._plan.mountpoint
        if not await trio.to_thread.run_sync(ask_for_directory, Path(place), os.environ, abandon_on_cancel=True):
            raise MountError(f"{place} is mounted, but does not answer; see the log")

    def _obtain(self, held: ExitStack) -> Handover:
        """Noted before it is there: nothing of this process may ever wait for it."""
        place = real_path(self._plan.mountpoint)
        outer = own_mounts.find_own_mount(place)
        if outer is not None:
            raise MountError(f"{place} lies below {outer}, which this very process serves; mount elsewhere")
        held.enter_context(own_mounts.noted(lambda: (place,)))
        check_nothing_hidden(self._plan.wanted, self._settings)
        taken = handover.obtain(self._plan.mountpoint, mount_options(self._settings, self._plan))
        held.callback(os.close, taken.fd)
        held.callback(taken.unmount)
        held.enter_context(own_mounts.noted(partial(find_places, taken.device)))
        return taken

    def _register(self, taken: Handover, held: ExitStack, shown: Snapshot | None) -> None:
        """A mount that cannot be noted is a mount all the same."""
        record = MountRecord(
            fqrn="*" if shown is None else shown.fqrn,
            mountpoint=os.fsencode(taken.mountpoint),
            process=ProcessId.own(),
            started_at_s=time.time(),
            revision=0 if shown is None else shown.revision,
            root_hash="" if shown is None else str(shown.root_hash),
            tag=None if shown is None else shown.tag or None,
            is_pinned=self._is_pinned,
            cache_dir=os.fsencode(self._settings.cache_dir),
            engine=self._settings.engine,
            device=self._plan.device,
            log=self._plan.log,
        )
        try:
            self._registration = register(record, runtime_directory(os.environ, os.geteuid()))
        except CvmfsError as error:
            _log.warning("%s", error)
        else:
            held.enter_context(self._registration)

    @property
    def _is_pinned(self) -> bool:
        """Whether one snapshot is shown for ever."""
        settings = self._settings
        return bool(settings.root_hash or settings.repository_tag) or settings.repository_date_s is not None


class Session(_AnySession):
    """The mount of one repository."""

    def __init__(
        self, plan: MountPlan, settings: Settings, announcer: Announcing, *, hears_signals: bool = True
    ) -> None:
        super().__init__(plan, settings, announcer, hears_signals=hears_signals)
        self._space = SingleSpace()
        self._engine = make_engine(settings.engine, self._space, Failures(self._stats))

    async def serve_mounted(self) -> None:
        """Opens the repository first: what is wrong with it is said before anything is mounted."""
        async with self._opened() as volume:
            self._open(volume)
            with ExitStack() as held:
                await self._serve_and_follow(self._obtain(held), volume, held)

    async def _serve_and_follow(self, taken: Handover, volume: MountedVolume, held: ExitStack) -> None:
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, self._engine, taken, nursery)
                nursery.start_soon(self._end_on_signals, self._engine, taken)
                await self._probe()
                raise_readahead(taken.device)
                shown = volume.files.snapshot
                self._register(taken, held, shown)
                self._follow(volume, nursery)
                self._announcer.ready(
                    f"{shown.fqrn} is mounted at {taken.mountpoint} (revision {shown.revision}){_made_text(taken)}"
                )

    async def serve_handed_over(self, taken: Handover) -> None:
        """Answers the kernel at once: who handed over the descriptor expects no handshake."""
        with ExitStack() as held, first_error():
            held.callback(os.close, taken.fd)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, self._engine, taken, nursery)
                try:
                    async with self._opened() as volume:
                        self._open(volume)
                        self._register(taken, held, volume.files.snapshot)
                        self._follow(volume, nursery)
                        self._announcer.ready()
                        await trio.sleep_forever()
                except BaseException as error:
                    self._space.fail(error)
                    raise

    def _open(self, volume: MountedVolume) -> None:
        self._space.open(volume)
        self._volumes = {0: volume}

    def _opened(self) -> AbstractAsyncContextManager[MountedVolume]:
        return opened_volume(self._settings, self._stats, lambda snapshot: RepositoryFiles(Inodes(), snapshot))

    def _follow(self, volume: MountedVolume, nursery: trio.Nursery) -> None:
        follow(volume, self._lines, nursery, lambda: self._revision_changed(volume))

    def _revision_changed(self, volume: MountedVolume) -> None:
        self._engine.revision_changed(volume.files.root)
        if self._registration is not None:
            shown = volume.files.snapshot
            try:
                self._registration.update(revision=shown.revision, root_hash=str(shown.root_hash))
            except OSError as error:
                _log.warning("cannot note the new revision: %s", error.strerror)


class RepositoriesSession(_AnySession):
    """The mount of every repository, in one directory."""

    async def serve_mounted(self) -> None:
        with ExitStack() as held:
            await self._serve_all(self._obtain(held), held, is_ours=True)

    async def serve_handed_over(self, taken: Handover) -> None:
        with ExitStack() as held:
            held.callback(os.close, taken.fd)
            await self._serve_all(taken, held, is_ours=False)

    async def _serve_all(self, taken: Handover, held: ExitStack, *, is_ours: bool) -> None:
        space = RepositoriesSpace(self._plan.wanted, self._plan.listed, self._stats, self._lines)
        self._volumes = space.volumes
        engine = make_channel(space, Failures(self._stats))
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(space.run_repositories, engine, nursery)
                nursery.start_soon(self._serve, engine, taken, nursery)
                if is_ours:
                    nursery.start_soon(self._end_on_signals, engine, taken)
                    await self._probe()
                    raise_readahead(taken.device)
                self._register(taken, held, None)
                self._announcer.ready(
                    f"every repository is below {taken.mountpoint}, mounted when it is asked for{_made_text(taken)}"
                )


def _made_text(taken: Handover) -> str:
    return f"; made {' and '.join(taken.made)}" if taken.made else ""


def make_session(plan: MountPlan, settings: Settings, announcer: Announcing) -> Session | RepositoriesSession:
    """Of one repository, or of every one."""
    return (Session if plan.wanted.name else RepositoriesSession)(plan, settings, announcer)


def mount_options(settings: Settings, plan: MountPlan) -> MountOptions:
    is_root = os.geteuid() == 0
    return MountOptions(
        source=settings.fqrn or "cvmfs-py",
        allow_other=is_root or plan.allow_other,
        default_permissions=settings.check_permissions,
        suid=settings.suid and is_root,
    )
