"""Plain values that describe the tree of a repository before it is published, and trees read from a local directory.

Compresses, hashes and writes nothing. Values are immutable; a lazy directory is listed anew for each publication.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.address import Algorithm, ContentHash
    from tests.simulator.schema import Schema

Name = str | bytes
Xattrs = Mapping[bytes, bytes] | bytes  # bytes: the stored blob as it is, however damaged
Entries = Mapping[Any, "Node"] | Callable[[], Iterable[tuple[bytes, "Node"]]]  # names: str or bytes

DEFAULT_MTIME_NS = 1_600_000_000_000_000_000
MARKER = b".cvmfscatalog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What every entry has. `link_count` and `flags` replace what would be computed (flags: added to it)."""

    uid: int = 0
    gid: int = 0
    mtime_ns: int = DEFAULT_MTIME_NS
    xattrs: Xattrs | None = None
    hidden: bool = False
    link_count: int | None = None
    extra_flags: int = 0


@dataclass(frozen=True, slots=True)
class Directory(Attributes):
    """A directory; nested: it starts a nested catalog, which gets a `.cvmfscatalog` marker as servers write it."""

    entries: Entries = field(default_factory=dict)
    mode: int = field(default=0o755, kw_only=True)
    size: int = field(default=4096, kw_only=True)
    nested: bool = field(default=False, kw_only=True)
    marker: bool = field(default=True, kw_only=True)  # False: a nested catalog without marker
    schema: Schema | None = field(default=None, kw_only=True)  # of this nested catalog, where it differs


@dataclass(frozen=True, slots=True)
class File(Attributes):
    """A regular file. `content` may be the path of a local file, which is then streamed."""

    content: bytes | Path = b""
    mode: int = field(default=0o644, kw_only=True)
    chunk_sizes: tuple[int, ...] | int | None = field(default=None, kw_only=True)  # a number: all chunks of that size
    bulk_too: bool = field(default=False, kw_only=True)  # of a chunked file: write the whole as one object as well
    compression: str | None = field(default=None, kw_only=True)  # zlib, none, zstd; None: as the repository
    algorithm: Algorithm | None = field(default=None, kw_only=True)  # None: as the repository
    external: bool = field(default=False, kw_only=True)
    direct_io: bool = field(default=False, kw_only=True)
    size: int | None = field(default=None, kw_only=True)  # what the catalog claims, where that is not the truth
    stored: bytes | None = field(default=None, kw_only=True)  # the object's bytes as they are, correctly hashed


@dataclass(frozen=True, slots=True)
class HardLink:
    """One more name for a regular file of the same directory."""

    to: Name


@dataclass(frozen=True, slots=True)
class Symlink(Attributes):
    target: Name
    mode: int = field(default=0o777, kw_only=True)


@dataclass(frozen=True, slots=True)
class Special(Attributes):
    """A fifo, socket, char or block device."""

    kind: str
    rdev: int = 0
    mode: int = field(default=0o644, kw_only=True)


@dataclass(frozen=True, slots=True)
class BindMountpoint(Attributes):
    """A directory at which the root catalog of some revision appears. A root hash of None leaves the field empty."""

    root_hash: ContentHash | None
    size_bytes: int = 0
    mode: int = field(default=0o555, kw_only=True)


Node = Directory | File | HardLink | Symlink | Special | BindMountpoint

_SPECIAL_KINDS = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


def hard_links(file: File, *names: Name) -> dict[bytes, Node]:
    """Entries of one directory that are all the same file."""
    first, *others = [as_bytes(name) for name in names]
    entries: dict[bytes, Node] = {first: file}
    entries.update({name: HardLink(first) for name in others})
    return entries


def as_bytes(name: Name) -> bytes:
    return name.encode() if isinstance(name, str) else name


def iter_entries(directory: Directory) -> Iterator[tuple[bytes, Node]]:
    """The entries of a directory, whichever way they are given, with names as bytes."""
    if isinstance(directory.entries, Mapping):
        yield from ((as_bytes(name), node) for name, node in directory.entries.items())
    else:
        yield from directory.entries()


def tree_from_directory(
    path: str | os.PathLike[str],
    *,
    nested: Callable[[bytes], bool] = lambda path: False,
    chunk_above_bytes: int | None = None,
    compression: str | None = None,
    owner: tuple[int, int] | None = None,
) -> Directory:
    """A local directory as a tree, listed lazily, so that only one directory at a time is in memory.

    A directory starts a nested catalog where it holds `.cvmfscatalog` or where `nested` says so of its path in the
    repository. Files above `chunk_above_bytes` get chunks of that size. `owner` replaces all owners.
    """
    top = os.fsencode(path)
    scan = _Scan(nested, chunk_above_bytes, compression, owner)
    return scan.directory(top, b"", os.lstat(top))


@dataclass(frozen=True, slots=True)
class _Scan:
    nested: Callable[[bytes], bool]
    chunk_above_bytes: int | None
    compression: str | None
    owner: tuple[int, int] | None

    def directory(self, local: bytes, path: bytes, status: os.stat_result) -> Directory:
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        return Directory(
            functools.partial(self._entries, local, path),
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns,
            xattrs=_read_xattrs(local),
            nested=path != b"" and (self.nested(path) or os.path.lexists(local + b"/" + MARKER)),
        )

    def _entries(self, local: bytes, path: bytes) -> Iterator[tuple[bytes, Node]]:
        first_names: dict[tuple[int, int], bytes] = {}
        with os.scandir(local) as scan:
            for item in scan:
                status = item.stat(follow_symlinks=False)
                name = item.name
                if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                    first = first_names.setdefault((status.st_dev, status.st_ino), name)
                    if first != name:
                        yield name, HardLink(first)
                        continue
                yield name, self._node(item.path, path + b"/" + name, status)

    def _node(self, local: bytes, path: bytes, status: os.stat_result) -> Node:
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            return self.directory(local, path, status)
        if stat.S_ISLNK(status.st_mode):
            return Symlink(os.readlink(local), mode=mode, uid=uid, gid=gid, mtime_ns=status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            kind = _SPECIAL_KINDS[stat.S_IFMT(status.st_mode)]
            return Special(kind, status.st_rdev, mode=mode, uid=uid, gid=gid, mtime_ns=status.st_mtime_ns)
        chunked = self.chunk_above_bytes is not None and status.st_size > self.chunk_above_bytes
        return File(
            Path(os.fsdecode(local)),
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns,
            xattrs=_read_xattrs(local),
            chunk_sizes=self.chunk_above_bytes if chunked else None,
            compression=self.compression,
        )


def _read_xattrs(local: bytes) -> Mapping[bytes, bytes] | None:
    names = [os.fsencode(name) for name in os.listxattr(local, follow_symlinks=False)]
    return {name: os.getxattr(local, name, follow_symlinks=False) for name in names} or None
