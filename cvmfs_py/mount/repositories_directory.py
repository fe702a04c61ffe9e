"""The top directory of a mount that shows every repository, as the engines see a file system core.

Answers for names that are attached, and for those that surely are none; for all others it says NotAttached, and whoever
runs the operation attaches and asks again. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from typing import TYPE_CHECKING

from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import NAME_LIMIT_BYTES, Following, Node, NodePage
from cvmfs_py.vfs.inodes import ROOT, Inode
from cvmfs_py.vfs.namespace import NotAttached

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catalog.content import Span
    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from cvmfs_py.vfs.files import RepositoryFiles
    from cvmfs_py.vfs.namespace import Namespace

_NO_INODE = Inode(0)


class RepositoriesDirectory:
    """The directory at ROOT. Names that are listed without being attached have no inode until they are looked up."""

    root = ROOT

    def __init__(
        self,
        namespace: Namespace,
        listed: Sequence[bytes],
        is_absent: Callable[[bytes], bool],
        top_of: Callable[[RepositoryFiles], Entry],
    ) -> None:
        """`top_of` tells the entry of a repository's own root directory, as that repository shows it."""
        self._namespace = namespace
        self._is_absent = is_absent
        self._top_of = top_of
        self._listed = frozenset(listed)
        self._rows: list[bytes] = []
        self._row_numbers: dict[bytes, int] = {}

    def remember(self, ino: int, count: int = 1) -> None:
        self._namespace.inodes.remember(ino, count)

    def forget(self, ino: int, count: int) -> None:
        """Nobody forgets the top."""

    def node(self, ino: Inode, open_object: OpenObject) -> Node:
        self._require_root(ino)
        return self._namespace.node()

    def lookup(self, parent: Inode, name: bytes, open_object: OpenObject) -> Node | None:
        self._require_root(parent)
        if len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.ENAMETOOLONG, "this name is longer than a name may be")
        if self._is_absent(name):
            return None
        files = self._namespace.lookup(name)
        if files is None:
            raise NotAttached(name)
        return Node(files.root, self._top_of(files))

    def listing(self, ino: Inode) -> int:
        """There is only one: whoever comes or goes keeps his place in it."""
        return 0

    def page(
        self, ino: Inode, after_rowid: int, limit: int, open_object: OpenObject, listing: int | None = None
    ) -> NodePage:
        """In the order of names. Who comes or goes meanwhile makes nobody else appear twice or not at all."""
        self._require_root(ino)
        if limit < 1:
            raise FsError(errno.EINVAL, "a part of a listing has at least one entry")
        names = sorted({*self._listed, *self._namespace.names})
        start = 0
        if after_rowid > 0:
            is_known = after_rowid <= len(self._rows)
            start = bisect_right(names, self._rows[after_rowid - 1]) if is_known else len(names)
        rows = [(self._row_of(name), name) for name in names[start : start + limit]]
        nodes = [Node(_NO_INODE, self._namespace.entry(row, name)) for row, name in rows]
        return NodePage(nodes, rows[-1][0] if start + limit < len(names) else None)

    def _row_of(self, name: bytes) -> int:
        """The number of a name, for as long as the mount lives: where a listing goes on."""
        row = self._row_numbers.get(name)
        if row is None:
            self._rows.append(name)
            row = self._row_numbers[name] = len(self._rows)
        return row

    def parent(self, ino: Inode, open_object: OpenObject) -> Inode:
        self._require_root(ino)
        return ROOT

    def read_link(self, ino: Inode, open_object: OpenObject) -> bytes:
        raise FsError(errno.EINVAL, "this is a directory")

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]:
        raise FsError(errno.EISDIR, "this is a directory")

    def following(self, ino: Inode, limit: int, open_object: OpenObject) -> Following:
        return Following([], None)

    def _require_root(self, ino: Inode) -> None:
        if ino != ROOT:
            raise FsError(errno.ESTALE, f"inode {ino} is not known")
