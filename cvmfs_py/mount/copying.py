"""Copies files and trees out of a repository to a local directory: parallel, resumable, never through foreign links.

Files are written under a temporary name and renamed when complete, so a file that is there is whole. A small note
beside the copy says which snapshot it is of; while it exists, the same copy goes on where it was stopped.

Concurrency: one task walks, `jobs` tasks copy. Memory and open directories grow with the depth of the tree only.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from cache.errors import CacheFullError, ObjectCorruptError
from catalog.errors import CatalogError, show_path
from catalog.xattrs import parse_xattr_blob
from cvmfs_py.errors import ConfigError, FetchError, FsError, IntegrityError
from cvmfs_py.mount import destination as local
from cvmfs_py.mount.concurrency import Patience, first_error
from cvmfs_py.mount.copy_place import choose_place
from cvmfs_py.mount.destination import TargetDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.entry import Entry
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

INLINE_BYTES = 256 << 10  # more than this is copied in a worker thread
DAMAGES = (CatalogError, FetchError, IntegrityError, ObjectCorruptError)  # of single objects


class Observer(Protocol):
    """Who wants to know how far it is."""

    def skip(self, size_bytes: int = 0, objects: int = 1) -> None: ...
    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What to copy where, and what to keep."""

    source: bytes
    destination: Path | str  # a slash at its end means something
    recursive: bool = False
    archive: bool = False  # owners and all attributes too
    jobs: int = 32
    inside: bool = False  # the destination is a directory for several copies, never one of them


@dataclass(slots=True)
class CopyReport:
    """What was done; grows while copying."""

    files: int = 0
    directories: int = 0
    links: int = 0
    resumed_files: int = 0
    size_bytes: int = 0
    failures: list[str] = field(default_factory=list)


def copied_name(repository: Repository, source: bytes, start: Located) -> bytes:
    """What the copy is called in a directory."""
    name = source.rpartition(b"/")[2]
    if name in (b"", b".", b".."):
        name = start.path.rpartition(b"/")[2] or repository.fqrn.encode()
    return name


async def copy_out(
    repository: Repository, request: CopyRequest, observer: Observer, report: CopyReport | None = None
) -> CopyReport:
    """Copies; failures of single entries are in the report, what ends the whole copy is raised."""
    start = await repository.resolve(request.source)
    if start.entry.is_directory and not request.recursive:
        raise FsError(errno.EISDIR, f"{show_path(start.path)} is a directory; add -r to copy it with all below")
    report = report or CopyReport()
    failed_before = len(report.failures)
    snapshot = b"%s %s %s\n" % (repository.fqrn.encode(), str(repository.root_hash).encode(), start.path)
    name = copied_name(repository, request.source, start)
    is_tree = start.entry.is_directory
    with choose_place(request.destination, name, snapshot, is_tree=is_tree, inside=request.inside) as place:
        copier = _Copier(repository, request, observer, report, resumed=place.resumed)
        if not start.entry.is_directory:
            await copier.copy_single(start, place.parent_fd, place.name)
            return report
        await copier.copy_tree(start, place.open_top())
        if len(report.failures) == failed_before:
            place.forget()
    return report


class _Group:
    """A hard-link group of one directory: its first member, and if that is there."""

    __slots__ = ("copied", "done", "first")

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.copied = False
        self.done = trio.Event()


@dataclass(frozen=True, slots=True)
class _Job:
    """One entry to copy into a directory that is held for it."""

    directory: TargetDirectory
    located: Located
    group: _Group | None = None


