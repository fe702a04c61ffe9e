"""What each request of the kernel is answered with: one method an operation, over one volume. For the kernel channel.

A method parses its request, runs one operation of the core with the `open_object` it is given, and packs the reply. It
may raise NotLocal and be called again, and applies no effects: it tells which inodes the kernel will know of when the
reply was taken. Sends nothing, waits for nothing. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_py.errors import FsError
from cvmfs_py.fuse import wire_replies as replies
from cvmfs_py.fuse import wire_requests as requests
from cvmfs_py.fuse.attr_packer import AttrPacker
from cvmfs_py.fuse.contents import GROUP, Contents, plan_pieces
from cvmfs_py.fuse.wire import FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE
from cvmfs_py.vfs.inodes import Inode
from cvmfs_py.vfs.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.opened import OpenObject
    from cvmfs_py.fuse.volume import KernelTimes, Volume
    from cvmfs_py.fuse.wire_requests import Request
    from cvmfs_py.vfs.files import Node

_DOTS = 2  # positions of a listing before the first row
_LISTING_SHIFT = 25  # positions in the root have the number of the listing, 6 bits, above these: old programs take 31
READ_ONLY = "repositories are read-only"
_DIRECTORY = 4  # what a record says of the kind of a directory
UNKNOWN_INO = 0xFFFFFFFF  # what listings say where there is no number yet
_SMALLEST_RECORD_BYTES = 32
_SMALLEST_PLUS_BYTES = 160
_KNOWN_ENDS = 1024
_MOST_ENTRIES = 4096  # in one reply: some 20 ms of work


class Answer(NamedTuple):
    """A reply, and the inodes it makes the kernel count one more lookup of: so many in the range of `ino`."""

    message: bytes
    ino: int = 0
    lookups: int = 0
    is_outdated: bool = False  # a part of a listing that began in an earlier revision: not to be kept


class Served:
    """One volume with what its answers are made of."""

    def __init__(self, volume: Volume, times: KernelTimes) -> None:
        self.volume = volume
        self.contents = Contents(volume)
        self._files = volume.files
        self._packer = AttrPacker(volume.view)
        self._validity = replies.pack_validity(times.entry_s, times.attribute_s)
        self._root_validity = replies.pack_validity(times.entry_s, times.root_attribute_s)
        self._negative = replies.pack_negative_entry(replies.pack_validity(times.negative_s, 0))
        # Of the last listing, what did not fit: inode, number of the listing, row before it, entries, row after it.
        self._ends: Recent[int] = Recent(_KNOWN_ENDS)  # where listings end; of the root it depends on the revision
        self._rest: tuple[int, int, int, list[Node], int | None] | None = None

    def revision_changed(self) -> None:
        self._rest = None

    def lookup(self, request: Request, open_object: OpenObject) -> Answer:
        node = self._files.lookup(Inode(request.ino), requests.parse_lookup(request), open_object)
        if node is None:
            return Answer(replies.pack_entry_reply(request.unique, self._negative))
        ino, entry = node
        packed = replies.pack_entry(ino, self._validity, self._packer.pack(ino, entry))
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

    def read_now(self, request: Request, open_object: OpenObject) -> bytes | bytearray | None:
        """The bytes that are asked for, when they are in memory. None: they take longer, so `read` them."""
        _, offset, size_bytes = requests.parse_read(request)
        ino = Inode(request.ino)
        contents = self.contents
        spans = contents.spans(ino, open_object)
        if len(spans) == 1 and offset == 0 and spans[0].length <= size_bytes:
            data = contents.read_whole(spans[0], open_object)
            if data is not None:
                return data
        pieces = plan_pieces(spans, offset, size_bytes)
        if not pieces:
            return b""
        if len(pieces) > GROUP:
            return None
        if len(spans) > 1:
            contents.fetch_ahead(ino, spans, offset, size_bytes)
        contents.hold(tuple(piece.span.ref for piece in pieces), open_object)
        return contents.read_now(pieces)

    async def read(self, request: Request) -> bytes | bytearray:
        """The same, however long it takes."""
        _, offset, size_bytes = requests.parse_read(request)
        ino = Inode(request.ino)
        spans = await self.volume.run(lambda open_object: self.contents.spans(ino, open_object), is_data=True)
        return await self.contents.read(ino, spans, offset, size_bytes)

    # --- directories

    def open_directory(self, request: Request, open_object: OpenObject) -> Answer:
        """Only asked by kernels that cannot do without."""
        self._files.page(Inode(request.ino), 0, 1, open_object)
        return Answer(replies.pack_open_reply(request.unique, 0, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR))

    def list_names(self, request: Request, open_object: OpenObject) -> Answer:
        def pack(node: Node, position: int) -> bytes:
            entry = node.entry
            return replies.pack_dirent(node.ino or UNKNOWN_INO, position, entry.name, entry.mode >> 12)

        return self._list(request, open_object, pack, replies.pack_dirent, _SMALLEST_RECORD_BYTES, is_lookup=False)

    def list_entries(self, request: Request, open_object: OpenObject) -> Answer:
        """Names with all their attributes, so that nobody has to look them up."""
        validity, pack_attr = self._validity, self._packer.pack
        pack_entry, pack_record = replies.pack_entry, replies.pack_direntplus

        def pack(node: Node, position: int) -> bytes:
            ino, entry = node
            if not ino:  # whoever wants to know more has to look it up
                return pack_record(replies.NO_ENTRY, UNKNOWN_INO, position, entry.name, entry.mode >> 12)
            packed = pack_entry(ino, validity, pack_attr(ino, entry))
            return pack_record(packed, ino, position, entry.name, entry.mode >> 12)

        def pack_dot(ino: int, position: int, name: bytes, kind: int) -> bytes:
            return replies.pack_direntplus(replies.NO_ENTRY, ino, position, name, kind)

        return self._list(request, open_object, pack, pack_dot, _SMALLEST_PLUS_BYTES, is_lookup=True)

    def _list(
        self,
        request: Request,
        open_object: OpenObject,
        pack: Callable[[Node, int], bytes],
        pack_dot: Callable[[int, int, bytes, int], bytes],
        smallest_bytes: int,
        *,
        is_lookup: bool,
    ) -> Answer:
        _, offset, room_bytes = requests.parse_read(request)
        ino = Inode(request.ino)
        if offset and self._ends.get(ino) == offset:  # every listing is asked for more until there is none
            return Answer(replies.pack_reply(request.unique, b""))
        current = listing = self._files.listing(ino)
        if offset and ino == self._files.root:  # a listing goes on in the revision in which it began
            listing, offset = offset >> _LISTING_SHIFT, offset & (1 << _LISTING_SHIFT) - 1
        mark = listing << _LISTING_SHIFT
        dots = [pack_dot(ino, mark + 1, b".", _DIRECTORY)] if offset < 1 else []
        if offset < _DOTS:
            dots.append(pack_dot(self._files.parent(ino, open_object), mark + _DOTS, b"..", _DIRECTORY))
        parts: list[bytes] = []
        is_full = False
        for record in dots:
            room_bytes -= len(record)
            if room_bytes < 0:
                is_full = True
                break
            parts.append(record)
        after: int | None = None if is_full else max(0, offset - _DOTS)
        first = count = last_rowid = 0
        while after is not None and len(parts) < _MOST_ENTRIES:
            nodes, following = self._page(ino, listing, after, room_bytes // smallest_bytes + 1, open_object)
            for number, node in enumerate(nodes):
                record = pack(node, mark + node.entry.rowid + _DOTS)
                room_bytes -= len(record)
                if room_bytes < 0:
                    self._rest = ino, listing, after, nodes[number:], following
                    is_full = True
                    break
                parts.append(record)
                count += 1
                after = last_rowid = node.entry.rowid
                first = first or node.ino
            else:
                after = following
                continue
            break
        if after is None and parts and not is_full and ino != self._files.root:
            self._ends.put(ino, _DOTS if not count else last_rowid + _DOTS)
        if ino == self._files.root and after is not None and after + _DOTS >> _LISTING_SHIFT:
            raise FsError(errno.EOVERFLOW, "the root catalog has too many rows to be listed")
        if is_full and not parts:  # an answer without entries would be the end
            raise FsError(errno.EINVAL, "there is no room for one entry")
        body = replies.pack_reply(request.unique, b"".join(parts))
        return Answer(body, first, count if is_lookup else 0, listing != current)

    def _page(
        self, ino: Inode, listing: int, after: int, limit: int, open_object: OpenObject
    ) -> tuple[list[Node], int | None]:
        rest = self._rest
        if rest is not None and rest[:3] == (ino, listing, after):
            self._rest = None
            return rest[3], rest[4]
        page = self._files.page(ino, after, min(limit, _MOST_ENTRIES), open_object, listing)
        return page.nodes, page.next_rowid

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
