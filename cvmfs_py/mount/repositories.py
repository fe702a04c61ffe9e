"""Every repository in one mount: a directory in which each appears when somebody asks for its name.

What automount does with one daemon a repository, in one process and without rights. A name that can be no repository
is answered at once; whether there is one of a name that could be is found out once, by a task of its own, whoever else
waits; that there is none is remembered for a while. A repository that cannot be reached holds up nobody but those who
ask for it. One that nobody has used for a time, and of which the kernel knows nothing, is let go.

Concurrency: tasks of one event loop.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, TypeVar

import trio

from cache.errors import CacheError
from catalog.errors import CatalogError, show_path
from cvmfs_py.config.fqrn import is_valid_name
from cvmfs_py.config.local_paths import HiddenPathError
from cvmfs_py.errors import ConfigError, CvmfsError, FetchError, FsError, ObjectGoneError, in_full
from cvmfs_py.fuse.volume import KernelTimes
from cvmfs_py.fuse.wire_notices import pack_inval_entry, pack_inval_inode
from cvmfs_py.mount.assemble import Wanted
from cvmfs_py.mount.opening import follow, load_settings_of, opened_volume
from cvmfs_py.mount.repositories_directory import RepositoriesDirectory
from cvmfs_py.vfs.attrs import View, attributes
from cvmfs_py.vfs.facts import REPOSITORIES
from cvmfs_py.vfs.inodes import ROOT
from cvmfs_py.vfs.namespace import Namespace, NotAttached
from cvmfs_py.vfs.statfs import FileSystemStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from cvmfs_py.fuse.channel import Channel
    from cvmfs_py.fuse.volume import Volume
    from cvmfs_py.mount.log_lines import RecentLines
    from cvmfs_py.mount.volume import MountedVolume
    from cvmfs_py.stats import Stats
    from cvmfs_py.vfs.files import RepositoryFiles
    from cvmfs_py.vfs.inodes import Inode

_log = logging.getLogger(__name__)
T = TypeVar("T")
ABSENT_S = 60.0  # how long it is believed that there is no repository of a name
NAME_S = 10.0  # how long the kernel believes a name in the directory
ATTACH_DEADLINE_S = 120.0
IDLE_S = 1800.0
_LOOK_S = 60.0


class _Entry:
    """One name: on its way to be a repository, or one, or none."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.volume: MountedVolume | None = None
        self.failure: Exception | None = None
        self.until = 0.0  # a failure is believed until then, of the event loop's clock
        self.scope = trio.CancelScope()
        self.last_use = trio.current_time()