class _Copier:
    """One copy on its way."""

    def __init__(
        self, repository: Repository, request: CopyRequest, observer: Observer, report: CopyReport, *, resumed: bool
    ) -> None:
        self._repository = repository
        self._archive = request.archive
        self._owners = request.archive and os.geteuid() == 0
        self._jobs = request.jobs
        self._observer = observer
        self._report = report
        self._resumed = resumed
        self._patience = Patience()
        self._one_by_one = trio.Lock()
        self._writing = 0  # files at this moment
        self._ended = trio.Event()  # the next of them
        self._open: list[tuple[bytes, TargetDirectory]] = []  # the way from the top to where the walk is

    async def copy_single(self, located: Located, directory_fd: int, name: bytes) -> None:
        await self._copy_entry(located, directory_fd, name, None)

    async def copy_tree(self, start: Located, top_fd: int) -> None:
        send, receive = trio.open_memory_channel[_Job](0)
        try:
            with first_error():
                async with trio.open_nursery() as nursery:
                    for _ in range(self._jobs):
                        nursery.start_soon(self._copy_received, receive.clone())
                    receive.close()
                    with send:
                        await self._walk(start, top_fd, send)
        finally:
            self._leave(b"")

    async def _walk(self, start: Located, top_fd: int, send: trio.MemorySendChannel[_Job]) -> None:
        walk = self._repository.walk(start.path)
        patience = Patience(4)  # every catalog has its own retries and time-outs
        async for path in walk:
            try:
                if path == start.path:
                    self._enter(start, top_fd)
                elif not await self._enter_below(path):
                    walk.skip()
                    continue
                await self._send_entries(path, send)
                patience.fetched()
            except DAMAGES as error:
                if isinstance(error, FetchError):
                    patience.failed(error)
                self._report.failures.append(f"{show_path(path)} cannot be copied: {error}")
                walk.skip()

    async def _enter_below(self, path: bytes) -> bool:
        """Opens the directory to copy into, unless something else is in its place."""
        self._leave(path)
        located = await self._repository.resolve(path, follow_last=False)
        try:
            fd = local.open_new_directory(self._open[-1][1].fd, located.entry.name)
        except OSError as error:
            self._note_local(located, error)
            return False
        self._enter(located, fd)
        return True

    def _enter(self, located: Located, fd: int) -> None:
        parent = self._open[-1][1] if self._open else None
        self._open.append((located.path, TargetDirectory(fd, parent, partial(self._finish_directory, located))))
        self._report.directories += 1
        if self._resumed:
            local.remove_leftovers(fd)

    def _leave(self, path: bytes) -> None:
        """Lets go of the directories that a path is not below."""
        while self._open and not path.startswith(self._open[-1][0] + b"/"):
            self._open.pop()[1].release()

    def _finish_directory(self, located: Located, fd: int) -> None:
        try:
            self._apply_attributes(located.entry, fd)
        except OSError as error:
            self._note_local(located, error)

    async def _send_entries(self, path: bytes, send: trio.MemorySendChannel[_Job]) -> None:
        directory = self._open[-1][1]
        groups: dict[int, _Group] = {}  # their members are all in one directory
        async for located in self._repository.listing(path):
            entry = located.entry
            if entry.is_directory:
                continue
            group = None
            if entry.is_regular and entry.hardlink_group and entry.link_count > 1:
                group = groups.setdefault(entry.hardlink_group, _Group(entry.name))
            await send.send(_Job(directory.hold(), located, group))

    async def _copy_received(self, receive: trio.MemoryReceiveChannel[_Job]) -> None:
        # Not `async with`: a cancellation at the end would take the place of the error that ends it.
        with receive:
            async for job in receive:
                try:
                    await self._copy_entry(job.located, job.directory.fd, job.located.entry.name, job.group)
                finally:
                    job.directory.release()

    async def _copy_entry(self, located: Located, directory_fd: int, name: bytes, group: _Group | None) -> None:
        entry = located.entry
        try:
            if entry.is_regular and group is not None:
                await self._copy_member(located, directory_fd, group)
            elif entry.is_regular:
                await self._copy_file(located, directory_fd, name)
            elif entry.is_symlink:
                # A variant link for whose variable there is no value leads nowhere; it keeps its stored text.
                target = self._repository.link_target(entry) or entry.symlink
                attributes = self._repository.attributes(entry)
                local.make_link(directory_fd, target, name, attributes, owners=self._owners)
                self._report.links += 1
            else:
                local.make_special(directory_fd, name, self._repository.attributes(entry), owners=self._owners)
                self._report.files += 1
        except DAMAGES as error:
            if isinstance(error, FetchError):
                self._patience.failed(error)
            self._report.failures.append(f"{show_path(located.path)} cannot be copied: {error}")
        except ConfigError as error:
            if not entry.is_external:
                raise
            self._report.failures.append(f"{show_path(located.path)} cannot be copied: {error}")
        except OSError as error:
            self._note_local(located, error)
        self._observer.advance()

    def _note_local(self, located: Located, error: OSError) -> None:
        """Notes what is wrong with one place; raises what is wrong with the whole disk."""
        shown, entry = show_path(located.path), located.entry
        reason = error.strerror or str(error)
        if error.errno not in local.LOCAL_ERRNOS:
            raise FsError(error.errno or errno.EIO, f"cannot write the copy of {shown}: {reason}") from error
        if error.errno == errno.EPERM and (stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)):
            reason = "only root can make device files"
        elif error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            reason = f"there is something else in its place ({reason})"
        self._report.failures.append(f"cannot write the copy of {shown}: {reason}")

    async def _copy_member(self, located: Located, directory_fd: int, group: _Group) -> None:
        name = located.entry.name
        if name == group.first:
            try:
                await self._copy_file(located, directory_fd, name)
                group.copied = True
            finally:
                group.done.set()
            return
        await group.done.wait()  # never for long: the first one was sent before
        if group.copied and self._is_same_file(directory_fd, group.first, name):
            self._report.resumed_files += 1
            self._observer.skip(located.entry.size, objects=0)
        elif group.copied and local.make_hard_link(directory_fd, group.first, name):
            self._report.files += 1
            self._observer.skip(located.entry.size, objects=0)
        else:
            await self._copy_file(located, directory_fd, name)

    async def _copy_file(self, located: Located, directory_fd: int, name: bytes) -> None:
        entry = located.entry
        if self._resumed and self._is_there(located, directory_fd, name):
            self._report.resumed_files += 1
            self._observer.skip(entry.size, objects=0)
            return
        windows = await self._repository.content_windows(located)
        try:
            await self._write_file(located, directory_fd, name, windows)
        except CacheFullError:
            # All that is copied side by side may be too much at once where one file after the other is not.
            async with self._one_by_one:
                await self._write_in_the_end(located, directory_fd, name, windows)
        self._patience.fetched()
        self._report.files += 1
        self._report.size_bytes += entry.size

    async def _write_in_the_end(
        self, located: Located, directory_fd: int, name: bytes, windows: list[tuple[ObjectRef, ...]]
    ) -> None:
        """Writes a file as soon as those that are written now have let go of enough."""
        while True:
            others, ended = self._writing, self._ended
            try:
                await self._write_file(located, directory_fd, name, windows)
                return
            except CacheFullError:
                if not others:
                    raise
            await ended.wait()

    async def _write_file(
        self, located: Located, directory_fd: int, name: bytes, windows: list[tuple[ObjectRef, ...]]
    ) -> None:
        self._writing += 1
        try:
            await self._write_content(located.entry, directory_fd, name, windows)
        finally:
            self._writing -= 1
            self._ended.set()
            self._ended = trio.Event()

    async def _write_content(
        self, entry: Entry, directory_fd: int, name: bytes, windows: list[tuple[ObjectRef, ...]]
    ) -> None:
        with local.placed(directory_fd, name) as temporary:
            fd = local.create_file(directory_fd, temporary)
            try:
                if len(windows) > 1 or any(len(window) > 1 for window in windows):
                    async with self._repository.read_windows(windows) as ready:
                        async for pins in ready:
                            await self._append(pins, fd)
                else:
                    for window in windows:
                        await self._append(await self._repository.pin(window), fd)
                self._apply_attributes(entry, fd)
            finally:
                os.close(fd)

    async def _append(self, pins: list[Pin], fd: int) -> None:
        with ExitStack() as held:
            for pin in pins:
                held.enter_context(pin)
            for pin in pins:
                if pin.size_bytes <= INLINE_BYTES:
                    local.append_object(pin, fd)
                else:
                    await trio.to_thread.run_sync(local.append_object, pin, fd)
                self._observer.advance(pin.size_bytes, objects=0)

    def _is_there(self, located: Located, directory_fd: int, name: bytes) -> bool:
        try:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        wanted = self._repository.attributes(located.entry)
        return (
            stat.S_ISREG(found.st_mode) and found.st_size == wanted.size_bytes and found.st_mtime_ns == wanted.mtime_ns
        )

    def _is_same_file(self, directory_fd: int, first: bytes, name: bytes) -> bool:
        try:
            found = [os.stat(each, dir_fd=directory_fd, follow_symlinks=False) for each in (first, name)]
        except FileNotFoundError:
            return False
        return os.path.samestat(*found)

    def _apply_attributes(self, entry: Entry, fd: int) -> None:
        stored = parse_xattr_blob(entry.xattr_blob)
        xattrs = {name: value for name, value in stored.items() if self._archive or name.startswith(b"user.")}
        local.apply_attributes(fd, self._repository.attributes(entry), xattrs, owners=self._owners)
