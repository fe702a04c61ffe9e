"""The file system of one repository, by inode number: look-up, listing in pages, links, read plans.

Plain functions over local catalogs: each may raise NotLocal and be called again, and running twice is the same as
running once. An inode is read from the catalog it was given for, also when a newer revision is shown by now: what a
program has open, or has as its directory, stays what it was. Only the root of the mount follows the current snapshot.

Applies no effects; knows no kernel. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from catalog.content import file_spans
from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import FsError
from cvmfs_py.vfs import attrs
from cvmfs_py.vfs.inodes import ROOT, Inode
from cvmfs_py.vfs.recent import Recent

if TYPE_CHECKING:
    from cache.address import ContentHash
    from catalog.content import Span
    from catalog.directory import Located
    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from catalog.reader import Catalog
    from catalog.tree import CatalogTree
    from cvmfs_py.vfs.inodes import Inodes
    from cvmfs_py.vfs.snapshot import Snapshot

NAME_LIMIT_BYTES = 255
_GROUPED = 1 << 32  # link counts that belong to a hard-link group begin here
PATH_LIMIT = 4096  # of each kind of thing that is remembered: some hundred bytes each


class Node(NamedTuple):
    """An entry and its inode number."""

    ino: Inode
    entry: Entry


class NodePage(NamedTuple):
    """A part of a listing, in the order of rows. `next_rowid`: go on after this one; None: that was all."""

    nodes: list[Node]
    next_rowid: int | None


class RepositoryFiles:
    """One repository in a mount, at one inode: ROOT, or that of a directory which holds several."""

    def __init__(self, inodes: Inodes[RepositoryFiles], snapshot: Snapshot, root: Inode = ROOT) -> None:
        self.inodes = inodes
        self.snapshot = snapshot
        self.root = root
        self._superseded: list[CatalogTree] = []
        self._paths: Recent[bytes] = Recent(PATH_LIMIT)  # of directories
        self._entries: Recent[Entry] = Recent(PATH_LIMIT)
        self._last: tuple[Catalog, int] | None = None  # neighbours are mostly in one catalog

    # --- effects

    def adopt(self, snapshot: Snapshot) -> None:
        """Shows another snapshot from now on. Inodes of the old one stay valid until they are forgotten."""
        old = self.snapshot
        self.snapshot = snapshot
        if old.tree is not snapshot.tree:
            self._superseded.append(old.tree)
            self.release_superseded()

    def release_superseded(self) -> None:
        """Closes the catalogs of old snapshots to which nothing refers any more."""
        kept = []
        for tree in self._superseded:
            if self.inodes.drop(tree):
                tree.close()
            else:
                kept.append(tree)
        if len(kept) < len(self._superseded):
            self._paths.clear()
            self._entries.clear()
            self._last = None
        self._superseded = kept

    def forget(self, ino: int, count: int) -> None:
        """The kernel has let go of an inode."""
        freed = self.inodes.forget(ino, count)
        if freed is not None and freed.tree is not self.snapshot.tree:
            self.release_superseded()

    def detach(self, content_hash: ContentHash) -> None:
        """Closes what is attached of a damaged catalog: the next use opens its object anew."""
        for tree in (*self._superseded, self.snapshot.tree):
            tree.detach(content_hash)

    def close(self) -> None:
        for tree in (*self._superseded, self.snapshot.tree):
            tree.close()
        self._superseded.clear()

    @property
    def attached_count(self) -> int:
        """The number of open catalogs."""
        return sum(tree.attached_count for tree in (*self._superseded, self.snapshot.tree))

    # --- operations

    def node(self, ino: Inode, open_object: OpenObject) -> Node:
        """What stat shows."""
        if ino != self.root and (entry := self._entries.get(ino)) is not None:
            return Node(ino, entry)
        return Node(ino, self.located(ino, open_object).entry)

    def lookup(self, parent: Inode, name: bytes, open_object: OpenObject) -> Node | None:
        """The entry of this name; None: there is none, and there will be none in this directory."""
        if len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.ENAMETOOLONG, f"{show_path(name)} is longer than a name may be")
        tree, path = self._directory(parent, open_object)
        located = tree.lookup(path + b"/" + name, open_object)
        return None if located is None else self._node(tree, located)

    def page(self, ino: Inode, after_rowid: int, limit: int, open_object: OpenObject) -> NodePage:
        """The next entries of a directory; begin with 0. Hidden ones are left out."""
        tree, path = self._directory(ino, open_object)
        view = tree.open_directory(path, open_object)
        if view is None:
            raise FsError(errno.ENOTDIR, f"{show_path(path)} is not a directory")
        page = view.page(after_rowid, limit)
        catalog = view.catalog
        base = self._base(tree, catalog)
        nodes = [
            Node(Inode(base + (entry.rowid if entry.hardlinks < _GROUPED else catalog.first_link(entry))), entry)
            for entry in page.entries
            if len(entry.name) <= NAME_LIMIT_BYTES  # the kernel refuses a listing that has a longer one
        ]
        return NodePage(nodes, page.next_rowid)

    def parent(self, ino: Inode, open_object: OpenObject) -> Inode:
        """The inode of the directory above; of the root its own."""
        tree, path = self._directory(ino, open_object)
        above = path.rpartition(b"/")[0]
        if not above:
            return self.root
        located = tree.lookup(above, open_object)
        return self.root if located is None else self._node(tree, located).ino

    def read_link(self, ino: Inode, open_object: OpenObject) -> bytes:
        entry = self.node(ino, open_object).entry
        if not entry.is_symlink:
            raise FsError(errno.EINVAL, "this is not a symbolic link")
        return attrs.link_target(entry, self.snapshot.view)

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]:
        """The objects that make up a regular file, in order."""
        tree = self._tree(ino)
        located = self.located(ino, open_object)
        if not located.entry.is_regular:
            number = errno.EISDIR if located.entry.is_directory else errno.EINVAL
            raise FsError(number, f"{show_path(located.path)} is no regular file")
        volatile = tree.root_properties(open_object).is_volatile
        return file_spans(located.catalog, located.entry, located.path, volatile=volatile)

    def located(self, ino: Inode, open_object: OpenObject) -> Located:
        """The entry of an inode with its catalog and path."""
        if ino == self.root:
            tree = self.snapshot.tree
            located = tree.lookup(b"", open_object)
        else:
            tree = self._tree(ino)
            found = self.inodes.find(ino)
            assert found is not None
            located = tree.located_row(found.mountpoint, ino - found.base, open_object)
        if located is None:
            raise CatalogError(f"inode {ino} has no entry", tree.root_ref.content_hash)
        if ino != self.root:
            self._remember(ino, located)
        return located

    # --- how

    def _tree(self, ino: Inode) -> CatalogTree:
        if ino == self.root:
            return self.snapshot.tree
        found = self.inodes.find(ino)
        if found is None:
            raise FsError(errno.ESTALE, f"inode {ino} is not known")
        return found.tree

    def _directory(self, ino: Inode, open_object: OpenObject) -> tuple[CatalogTree, bytes]:
        if ino == self.root:
            return self.snapshot.tree, b""
        path = self._paths.get(ino)
        if path is None:
            located = self.located(ino, open_object)
            if not located.entry.is_directory:
                raise FsError(errno.ENOTDIR, f"{show_path(located.path)} is not a directory")
            path = located.path
        return self._tree(ino), path

    def _node(self, tree: CatalogTree, located: Located) -> Node:
        entry, catalog = located.entry, located.catalog
        ino = Inode(self._base(tree, catalog) + catalog.first_link(entry))
        self._remember(ino, located)
        return Node(ino, entry)

    def _base(self, tree: CatalogTree, catalog: Catalog) -> int:
        if self._last is not None and self._last[0] is catalog:
            return self._last[1]
        base = self.inodes.range_of(self, tree, catalog.mountpoint, catalog.content_hash, catalog.max_rowid).base
        self._last = catalog, base
        return base

    def _remember(self, ino: Inode, located: Located) -> None:
        self._entries.put(ino, located.entry)
        if located.entry.is_directory:
            self._paths.put(ino, located.path)
