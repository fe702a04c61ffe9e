"""The top directory of a mount that shows every repository, as the engines see a file system core.

Answers for names that are attached, and for those that surely are none; for all others it says NotAttached, and whoever
runs the operation attaches and asks again. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import NAME_LIMIT_BYTES, Node, NodePage
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
        self._listed = sorted(set(listed))

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

    def page(self, ino: Inode, after_rowid: int, limit: int, open_object: OpenObject) -> NodePage:
        """Rows are counted through all names in order; who comes in between is seen by the next listing."""
        self._require_root(ino)
        names = sorted({*self._listed, *self._namespace.names})
        nodes = [
            Node(_NO_INODE, self._namespace.entry(position, name))
            for position, name in enumerate(names[after_rowid : after_rowid + limit], after_rowid + 1)
        ]
        is_last = after_rowid + limit >= len(names)
        return NodePage(nodes, None if is_last else after_rowid + limit)

    def parent(self, ino: Inode, open_object: OpenObject) -> Inode:
        self._require_root(ino)
        return ROOT

    def read_link(self, ino: Inode, open_object: OpenObject) -> bytes:
        raise FsError(errno.EINVAL, "this is a directory")

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]:
        raise FsError(errno.EISDIR, "this is a directory")

    def _require_root(self, ino: Inode) -> None:
        if ino != ROOT:
            raise FsError(errno.ESTALE, f"inode {ino} is not known")
