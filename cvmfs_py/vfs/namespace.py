"""Several repositories in one mount: a directory of our own at ROOT, in which each repository is a directory.

Knows this one directory. What is below belongs to the repository that `owner` names, and so does what stat shows of
its top. Nothing here is read from a catalog, so that a repository which cannot be reached holds up none of the others.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
import stat
from bisect import insort
from typing import TYPE_CHECKING

from catalog.entry import Entry
from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import NAME_LIMIT_BYTES, Node, RepositoryFiles
from cvmfs_py.vfs.inodes import ROOT, Inodes

if TYPE_CHECKING:
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.snapshot import Snapshot

_SIZE_BYTES = 4096


class NotAttached(Exception):  # not an error, but an answer, as NotLocal is
    """There may be a repository of this name, but it does not appear in the directory yet."""

    def __init__(self, name: bytes) -> None:
        super().__init__(name)
        self.name = name


class Namespace:
    """The directory of repositories."""

    def __init__(self, mtime_s: int = 0) -> None:
        self.inodes: Inodes[RepositoryFiles] = Inodes()
        self._mtime_s = mtime_s
        self._attached: dict[bytes, RepositoryFiles] = {}
        self._names: list[bytes] = []  # of those that are attached, in order

    # --- effects

    def attach(self, name: bytes, snapshot: Snapshot) -> RepositoryFiles:
        """Makes a repository appear under a name, which is usually its fully qualified one."""
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.EINVAL, f'a repository cannot appear as "{show_path(name)}"')
        if name in self._attached:
            raise FsError(errno.EEXIST, f"{show_path(name)} is there already")
        files = self.inodes.reserve(lambda root: RepositoryFiles(self.inodes, snapshot, root))
        self._attached[name] = files
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
        return Node(ROOT, self.entry(ROOT, b"", 0o555, 2 + len(self._attached)))

    def lookup(self, name: bytes) -> RepositoryFiles | None:
        """The repository of this name, whose `root` is the inode to answer with."""
        if len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.ENAMETOOLONG, f"{show_path(name)} is longer than a name may be")
        return self._attached.get(name)

    @property
    def names(self) -> tuple[bytes, ...]:
        """What is attached, in order."""
        return tuple(self._names)

    def parent(self) -> Inode:
        """Of ROOT; that of a repository's own root is ROOT, too."""
        return ROOT

    def entry(self, rowid: int, name: bytes, permissions: int = 0o755, link_count: int = 2) -> Entry:
        """A directory of this name. Of a repository only name and kind hold: the rest only itself can tell."""
        return Entry(
            rowid=rowid,
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
