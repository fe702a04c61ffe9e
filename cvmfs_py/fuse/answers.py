"""What each request of the kernel is answered with: one method an operation, over one volume. For the kernel channel.

A method parses its request, runs one operation of the core with the `open_object` it is given, and packs the reply. It
may raise NotLocal and be called again, and applies no effects: it tells which inodes the kernel will know of when the
reply was taken. Sends nothing, waits for nothing. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cvmfs_py.errors import FsError
from cvmfs_py.fuse import wire_replies as replies
from cvmfs_py.fuse import wire_requests as requests
from cvmfs_py.fuse.attr_packer import AttrPacker
from cvmfs_py.fuse.contents import GROUP, Contents, plan_pieces
from cvmfs_py.fuse.listings import Listings
from cvmfs_py.fuse.volume import FOREVER_S
from cvmfs_py.fuse.wire import FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, Opcode
from cvmfs_py.vfs.inodes import Inode

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.opened import OpenObject
    from cvmfs_py.fuse.root_names import RootNames
    from cvmfs_py.fuse.volume import Volume
    from cvmfs_py.fuse.wire_requests import Request

    Method: TypeAlias = Callable[["Served", Request, OpenObject], "Answer"]

READ_ONLY = "repositories are read-only"


class Answer(NamedTuple):
    """A reply, and the inodes it makes the kernel count one more lookup of, as `Part`."""

    message: bytes
    ino: int = 0
    lookups: int = 0
    is_outdated: bool = False  # a part of a listing that began in an earlier revision: not to be kept


class Served:
    """One volume with what its answers are made of."""

    def __init__(self, volume: Volume, root_names: RootNames | None) -> None:
        """`root_names` are for a root whose names will be taken back when they change."""
        times = volume.times
        self.volume = volume
        self.contents = Contents(volume)
        self._files = volume.files
        self._packer = AttrPacker(volume.view)
        self._root_names = root_names
        root_attribute_s = times.root_attribute_s if root_names is None else FOREVER_S
        self._root_validity = replies.pack_validity(0, root_attribute_s)
        # What is told of a name: for good, and in the root while nobody takes it back.
        self._validity = replies.pack_validity(FOREVER_S, FOREVER_S)
        self._negative = replies.pack_negative_entry(replies.pack_validity(FOREVER_S, 0))
        self._bounded_validity = replies.pack_validity(times.entry_s, times.attribute_s)
        self._bounded_negative = replies.pack_negative_entry(replies.pack_validity(times.negative_s, 0))
        self._listings = Listings(volume.files, self._packer, self._validity, self._validity_in_root)

    def revision_changed(self, root: int) -> tuple[list[bytes], list[bytes]]:
        """What takes back what the kernel was told of this root, if it is the one of this volume; as `RootNames`."""
        self._listings.revision_changed()
        if root != self._files.root or self._root_names is None:
            return [], []
        return self._root_names.take_back(root)

    def _may_last(self, ino: int, name: bytes) -> bool:
        """Whether the kernel may believe a name in this directory for good."""
        return ino != self._files.root or (self._root_names is not None and self._root_names.may_last(name))

    def _validity_in_root(self, name: bytes) -> replies.Validity:
        return self._validity if self._may_last(self._files.root, name) else self._bounded_validity

    def lookup(self, request: Request, open_object: OpenObject) -> Answer:
        name = requests.parse_lookup(request)
        node = self._files.lookup(Inode(request.ino), name, open_object)
        may_last = self._may_last(request.ino, name)
        if node is None:
            negative = self._negative if may_last else self._bounded_negative
            return Answer(replies.pack_entry_reply(request.unique, negative))
        ino, entry = node
        validity = self._validity if may_last else self._bounded_validity
        packed = replies.pack_entry(ino, validity, self._packer.pack(ino, entry))
        return Answer(replies.pack_entry_reply(request.unique, packed), ino, 1)

    def getattr(self, request: Request, open_object: OpenObject) -> Answer:
        ino, entry = self._files.node(Inode(request.ino), open_object)
        validity = self._root_validity if ino == self._files.root else self._validity
        return Answer(replies.pack_attr_reply(request.unique, validity, self._packer.pack(ino, entry)))

    def read_link(self, request: Request, open_object: OpenObject) -> Answer:
        target = self._files.read_link(Inode(request.ino), open_object)
        return Answer(replies.pack_reply(request.unique, target))

    # --- files

    def open(self, request: Request, open_object: OpenObject) -> Answer:
        """Only asked by old kernels. What cannot be had is said here; of chunks, when they are read."""
        if requests.parse_open(request) & os.O_ACCMODE != os.O_RDONLY:
            raise FsError(errno.EROFS, READ_ONLY)
        ino = Inode(request.ino)
        spans = self.contents.spans(ino, open_object)
        if len(spans) == 1:
            self.contents.hold((spans[0].ref,), open_object)
        is_direct_io = self._files.node(ino, open_object).entry.is_direct_io
        return Answer(replies.pack_open_reply(request.unique, 0, FOPEN_DIRECT_IO if is_direct_io else FOPEN_KEEP_CACHE))

    def read_now(self, request: Request, open_object: OpenObject) -> bytes | memoryview | None:
        """The bytes that are asked for, when they are in memory. None: they take longer, so `read` them."""
        _, offset, size_bytes = requests.parse_read(request)
        ino = Inode(request.ino)
        contents = self.contents
        if not offset:
            contents.begins(request.pid, ino)
        spans = contents.spans(ino, open_object)
        if len(spans) == 1 and not offset and spans[0].length <= size_bytes:
            data = contents.read_whole(request.pid, ino, spans[0], open_object)
            if data is not None:
                return data
        pieces = plan_pieces(spans, offset, size_bytes)
        if not pieces:
            return b""
        if len(pieces) > GROUP:
            return None
        contents.hold(tuple(piece.span.ref for piece in pieces), open_object)
        data = contents.read_now(pieces)
        contents.look_ahead(ino, spans, offset, size_bytes)
        return data

    async def read(self, request: Request) -> bytes | memoryview:
        """The same, however long it takes."""
        _, offset, size_bytes = requests.parse_read(request)
        ino = Inode(request.ino)
        spans = await self.volume.run(lambda open_object: self.contents.spans(ino, open_object), is_data=True)
        return await self.contents.read(ino, spans, offset, size_bytes, request.pid)

    # --- directories

    def open_directory(self, request: Request, open_object: OpenObject) -> Answer:
        """Only asked by kernels that cannot do without."""
        self._files.page(Inode(request.ino), 0, 1, open_object)
        return Answer(replies.pack_open_reply(request.unique, 0, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR))

    def list_names(self, request: Request, open_object: OpenObject) -> Answer:
        _, position, room_bytes = requests.parse_read(request)
        part = self._listings.names(Inode(request.ino), position, room_bytes, open_object)
        return Answer(replies.pack_reply(request.unique, part.body), is_outdated=part.is_outdated)

    def list_entries(self, request: Request, open_object: OpenObject) -> Answer:
        _, position, room_bytes = requests.parse_read(request)
        part = self._listings.entries(Inode(request.ino), position, room_bytes, request.pid, open_object)
        return Answer(replies.pack_reply(request.unique, part.body), part.ino, part.lookups, part.is_outdated)

    def prepare(self) -> bool:
        """Does a little of what is likely to be asked for soon. Whether there was something to do."""
        if self.contents.prepare():
            return True
        is_prepared, missing = self._listings.prepare(self.volume.open_object)
        if missing is not None:
            self.volume.fetch_ahead(missing.refs)
        return is_prepared

    # --- the rest

    def status(self, request: Request, open_object: OpenObject) -> Answer:
        status = self.volume.status(open_object)
        statistics = replies.FileSystemStatistics(
            blocks=status.blocks,
            free_blocks=status.free_blocks,
            available_blocks=status.free_blocks,
            inodes=status.files,
            free_inodes=status.free_files,
            io_bytes=status.block_bytes,
            longest_name_bytes=status.name_limit_bytes,
            block_bytes=status.block_bytes,
        )
        return Answer(replies.pack_statfs_reply(request.unique, statistics))

    def xattr(self, request: Request, open_object: OpenObject) -> Answer:
        room_bytes, name = requests.parse_getxattr(request)
        value = self.volume.xattr(Inode(request.ino), name, _groups_of(request), open_object)
        return Answer(replies.pack_xattr_reply(request.unique, room_bytes, value))

    def list_xattrs(self, request: Request, open_object: OpenObject) -> Answer:
        room_bytes = requests.parse_listxattr(request)
        names = self.volume.list_xattrs(Inode(request.ino), _groups_of(request), open_object)
        value = b"".join(name + b"\0" for name in names)
        return Answer(replies.pack_xattr_reply(request.unique, room_bytes, value))


def refuse_change(request: Request, open_object: OpenObject) -> Answer:
    """The mount is read-only, and the kernel knows."""
    raise FsError(errno.EROFS, READ_ONLY)


def _groups_of(request: Request) -> tuple[int, ...]:
    """The groups of the process that asks, as far as they can be known."""
    try:
        with open(f"/proc/{request.pid}/status", "rb") as lines:
            for line in lines:
                if line.startswith(b"Groups:"):
                    return request.gid, *map(int, line.split()[1:])
    except (OSError, ValueError):  # it has gone, or is in another pid namespace
        pass
    return (request.gid,)


_CHANGES = (
    Opcode.SETATTR,
    Opcode.SYMLINK,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.LINK,
    Opcode.WRITE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.CREATE,
    Opcode.TMPFILE,
    Opcode.FALLOCATE,
)
METHODS: dict[int, Method] = {
    Opcode.LOOKUP: Served.lookup,
    Opcode.GETATTR: Served.getattr,
    Opcode.READLINK: Served.read_link,
    Opcode.OPEN: Served.open,
    Opcode.OPENDIR: Served.open_directory,
    Opcode.READDIR: Served.list_names,
    Opcode.READDIRPLUS: Served.list_entries,
    Opcode.STATFS: Served.status,
    Opcode.GETXATTR: Served.xattr,
    Opcode.LISTXATTR: Served.list_xattrs,
    **{opcode: lambda _, request, open_object: refuse_change(request, open_object) for opcode in _CHANGES},
}
