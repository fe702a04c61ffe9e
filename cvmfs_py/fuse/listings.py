"""Parts of listings as the kernel takes them: records of READDIR and READDIRPLUS, as many as there is room for.

Goes on where the last part did not fit, without asking the catalog again, and prepares what a walk comes to next, so
that it is there when it is asked for. May raise NotLocal and be called again; nothing it keeps is visible but in speed.

Sends nothing, waits for nothing. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import CacheError
from cache.ref import NotLocal
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError, FsError
from cvmfs_py.fuse import wire_replies as replies
from cvmfs_py.fuse.walk import Walk
from cvmfs_py.vfs.namespace import NotAttached
from cvmfs_py.vfs.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog.opened import OpenObject
    from cvmfs_py.fuse.attr_packer import AttrPacker
    from cvmfs_py.fuse.volume import Files
    from cvmfs_py.fuse.wire_replies import Validity
    from cvmfs_py.vfs.files import Node
    from cvmfs_py.vfs.inodes import Inode

_DOTS = 2  # positions of a listing before the first row
_LISTING_SHIFT = 25  # positions in the root have the number of the listing, 6 bits, above these: old programs take 31
_DIRECTORY = 4  # what a record says of the kind of a directory
_UNKNOWN_INO = 0xFFFFFFFF  # what listings say where there is no number yet
_SMALLEST_RECORD_BYTES = 32
_SMALLEST_PLUS_BYTES = 160
_KNOWN_ENDS = 1024
_MOST_ENTRIES = 4096  # in one reply: some 20 ms of work
_WALKS = 8  # programs that are watched at a time
_FORESEEN = 4  # parts that are prepared for each of them
_PREPARED = 16
_MOST_PREPARED_BYTES = 64 << 10  # of a part: some 2 ms of work, in which a request may have to wait


class Part(NamedTuple):
    """Records, and the inodes of which they make the kernel count one more lookup: so many in the range of `ino`."""

    body: bytes
    ino: int = 0
    lookups: int = 0
    is_outdated: bool = False  # of a listing that began in an earlier revision: not to be kept
    subdirectories: tuple[Inode, ...] = ()
    following: int | None = None  # the position after it, when there is more


class Listings:
    """The listings of one volume."""

    def __init__(
        self, files: Files, packer: AttrPacker, validity: Validity, validity_in_root: Callable[[bytes], Validity]
    ) -> None:
        """How long entries are believed; in the root, where they may change, that depends on the name."""
        self._files = files
        self._packer = packer
        self._validity = validity
        self._validity_in_root = validity_in_root
        self._ends: Recent[int] = Recent(_KNOWN_ENDS)  # where listings end; of the root it depends on the revision
        # Of the last part, what did not fit: inode, number of the listing, row before it, entries, row after it.
        self._rest: tuple[int, int, int, list[Node], int | None] | None = None
        self._walks: OrderedDict[int, Walk] = OrderedDict()  # by process
        self._prepared: OrderedDict[tuple[Inode, int, int], Part | None] = OrderedDict()
        self._room_bytes = 0  # of the last request

    def revision_changed(self) -> None:
        self._rest = None
        self._walks.clear()
        self._prepared.clear()

    def names(self, ino: Inode, position: int, room_bytes: int, open_object: OpenObject) -> Part:
        """Names and kinds."""

        def pack(node: Node, after: int) -> bytes:
            entry = node.entry
            return replies.pack_dirent(node.ino or _UNKNOWN_INO, after, entry.name, entry.mode >> 12)

        return self._part(ino, position, room_bytes, open_object, pack, replies.pack_dirent, _SMALLEST_RECORD_BYTES)

    def entries(self, ino: Inode, position: int, room_bytes: int, process: int, open_object: OpenObject) -> Part:
        """Names with all their attributes, so that nobody has to look them up."""
        part = self._prepared.pop((ino, position, room_bytes), None)
        if part is None:
            part = self._entries(ino, position, room_bytes, open_object)
        self._room_bytes = room_bytes
        walk = self._walks.get(process)
        if walk is None:
            walk = self._walks[process] = Walk()
            if len(self._walks) > _WALKS:
                self._walks.popitem(last=False)
        self._walks.move_to_end(process)
        if part.body:
            walk.listed(ino, part.subdirectories, part.following)
        return part

    def prepare(self, open_object: OpenObject) -> tuple[bool, NotLocal | None]:
        """Prepares one part that is likely to be asked for. Whether there was one, and what it lacks."""
        room_bytes = self._room_bytes
        if room_bytes > _MOST_PREPARED_BYTES:
            return False, None
        for walk in reversed(self._walks.values()):
            for ino, position in walk.expected(_FORESEEN):
                key = ino, position, room_bytes
                if key not in self._prepared and ino != self._files.root:
                    part = missing = None
                    try:
                        part = self._entries(ino, position, room_bytes, open_object)
                    except NotLocal as not_local:
                        missing = not_local
                    except (NotAttached, CvmfsError, CatalogError, CacheError):
                        pass  # whoever asks for it will be told
                    self._prepared[key] = part
                    if len(self._prepared) > _PREPARED:
                        self._prepared.popitem(last=False)
                    return True, missing
        return False, None

    def _entries(self, ino: Inode, position: int, room_bytes: int, open_object: OpenObject) -> Part:
        if ino == self._files.root:
            return self._root_entries(position, room_bytes, open_object)
        validity, pack_attr = self._validity, self._packer.pack
        pack_entry_record = replies.pack_entry_record

        def pack(node: Node, after: int) -> bytes:
            ino, entry = node
            return pack_entry_record(ino, validity, pack_attr(ino, entry), after, entry.name, entry.mode >> 12)

        return self._part(ino, position, room_bytes, open_object, pack, replies.pack_name_record, _SMALLEST_PLUS_BYTES)

    def _root_entries(self, position: int, room_bytes: int, open_object: OpenObject) -> Part:
        root, pack_attr = self._files.root, self._packer.pack
        is_outdated = bool(position) and position >> _LISTING_SHIFT != self._files.listing(root)

        def pack(node: Node, after: int) -> bytes:
            ino, entry = node
            # Whoever wants to know more has to look it up: what was so in an earlier revision would count as told now.
            if not ino or is_outdated:
                return replies.pack_name_record(ino or _UNKNOWN_INO, after, entry.name, entry.mode >> 12)
            validity = self._validity_in_root(entry.name)
            return replies.pack_entry_record(ino, validity, pack_attr(ino, entry), after, entry.name, entry.mode >> 12)

        pack_dot = replies.pack_name_record
        part = self._part(root, position, room_bytes, open_object, pack, pack_dot, _SMALLEST_PLUS_BYTES)
        return part._replace(lookups=0) if is_outdated else part

    def _part(
        self,
        ino: Inode,
        position: int,
        room_bytes: int,
        open_object: OpenObject,
        pack: Callable[[Node, int], bytes],
        pack_dot: Callable[[int, int, bytes, int], bytes],
        smallest_bytes: int,
    ) -> Part:
        if position and self._ends.get(ino) == position:  # every listing is asked for more until there is none
            return Part(b"")
        is_root = ino == self._files.root
        current = listing = self._files.listing(ino)
        if position and is_root:  # a listing goes on in the revision in which it began
            listing, position = position >> _LISTING_SHIFT, position & (1 << _LISTING_SHIFT) - 1
        mark = listing << _LISTING_SHIFT
        dots = [pack_dot(ino, mark + 1, b".", _DIRECTORY)] if position < 1 else []
        if position < _DOTS:
            dots.append(pack_dot(self._files.parent(ino, open_object), mark + _DOTS, b"..", _DIRECTORY))
        records = dots if sum(map(len, dots)) <= room_bytes else dots[: room_bytes // smallest_bytes]
        room_bytes -= sum(map(len, records))
        is_full = len(records) < len(dots)
        subdirectories: list[Inode] = []
        after: int | None = max(0, position - _DOTS)
        last_position = mark + position + len(records)
        first = count = 0
        while after is not None and not is_full and len(records) < _MOST_ENTRIES:
            nodes, after_all = self._nodes(ino, listing, after, room_bytes // smallest_bytes + 1, open_object)
            for number, node in enumerate(nodes):
                entry = node.entry
                row_position = mark + entry.rowid + _DOTS
                record = pack(node, row_position)
                room_bytes -= len(record)
                if room_bytes < 0:
                    self._rest = ino, listing, after, nodes[number:], after_all
                    is_full = True
                    break
                records.append(record)
                count += 1
                after = entry.rowid
                last_position = row_position
                first = first or node.ino
                if entry.mode >> 12 == _DIRECTORY:
                    subdirectories.append(node.ino)
            else:
                after = after_all
        if is_full and not records:  # an answer without entries would be the end
            raise FsError(errno.EINVAL, "there is no room for one entry")
        if is_root and after is not None and after + _DOTS >> _LISTING_SHIFT:
            raise FsError(errno.EOVERFLOW, "the root catalog has too many rows to be listed")
        if after is None and records and not is_root:
            self._ends.put(ino, last_position)
        following = None if after is None else last_position
        return Part(b"".join(records), first, count, listing != current, tuple(subdirectories), following)

    def _nodes(
        self, ino: Inode, listing: int, after: int, limit: int, open_object: OpenObject
    ) -> tuple[list[Node], int | None]:
        rest = self._rest
        if rest is not None and rest[:3] == (ino, listing, after):
            self._rest = None
            return rest[3], rest[4]
        page = self._files.page(ino, after, min(limit, _MOST_ENTRIES), open_object, listing)
        return page.nodes, page.next_rowid
