"""Several repositories in one mount: a directory of our own at ROOT, in which each repository is a directory.

Knows this one directory. What is below belongs to the repository that `owner` names, and so does what stat shows of
its top. Nothing here is read from a catalog, so that a repository which cannot be reached holds up none of the others.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
import stat
from bisect import bisect_right, insort
from typing import TYPE_CHECKING

from catalog.entry import Entry
from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import NAME_LIMIT_BYTES, Node, NodePage, RepositoryFiles
from cvmfs_py.vfs.inodes import ROOT, Inodes

if TYPE_CHECKING:
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.snapshot import Snapshot

_SIZE_BYTES = 4096


class Namespace:
    """The directory of repositories."""

    def __init__(self, mtime_s: int = 0) -> None:
        self.inodes: Inodes[RepositoryFiles] = Inodes()
        self._mtime_s = mtime_s
        self._attached: dict[bytes, RepositoryFiles] = {}
        self._names: list[bytes] = []  # of those that are attached, in order
        self._name_of: dict[int, bytes] = {}  # by inode, of everything that ever was: where a listing goes on

    # --- effects

    def attach(self, name: bytes, snapshot: Snapshot) -> RepositoryFiles:
        """Makes a repository appear under a name, which is usually its fully qualified one."""
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.EINVAL, f'a repository cannot appear as "{show_path(name)}"')
        if name in self._attached:
            raise FsError(errno.EEXIST, f"{show_path(name)} is there already")
        files = self.inodes.reserve(lambda root: RepositoryFiles(self.inodes, snapshot, root))
        self._attached[name] = files
        self._name_of[files.root] = name
        insort(self._names, name)
        return files

    def detach(self, name: bytes) -> None:
        """Makes a repository disappear and closes it: every inode of it is unknown from now on."""
        files = self._attached.pop(name, None)
        if files is None:
            raise FsError(errno.ENOENT, f"{show_path(name)} is not there")
        self._names.remove(name)
        files.close()

    def close(self) -> None:
        """Detaches everything."""
        for name in list(self._attached):
            self.detach(name)

    # --- operations

    def __len__(self) -> int:
        return len(self._attached)

    def owner(self, ino: int) -> RepositoryFiles | None:
        """The repository that answers for an inode; None: it is ROOT, or not known."""
        found = self.inodes.find(ino)
        return None if found is None else found.owner

    def node(self) -> Node:
        """What stat shows of ROOT. Its owner is that of the process."""
        return Node(ROOT, self._directory(ROOT, b"", 0o555, 2 + len(self._attached)))

    def lookup(self, name: bytes) -> RepositoryFiles | None:
        """The repository of this name, whose `root` is the inode to answer with."""
        if len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.ENAMETOOLONG, f"{show_path(name)} is longer than a name may be")
        return self._attached.get(name)

    def page(self, after: int, limit: int) -> NodePage:
        """The next repositories in the order of their names; begin with 0, and go on after an inode.

        Of the entries, name and kind hold; the attributes stand in for those that only the repository can tell.
        """
        if limit < 1:
            raise FsError(errno.EINVAL, "a part of a listing has at least one entry")
        start = 0
        if after > 0:
            name = self._name_of.get(after)
            start = len(self._names) if name is None else bisect_right(self._names, name)
        inos = [(self._attached[name].root, name) for name in self._names[start : start + limit]]
        nodes = [Node(ino, self._directory(ino, name, 0o755, 2)) for ino, name in inos]
        is_last = start + limit >= len(self._names)
        return NodePage(nodes, None if is_last else nodes[-1].ino)

    def parent(self) -> Inode:
        """Of ROOT; that of a repository's own root is ROOT, too."""
        return ROOT

    def _directory(self, ino: int, name: bytes, permissions: int, link_count: int) -> Entry:
        return Entry(
            rowid=ino,
            name=name,
            mode=stat.S_IFDIR | permissions,
            size=_SIZE_BYTES,
            mtime_s=self._mtime_s,
            mtime_ns=0,
            uid=None,
            gid=None,
            hardlinks=link_count,
            flags=0,
            digest=None,
            symlink=b"",
            xattr_blob=None,
        )
