"""The engine that adapts the file system core to pyfuse3, and so to libfuse. One mount in a process.

Each handler finds the volume of an inode, runs one operation of the core and applies its effects after success. What
an operation means is for the core; how missing objects are had, for the driver.

Concurrency: pyfuse3 starts a task for every request that finds none waiting, so those that wait for the network do not
hold up others.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from cvmfs_py.errors import FsError
from cvmfs_py.fuse import device
from cvmfs_py.fuse.contents import Contents
from cvmfs_py.vfs import attrs
from cvmfs_py.vfs.inodes import ROOT, Inode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from catalog.content import Span
    from cvmfs_py.fuse.failures import Failures
    from cvmfs_py.fuse.volume import Space, Volume
    from cvmfs_py.vfs.files import Node

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
MOST_TASKS = 512  # requests that may wait at once
PAGE_ENTRIES = 256
_DOTS = 2  # positions in a listing before the first row
_WITHDRAWN = os.strerror(errno.ENOENT)


def _guarded(
    handler: Callable[Concatenate[Pyfuse3Engine, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Pyfuse3Engine, P], Coroutine[Any, Any, T]]:
    """Nothing but FUSEError leaves a handler: any other exception would end the mount."""
    name = handler.__name__

    async def guarded(self: Pyfuse3Engine, /, *arguments: P.args, **named: P.kwargs) -> T:
        self.failures.stats.requests[name] += 1
        self.waiting_count += 1
        try:
            return await handler(self, *arguments, **named)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:  # noqa: BLE001  # the engine's guard
            raise pyfuse3.FUSEError(self.failures.errno_of(name, error)) from None
        finally:
            self.waiting_count -= 1

    functools.update_wrapper(guarded, handler)
    return guarded


class Pyfuse3Engine(pyfuse3.Operations):
    """Serves a space of inodes until it is unmounted or told to stop."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, space: Space, failures: Failures) -> None:
        super().__init__()
        self.failures = failures
        self.waiting_count = 0
        self._space = space
        self._is_serving = False
        self._contents: dict[int, Contents] = {}  # by the identity of the volume
        self._handles: dict[int, _OpenFile] = {}
        self._directories: dict[int, tuple[Inode, int]] = {}  # with the number of the listing
        self._numbers = itertools.count(1)

    async def serve(self, descriptor: int, options: Sequence[str]) -> None:
        """Speaks with the kernel over a descriptor that is mounted already, until the end of the mount."""
        # A copy, because libfuse closes what it is given, and the caller closes its own.
        pyfuse3.init(self, f"/dev/fd/{os.dup(descriptor)}", {"fsname=cvmfs-py", *options})
        self._is_serving = True
        logging.getLogger("pyfuse3").addFilter(_is_news)
        try:
            await pyfuse3.main(min_tasks=2, max_tasks=MOST_TASKS)
        except* OSError:
            # When the last user of a mount goes while a request is being read, the kernel says ECONNABORTED instead of
            # ENODEV, which libfuse does not know as the end.
            if device.is_connected(descriptor):
                raise
        finally:
            self._is_serving = False
            pyfuse3.close(unmount=False)  # how it is unmounted is for the one who mounted it
            for contents in self._contents.values():
                contents.close()

    def stop(self) -> None:
        if self._is_serving:  # libfuse does not survive it otherwise
            pyfuse3.terminate()

    def revision_changed(self, root: Inode) -> None:
        """Names are believed for a bounded time, and inodes never change: there is nothing to take back."""

    @property
    def kept_count(self) -> int:
        return sum(len(contents) for contents in self._contents.values())

    def forget_volume(self, volume: Volume) -> None:
        contents = self._contents.pop(id(volume), None)
        if contents is not None:
            contents.close()

    # --- attributes and names

    @_guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        volume = await self._volume(parent_inode)
        parent = Inode(parent_inode)
        node = await volume.run(lambda open_object: volume.files.lookup(parent, name, open_object))
        if node is None:
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = 0
            absent.entry_timeout = volume.times.negative_s
            return absent
        volume.files.remember(node.ino)
        return _attributes(volume, node)

    @_guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        volume = await self._volume(inode)
        node = await volume.run(lambda open_object: volume.files.node(Inode(inode), open_object))
        return _attributes(volume, node)

    @_guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        volume = await self._volume(inode)
        return await volume.run(lambda open_object: volume.files.read_link(Inode(inode), open_object))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            try:
                volume = self._space.owner(ino)
            except FsError:
                continue
            volume.files.forget(ino, count)

    # --- files

    @_guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        volume = await self._volume(inode)
        contents = self._contents_of(volume)
        ino = Inode(inode)

        def operation(open_object: Any) -> tuple[tuple[Span, ...], bool]:
            spans = contents.spans(ino, open_object)
            if len(spans) == 1:  # what cannot be had is said at open; of a file in chunks only when they are read
                contents.hold((spans[0].ref,), open_object)
            return spans, volume.files.node(ino, open_object).entry.is_direct_io

        spans, is_direct_io = await volume.run(operation, is_data=True)
        handle = next(self._numbers)
        self._handles[handle] = _OpenFile(volume, contents, ino, spans)
        volume.stats.opens += 1
        volume.stats.open_files += 1
        return pyfuse3.FileInfo(fh=handle, keep_cache=not is_direct_io, direct_io=is_direct_io)

    @_guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self._handles[fh]
        return bytes(await file.contents.read(file.ino, file.spans, off, size))

    @_guarded
    async def release(self, fh: int) -> None:
        file = self._handles.pop(fh)
        file.volume.stats.open_files -= 1

    @_guarded
    async def flush(self, fh: int) -> None:
        """Nothing is ever written."""

    # --- directories

    @_guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        volume = await self._volume(inode)
        ino = Inode(inode)
        # The first page now, because opendir is where programs expect an error.
        await volume.run(lambda open_object: volume.files.page(ino, 0, 1, open_object))
        handle = next(self._numbers)
        self._directories[handle] = ino, volume.files.listing(ino)
        volume.stats.opendirs += 1
        volume.stats.open_directories += 1
        return handle

    @_guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        ino, listing = self._directories[fh]
        volume = await self._volume(ino)
        files = volume.files
        if start_id == 0 and listing != files.listing(ino):  # it begins again, and shows what there is now
            listing = files.listing(ino)
            self._directories[fh] = ino, listing
        position = start_id
        while position < _DOTS:
            which = ino
            if position == 1:
                which = await volume.run(lambda open_object: files.parent(ino, open_object))
            node = await volume.run(lambda open_object, which=which: files.node(which, open_object))  # type: ignore[misc]
            name = b".." if position else b"."
            position += 1
            if not pyfuse3.readdir_reply(token, name, _attributes(volume, node), position):
                return
        after: int | None = position - _DOTS
        while after is not None:
            start = after
            page = await volume.run(
                lambda open_object, start=start: files.page(ino, start, PAGE_ENTRIES, open_object, listing)  # type: ignore[misc]
            )
            for node in page.nodes:
                attributes = _attributes(volume, node)
                if not pyfuse3.readdir_reply(token, node.entry.name, attributes, node.entry.rowid + _DOTS):
                    return
                files.remember(node.ino)
            after = page.next_rowid

    @_guarded
    async def releasedir(self, fh: int) -> None:
        volume = await self._volume(self._directories.pop(fh)[0])
        volume.stats.open_directories -= 1

    # --- the rest

    @_guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        volume = await self._volume(ROOT)
        status = await volume.run(volume.status)
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = status.block_bytes
        data.f_blocks = status.blocks
        data.f_bfree = data.f_bavail = status.free_blocks
        data.f_files = status.files
        data.f_ffree = data.f_favail = status.free_files
        data.f_namemax = status.name_limit_bytes
        return data

    @_guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        volume = await self._volume(inode)
        gids = {ctx.gid, *_groups_of(ctx.pid)}
        return await volume.run(lambda open_object: volume.list_xattrs(Inode(inode), gids, open_object))

    @_guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        volume = await self._volume(inode)
        gids = {ctx.gid, *_groups_of(ctx.pid)}
        return await volume.run(lambda open_object: volume.xattr(Inode(inode), name, gids, open_object))

    # --- how

    async def _volume(self, ino: int) -> Volume:
        await self._space.ready()
        return self._space.owner(ino)

    def _contents_of(self, volume: Volume) -> Contents:
        found = self._contents.get(id(volume))
        if found is None:
            found = self._contents[id(volume)] = Contents(volume)
        return found


