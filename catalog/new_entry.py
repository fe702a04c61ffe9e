"""Rows to be: what a writer puts under a path. Makes the values of each kind of entry; writes nothing. Pure."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from catalog import flags as bits
from catalog.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.address import ContentHash
    from catalog.entry import Chunk

DIRECTORY_SIZE = 4096  # what most file systems say; it means nothing
_GROUP_SHIFT = 32


class NewEntry(NamedTuple):
    """The columns of a row that do not follow from its path, and its chunks."""

    hardlinks: int  # group << 32 | link count; of directories corrected when the catalog is finished
    digest: bytes | None
    size: int  # of a device: its number
    mode: int
    mtime_s: int
    mtime_ns: int
    flags: int
    symlink: bytes
    uid: int
    gid: int
    xattr_blob: bytes | None
    chunks: tuple[Chunk, ...] = ()

    def in_group(self, group: int, link_count: int) -> NewEntry:
        """The same as a member of a hard-link group; group 0: as a file of its own."""
        return self._replace(hardlinks=group << _GROUP_SHIFT | link_count if group else 1)

    def as_entry(self, name: bytes, rowid: int = 0) -> Entry:
        """As a reader would give it."""
        return Entry(
            rowid,
            name,
            self.mode,
            self.size,
            self.mtime_s,
            self.mtime_ns,
            self.uid,
            self.gid,
            self.hardlinks,
            self.flags,
            self.digest,
            self.symlink,
            self.xattr_blob,
        )

    def says_the_same_as(self, entry: Entry) -> bool:
        """Whether a row says the same; link counts, hard-link groups and chunks are not looked at."""
        return (
            self.size == entry.size
            and self.mode == entry.mode
            and self.mtime_s == entry.mtime_s
            and self.mtime_ns == entry.mtime_ns
            and self.digest == entry.digest
            and self.flags == entry.flags
            and self.symlink == entry.symlink
            and self.uid == entry.uid
            and self.gid == entry.gid
            and self.xattr_blob == entry.xattr_blob
        )


def from_entry(entry: Entry, chunks: tuple[Chunk, ...] = ()) -> NewEntry:
    """What a row says, to be put elsewhere or changed."""
    return NewEntry(
        hardlinks=entry.hardlinks,
        digest=entry.digest,
        size=entry.size,
        mode=entry.mode,
        mtime_s=entry.mtime_s,
        mtime_ns=entry.mtime_ns,
        flags=entry.flags,
        symlink=entry.symlink,
        uid=entry.uid or 0,
        gid=entry.gid or 0,
        xattr_blob=entry.xattr_blob,
        chunks=chunks,
    )


def file_flags(
    content_hash: ContentHash | None,
    chunks: Sequence[Chunk],
    compression_code: int,
    is_external: bool,
    is_direct_io: bool,
) -> int:
    """The flags of a regular file. Its chunks have to be of one algorithm, which is also that of its hash."""
    first = content_hash or chunks[0].content_hash
    return (
        bits.FILE
        | bits.ALGORITHMS.index(first.algorithm) << bits.ALGORITHM_SHIFT
        | compression_code << bits.COMPRESSION_SHIFT
        | (bits.CHUNKED if chunks else 0)
        | (bits.EXTERNAL if is_external else 0)
        | (bits.DIRECT_IO if is_direct_io else 0)
    )


def kind_flags(mode: int) -> int:
    """The flags of an entry that is no regular file, by its mode."""
    if stat.S_ISDIR(mode):
        return bits.DIRECTORY
    if stat.S_ISLNK(mode):
        return bits.FILE | bits.SYMLINK
    return bits.FILE | bits.SPECIAL
