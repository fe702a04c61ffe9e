"""The check of one row of a catalog by itself: what its columns say must fit together. Pure."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from catalog import flags as bits
from cvmfs_py.numerals import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.entry import Entry

_KIND_BITS = bits.DIRECTORY | bits.FILE | bits.SYMLINK | bits.SPECIAL
_KIND_FLAGS = {
    stat.S_IFDIR: bits.DIRECTORY,
    stat.S_IFLNK: bits.FILE | bits.SYMLINK,
    stat.S_IFREG: bits.FILE,
}
_SIZELESS = frozenset((stat.S_IFIFO, stat.S_IFSOCK))


def entry_problems(entry: Entry, *, before_2_1: bool) -> Iterator[str]:
    """What is wrong with a row below the top of a catalog, each to be said of its path."""
    kind = stat.S_IFMT(entry.mode)
    if not before_2_1:  # older rows have neither link counts nor most of the flags
        yield from _flag_problems(entry, kind)
        yield from _link_problems(entry)
    if entry.is_nested_root:
        yield "is marked as the top of a catalog inside of one"
    if bool(entry.symlink) != (kind == stat.S_IFLNK):
        yield "is wrong: only symbolic links have targets, and all of them have"
    elif kind == stat.S_IFLNK and entry.size not in (0, len(entry.symlink)):
        # 0 is in a tar header, and so in what the reference server makes of one; no client looks at it
        yield f"has a target of {counted(len(entry.symlink), 'byte')}, and {entry.size:,} are recorded"
    if kind in _SIZELESS and entry.size:
        yield f"is no file and has a size of {counted(entry.size, 'byte')}"
    if kind != stat.S_IFREG and entry.digest:
        yield "is no regular file and has a hash"


def _flag_problems(entry: Entry, kind: int) -> Iterator[str]:
    flags = entry.flags
    if flags & _KIND_BITS != _KIND_FLAGS.get(kind, bits.FILE | bits.SPECIAL):
        yield f"is wrong: its flags {flags} do not fit its mode {entry.mode:o}"
    transitions = flags & (bits.NESTED_MOUNTPOINT | bits.BIND_MOUNTPOINT)
    if transitions and kind != stat.S_IFDIR:
        yield "is marked as a mountpoint of a catalog and is no directory"
    if transitions == bits.NESTED_MOUNTPOINT | bits.BIND_MOUNTPOINT:
        yield "is marked as a mountpoint of a nested catalog and of another revision at once"
    if flags & (bits.CHUNKED | bits.EXTERNAL | bits.DIRECT_IO) and kind != stat.S_IFREG:
        yield "is marked as chunked, external or for direct I/O and is no regular file"


def _link_problems(entry: Entry) -> Iterator[str]:
    if entry.link_count == 0:
        yield "says that it has no links"
    if entry.is_directory:
        if entry.hardlinks >> 32:
            yield "is a directory in a group of hard links"
    elif entry.link_count > 1 and not entry.hardlink_group:
        yield f"says that it has {counted(entry.link_count, 'hard link')}, and is in no group of them"