class _OpenFile:
    """What read needs."""

    __slots__ = ("contents", "ino", "spans", "volume")

    def __init__(self, volume: Volume, contents: Contents, ino: Inode, spans: tuple[Span, ...]) -> None:
        self.volume = volume
        self.contents = contents
        self.ino = ino
        self.spans = spans


def _is_news(record: logging.LogRecord) -> bool:
    """Not when the kernel takes no answer because nobody waits for it any more: processes are killed, mounts end."""
    return record.args != (_WITHDRAWN,)


def _attributes(volume: Volume, node: Node) -> pyfuse3.EntryAttributes:
    shown = attrs.attributes(node.entry, volume.view)
    answer = pyfuse3.EntryAttributes()
    answer.st_ino = node.ino
    answer.entry_timeout = volume.times.entry_s
    is_root = node.ino == volume.files.root
    answer.attr_timeout = volume.times.root_attribute_s if is_root else volume.times.attribute_s
    answer.st_mode = shown.mode
    answer.st_nlink = shown.link_count
    answer.st_uid = shown.uid
    answer.st_gid = shown.gid
    answer.st_rdev = shown.rdev & 0xFFFFFFFF
    answer.st_size = shown.size_bytes
    answer.st_blksize = attrs.PREFERRED_IO_BYTES
    answer.st_blocks = shown.blocks
    answer.st_atime_ns = answer.st_ctime_ns = answer.st_mtime_ns = shown.mtime_ns
    return answer


def _groups_of(pid: int) -> set[int]:
    try:
        return pyfuse3.get_sup_groups(pid)
    except (OSError, RuntimeError, pyfuse3.FUSEError):  # the process has gone, or is in another pid namespace
        return set()