class RepositoriesSpace:
    """A space of inodes for an engine, and the volume of its top directory."""

    is_ready = True

    def __init__(self, base: Wanted, names: Collection[str], stats: Stats, lines: RecentLines) -> None:
        """`base` has what was said for all repositories; `names` are listed also when nobody has asked for them yet."""
        self.stats = stats
        self.times = KernelTimes(NAME_S, NAME_S, attribute_s=0.0, root_attribute_s=1.0)
        self.view = View(uid=os.geteuid(), gid=os.getegid())
        self._base = base
        self._lines = lines
        self._namespace = Namespace()
        self._entries: dict[bytes, _Entry] = {}
        self.volumes: dict[int, MountedVolume] = {}  # by the identity of their files
        listed = [os.fsencode(name) for name in names]
        self.files = RepositoriesDirectory(self._namespace, listed, self._is_absent, self._top_of)
        self._nursery: trio.Nursery
        self._engine: Channel

    # --- the space

    async def ready(self) -> None:
        """Always."""

    def owner(self, ino: int) -> Volume:
        files = self._namespace.owner(ino)
        if files is not None and (volume := self.volumes.get(id(files))) is not None:
            self._entries[volume.finder.settings.fqrn.encode()].last_use = trio.current_time()
            return volume
        if ino == ROOT:
            return self
        raise FsError(errno.ESTALE, f"inode {ino} is not known")

    async def run_repositories(self, engine: Channel, nursery: trio.Nursery) -> None:
        """Attaches in this nursery, and lets go of what nobody uses."""
        self._engine, self._nursery = engine, nursery
        while True:
            await trio.sleep(_LOOK_S)
            self.release_idle(IDLE_S)

    def release_idle(self, idle_s: float) -> None:
        """Asks the kernel to forget repositories that were not used for so long; those that it forgot are let go."""
        for name, entry in list(self._entries.items()):
            if entry.volume is None or trio.current_time() - entry.last_use < idle_s:
                continue
            if entry.volume.files.is_referred_to:
                self._engine.notify([pack_inval_entry(ROOT, name)], locked=ROOT)
            else:
                _log.info("%s is not used any more", os.fsdecode(name))
                entry.scope.cancel()

    # --- the volume of the top directory

    def open_object(self, ref: ObjectRef) -> Pin:
        raise FsError(errno.EIO, "the directory of repositories has no objects")

    def attempt(self, operation: Callable[[OpenObject], T]) -> T:
        return operation(self.open_object)

    async def run(self, operation: Callable[[OpenObject], T], *, is_data: bool = False) -> T:
        del is_data
        asked: set[bytes] = set()
        while True:
            try:
                return operation(self.open_object)
            except NotAttached as answer:
                name = answer.name
            if name in asked:
                raise FsError(errno.ENOENT, f"{show_path(name)} is no repository any more")
            asked.add(name)
            await self.attach(name)

    def fetch_ahead(self, refs: tuple[ObjectRef, ...]) -> None:
        """There is nothing to be fetched."""

    def list_xattrs(self, ino: Inode, gids: Collection[int], open_object: OpenObject) -> tuple[bytes, ...]:
        del ino, gids, open_object
        return ()

    def xattr(self, ino: Inode, name: bytes, gids: Collection[int], open_object: OpenObject) -> bytes:
        del ino, gids, open_object
        if name == REPOSITORIES:
            return b"\n".join(sorted(self._namespace.names))
        raise FsError(errno.ENODATA, f"there is no attribute {show_path(name)}")

    def status(self, open_object: OpenObject) -> FileSystemStatus:
        del open_object
        return FileSystemStatus(files=len(self._namespace))

    # --- attaching

    async def attach(self, name: bytes) -> None:
        """Makes a repository appear; says why not."""
        entry = self._entries.get(name)
        if entry is None or (entry.failure is not None and trio.current_time() >= entry.until):
            entry = self._entries[name] = _Entry()
            self._nursery.start_soon(self._keep, name, entry)
        with trio.move_on_after(ATTACH_DEADLINE_S):
            await entry.decided.wait()
        if isinstance(entry.failure, FsError):
            raise FsError(entry.failure.errno, str(entry.failure))
        if entry.failure is not None:
            raise FetchError(in_full(entry.failure))
        if entry.volume is None:
            raise FetchError(f"{os.fsdecode(name)} could not be opened within {ATTACH_DEADLINE_S:g} s")

    def _is_absent(self, name: bytes) -> bool:
        """Whether there is surely no repository of this name."""
        text = os.fsdecode(name)
        if "." not in text or not is_valid_name(text):
            return True
        entry = self._entries.get(name)
        return (
            entry is not None
            and isinstance(entry.failure, FsError)
            and entry.failure.errno == errno.ENOENT
            and trio.current_time() < entry.until
        )

    def _top_of(self, files: RepositoryFiles) -> Entry:
        """With owner and mode as its own volume shows them: the answer to a look-up has them, too."""
        volume = self.volumes[id(files)]
        entry = volume.attempt(lambda open_object: files.node(files.root, open_object)).entry
        shown = attributes(entry, volume.view)
        return entry._replace(mode=shown.mode, uid=shown.uid, gid=shown.gid)

    async def _keep(self, name: bytes, entry: _Entry) -> None:
        """The life of one repository: opened, shown, followed, let go."""
        fqrn = name.decode()
        try:
            wanted = Wanted(fqrn, self._base.overrides, self._base.config_files, self._base.simple_parsing)
            settings = await load_settings_of(wanted)

            def attach(snapshot: object) -> RepositoryFiles:
                return self._namespace.attach(name, snapshot)  # type: ignore[arg-type]

            with entry.scope:
                async with opened_volume(settings, self.stats, attach) as volume, trio.open_nursery() as nursery:
                    self.volumes[id(volume.files)] = entry.volume = volume
                    follow(volume, self._lines, nursery, lambda: self._engine.revision_changed(volume.files.root))
                    entry.decided.set()
                    self._list_anew()
                    _log.info("%s is attached at revision %d", fqrn, volume.files.snapshot.revision)
                    await trio.sleep_forever()
        except (CvmfsError, CacheError, CatalogError, OSError) as error:
            entry.failure = self._explain(fqrn, error)
            entry.until = trio.current_time() + ABSENT_S
        finally:
            self._let_go(name, entry)
            entry.decided.set()

    def _list_anew(self) -> None:
        """The kernel has a listing of the top directory that is no longer right."""
        self._engine.notify([pack_inval_inode(ROOT)])

    def _explain(self, fqrn: str, error: Exception) -> Exception:
        """That there is no such repository is an ordinary answer; all else is trouble."""
        if isinstance(error, ConfigError | ObjectGoneError) and not isinstance(error, HiddenPathError):
            _log.debug("%s: %s", fqrn, in_full(error))
            return FsError(errno.ENOENT, f"there is no repository {fqrn}: {error}")
        _log.warning("%s cannot be attached: %s", fqrn, in_full(error))
        return error

    def _let_go(self, name: bytes, entry: _Entry) -> None:
        volume = entry.volume
        if volume is not None:
            del self.volumes[id(volume.files)]
            self._engine.forget_volume(volume)
            entry.volume = None
        if self._namespace.lookup(name) is not None:
            self._namespace.detach(name)
            self._list_anew()
        if entry.failure is None:
            self._entries.pop(name, None)
