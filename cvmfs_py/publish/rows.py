"""From what a publisher says of an entry to the row of a catalog, and the refusal of what no row can hold. Pure."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, TypeAlias

from catalog.errors import show_path
from catalog.new_entry import DIRECTORY_SIZE, NewEntry, file_flags, kind_flags
from catalog.xattrs import pack_xattr_blob
from cvmfs_py.errors import PublishError
from cvmfs_py.numerals import counted
from cvmfs_py.publish.attributes import TreeWarning
from cvmfs_py.publish.settings import COMPRESSION_CODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfs_py.publish.attributes import Attributes, FileContent

    Warn: TypeAlias = Callable[[TreeWarning], None]

NAME_LIMIT_BYTES = 255
_PERMISSIONS = 0o7777
_ID_LIMIT = 1 << 32
_INTEGER_LIMIT = 1 << 63
_SECOND_NS = 1_000_000_000
_SPECIAL_KINDS = frozenset((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_DEVICES = frozenset((stat.S_IFCHR, stat.S_IFBLK))
_NO_NAMES = frozenset((b"", b".", b".."))


def check_path(path: bytes) -> None:
    """Refuses what is not a path of an entry below the root; the directories above are looked up anyway."""
    name = path.rpartition(b"/")[2]
    if not path.startswith(b"/") or name in _NO_NAMES:
        raise PublishError(f"{show_path(path)!r} is not the path of an entry: absolute and normal paths are")
    if len(name) > NAME_LIMIT_BYTES:
        raise PublishError(
            f"the name of {show_path(path)} has {len(name)} bytes: names of more than {NAME_LIMIT_BYTES} cannot be "
            "published"
        )
    if b"\0" in name:
        raise PublishError(f"the name of {show_path(path)} contains NUL, and cannot be published")


def directory_row(path: bytes, attributes: Attributes, warn: Warn) -> NewEntry:
    return _row(path, attributes, warn, stat.S_IFDIR, DIRECTORY_SIZE, hardlinks=2)


def symlink_row(path: bytes, attributes: Attributes, warn: Warn, target: bytes) -> NewEntry:
    if not target or b"\0" in target:
        raise PublishError(f"the target of the symlink {show_path(path)} is empty or contains NUL")
    return _row(path, attributes, warn, stat.S_IFLNK, len(target), symlink=target)


def special_row(path: bytes, attributes: Attributes, warn: Warn, kind: int, device: int) -> NewEntry:
    if kind not in _SPECIAL_KINDS:
        raise PublishError(f"{show_path(path)}: {kind:#o} is no kind of special file")
    if not 0 <= device < _INTEGER_LIMIT:
        raise PublishError(f"{show_path(path)}: {device} is not the number of a device")
    return _row(path, attributes, warn, kind, device if kind in _DEVICES else 0)


def file_row(
    path: bytes,
    attributes: Attributes,
    warn: Warn,
    content: FileContent,
    compression: str,
    is_external: bool,
    is_direct_io: bool,
) -> NewEntry:
    chunks = tuple(content.chunks)
    content_hash = content.content_hash
    if content_hash is None and not chunks:
        raise PublishError(f"the file {show_path(path)} has neither a hash nor chunks")
    position = 0
    for chunk in chunks:
        if chunk.offset != position or chunk.size <= 0:
            raise PublishError(f"the chunks of {show_path(path)} do not fit together at byte {position}")
        position += chunk.size
    if chunks and position != content.size_bytes:
        raise PublishError(f"the chunks of {show_path(path)} cover {position} of {counted(content.size_bytes, 'byte')}")
    if len({one.algorithm for one in (content_hash, *(chunk.content_hash for chunk in chunks)) if one}) > 1:
        raise PublishError(f"the objects of {show_path(path)} have hashes of several algorithms")
    flags = file_flags(content_hash, chunks, COMPRESSION_CODES[compression], is_external, is_direct_io)
    digest = content_hash.digest if content_hash else None
    row = _row(path, attributes, warn, stat.S_IFREG, content.size_bytes)
    return row._replace(flags=flags, digest=digest, chunks=chunks)


def changed_row(path: bytes, old: NewEntry, attributes: Attributes, warn: Warn) -> NewEntry:
    """The same entry with other attributes."""
    row = _row(path, attributes, warn, stat.S_IFMT(old.mode), old.size)
    return row._replace(
        hardlinks=old.hardlinks, digest=old.digest, flags=old.flags, symlink=old.symlink, chunks=old.chunks
    )


def _row(
    path: bytes,
    attributes: Attributes,
    warn: Warn,
    kind: int,
    size: int,
    *,
    hardlinks: int = 1,
    symlink: bytes = b"",
) -> NewEntry:
    uid, gid = attributes.uid, attributes.gid
    if not (0 <= uid < _ID_LIMIT and 0 <= gid < _ID_LIMIT):
        raise PublishError(f"the owner {uid}:{gid} of {show_path(path)} is out of range")
    if not (0 <= attributes.mtime_ns < _SECOND_NS and -_INTEGER_LIMIT <= attributes.mtime_s < _INTEGER_LIMIT):
        raise PublishError(f"the time of {show_path(path)} is out of range")
    blob = None
    if attributes.xattrs:
        blob, left_out = pack_xattr_blob(attributes.xattrs)
        for name, reason in left_out:
            warn(TreeWarning(path, f"the extended attribute {show_path(name)} is left out: {reason}"))
    mode = kind | attributes.mode & _PERMISSIONS
    return NewEntry(
        hardlinks,
        None,
        size,
        mode,
        attributes.mtime_s,
        attributes.mtime_ns,
        kind_flags(mode),
        symlink,
        uid,
        gid,
        blob,
    )
