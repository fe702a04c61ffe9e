"""The file system of one repository, by inode number: look-up, listing in pages, links, read plans.

Plain functions over local catalogs: each may raise NotLocal and be called again, and running twice is the same as
running once. An inode is read from the catalog it was given for, also when a newer revision is shown by now: what a
program has open, or has as its directory, stays what it was. Only the root of the mount follows the current snapshot.

Applies no effects; knows no kernel. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, NamedTuple

from catalog.content import file_spans
from catalog.directory import Located
from catalog.errors import CatalogError, show_path
from catalog.tree import CatalogTree
from cvmfs_py.errors import FsError
from cvmfs_py.vfs import attrs
from cvmfs_py.vfs.inodes import ROOT, Inode
from cvmfs_py.vfs.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from catalog.content import Span
    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from catalog.reader import Catalog
    from cvmfs_py.vfs.inodes import InodeRange, Inodes
    from cvmfs_py.vfs.snapshot import Snapshot

NAME_LIMIT_BYTES = 255
_DIRECTORY = stat.S_IFDIR >> 12
_GROUPED = 1 << 32  # link counts that belong to a hard-link group begin here
LISTINGS = 64  # numbers of listings of the root, which come again after so many revisions
KEPT_LISTINGS = 32  # one that began before more revisions than these cannot go on
RECENT_LIMIT = 4096  # of each kind of thing that is remembered: some hundred bytes each


class Node(NamedTuple):
    """An entry and its inode number."""

    ino: Inode
    entry: Entry


_new_node: Callable[[type[Node], tuple[int, Entry]], Node] = tuple.__new__  # half the time of Node(...)


class NodePage(NamedTuple):
    """A part of a listing, in the order of rows, empty only at the end. `next_rowid`: go on after this; None: all."""

    nodes: list[Node]
    next_rowid: int | None


class Following(NamedTuple):
    """Files with their objects, in the order of rows. `tail`: go on after this inode; None: that was all."""

    files: list[tuple[Inode, tuple[Span, ...]]]
    tail: Inode | None


class RepositoryFiles:
    """One repository in a mount, at one inode: ROOT, or that of its directory in a mount that holds several."""

    def __init__(
        self,
        inodes: Inodes[RepositoryFiles],
        snapshot: Snapshot,
        root: Inode = ROOT,
        *,
        recent_limit: int = RECENT_LIMIT,
    ) -> None:
        self.inodes = inodes
        self.snapshot = snapshot
        self.root = root
        self._superseded: list[CatalogTree] = []
        self._listing = 0
        self._earlier: dict[int, ObjectRef] = {}  # root catalogs, by the number of listings that began in them
        self._entries: Recent[Entry] = Recent(recent_limit)
        self._paths: Recent[bytes] = Recent(recent_limit)
        self._parents: Recent[Inode] = Recent(recent_limit)  # of directories, in the same catalog
        self._last: tuple[Catalog, int] | None = None  # neighbours are mostly in one catalog

    # --- effects

    def adopt(self, snapshot: Snapshot) -> None:
        """Shows another snapshot from now on. Inodes of the old one stay valid until they are forgotten."""
        old = self.snapshot
        self.snapshot = snapshot
        self._last = None
        if old.tree is not snapshot.tree:
            self._superseded = [each for each in self._superseded if each is not snapshot.tree]
            self._superseded.append(old.tree)
            self._earlier[self._listing] = old.tree.root_ref
            self._listing = (self._listing + 1) % LISTINGS
            self._earlier.pop((self._listing - KEPT_LISTINGS - 1) % LISTINGS, None)
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
            self._clear()
        self._superseded = kept

    def detach_superseded(self) -> None:
        """Closes all catalogs of old snapshots. The next use of one opens it anew, but few will ever be used again."""
        for tree in self._superseded:
            tree.close()

    def remember(self, ino: int, count: int = 1) -> None:
        """The kernel was told of an inode, or of so many in one catalog."""
        self.inodes.remember(ino, count)

    def forget(self, ino: int, count: int) -> None:
        """The kernel has let go of an inode."""
        if self.inodes.forget(ino, count) is not None and self._superseded:
            self.release_superseded()

    def detach(self, content_hash: ContentHash) -> None:
        """Closes what is attached of a damaged catalog: the next use opens its object anew."""
        for tree in (*self._superseded, self.snapshot.tree):
            tree.detach(content_hash)

    def close(self) -> None:
        """Closes all catalogs. Every inode but the root of the mount is unknown from now on."""
        for tree in (*self._superseded, self.snapshot.tree):
            tree.close()
        self._superseded.clear()
        self.inodes.drop_owner(self)
        self._clear()

    @property
    def is_referred_to(self) -> bool:
        """Whether the kernel knows of any inode of this repository."""
        return self.inodes.is_referred_to(self)

    @property
    def attached_count(self) -> int:
        """The number of open catalogs."""
        return sum(tree.attached_count for tree in (*self._superseded, self.snapshot.tree))

    # --- operations

    def node(self, ino: Inode, open_object: OpenObject) -> Node:
        """What stat shows."""
        if ino == self.root:
            return Node(ino, self.located(ino, open_object).entry)
        entry = self._entries.get(ino)
        if entry is None:
            tree, found = self._found(ino)
            entry = tree.mounted(found.mountpoint, open_object).entry(ino - found.base)
            if entry is None:
                raise _unknown(ino)
            self._entries.put(ino, entry)
        return Node(ino, entry)

    def lookup(self, parent: Inode, name: bytes, open_object: OpenObject) -> Node | None:
        """The entry of this name; None: there is none, and there will be none in this directory."""
        if len(name) > NAME_LIMIT_BYTES:
            raise FsError(errno.ENAMETOOLONG, f"{show_path(name)} is longer than a name may be")
        tree, path = self._directory(parent, open_object)
        located = tree.lookup(path + b"/" + name, open_object)
        return None if located is None else self._node(tree, located)

    def listing(self, ino: Inode) -> int:
        """The number of a listing that begins now, below LISTINGS, for `page`: so it goes on in the same revision."""
        return self._listing if ino == self.root else 0

    def page(
        self, ino: Inode, after_rowid: int, limit: int, open_object: OpenObject, listing: int | None = None
    ) -> NodePage:
        """The next entries of a directory, at most `limit`; begin with 0. Hidden ones are left out."""
        if limit < 1:
            raise FsError(errno.EINVAL, "a part of a listing has at least one entry")
        if ino == self.root:
            tree = self.snapshot.tree
            if listing is not None and listing != self._listing:
                tree = self._earlier_tree(listing)
            view = tree.open_directory(b"", open_object)
        else:
            tree = self._found(ino)[0]
            view = tree.open_located(self.located(ino, open_object), open_object)
        if view is None:
            raise FsError(errno.ENOTDIR, f"inode {ino} is not a directory")
        path = view.path
        page = view.page(after_rowid, limit)
        while not page.entries and page.next_rowid is not None:  # for a kernel, a part without entries is the end
            page = view.page(page.next_rowid, limit)
        if not page.entries:
            return NodePage([], None)
        catalog = view.catalog
        base = self._base(tree, catalog)
        nodes = [
            _new_node(Node, (base + (entry.rowid if entry.hardlinks < _GROUPED else catalog.first_link(entry)), entry))
            for entry in page.entries
            if len(entry.name) <= NAME_LIMIT_BYTES  # the kernel refuses a listing that has a longer one
        ]
        # A nested catalog stays the same when the one above it, and with it the number of its mountpoint, changes.
        is_within = ino == self.root or base < ino <= base + catalog.max_rowid
        for child, entry in nodes:  # a walk comes to them next
            if entry.mode >> 12 == _DIRECTORY:
                self._entries.put(child, entry)
                self._paths.put(child, path + b"/" + entry.name)
                if is_within:
                    self._parents.put(child, ino)
        return NodePage(nodes, page.next_rowid)

    def parent(self, ino: Inode, open_object: OpenObject) -> Inode:
        """The inode of the directory above; of the root of a repository, as of that of the mount, ROOT."""
        if ino == self.root:
            return ROOT
        known = self._parents.get(ino)
        if known is not None:
            return known
        tree, path = self._directory(ino, open_object)
        above = path.rpartition(b"/")[0]
        if not above:
            return self.root
        located = tree.lookup(above, open_object)
        if located is None:
            raise CatalogError(f"the catalogs above {show_path(path)} are damaged: {show_path(above)} is missing")
        return self._node(tree, located).ino

    def read_link(self, ino: Inode, open_object: OpenObject) -> bytes:
        entry = self.node(ino, open_object).entry
        if not entry.is_symlink:
            raise FsError(errno.EINVAL, "this is not a symbolic link")
        return attrs.link_target(entry, self.snapshot.view)

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]:
        """The objects that make up a regular file, in order."""
        tree = self.snapshot.tree if ino == self.root else self._found(ino)[0]
        volatile = tree.root_properties(open_object).is_volatile  # first: it may evict the catalog of the file
        located = self.located(ino, open_object)
        if not located.entry.is_regular:
            number = errno.EISDIR if located.entry.is_directory else errno.EINVAL
            raise FsError(number, f"{show_path(located.path)} is no regular file")
        return file_spans(located.catalog, located.entry, located.path, volatile=volatile)

    def following(self, ino: Inode, limit: int, open_object: OpenObject) -> Following:
        """Regular files among the next rows of the directory of a file; those that are chunked or hard-linked not."""
        entry, catalog, path = self.located(ino, open_object)
        base = ino - entry.rowid
        volatile = self._found(ino)[0].root_properties(open_object).is_volatile
        prefix = path[: path.rindex(b"/") + 1]
        page = catalog.page(prefix[:-1], entry.rowid, limit)
        files = []
        for each in page.entries:
            if each.is_regular and not each.is_chunked and each.hardlinks < _GROUPED:
                following = Inode(base + each.rowid)
                shown = Located(each, catalog, prefix + each.name)
                self._remember(following, shown)
                files.append((following, file_spans(catalog, each, shown.path, volatile=volatile)))
        return Following(files, None if page.next_rowid is None else Inode(base + page.next_rowid))

    def located(self, ino: Inode, open_object: OpenObject) -> Located:
        """The entry of an inode with its catalog and path."""
        if ino == self.root:
            tree = self.snapshot.tree
            located = tree.lookup(b"", open_object)
            if located is None:
                raise CatalogError("the root catalog has no root directory", tree.root_ref.content_hash)
            return located
        tree, found = self._found(ino)
        entry, path = self._entries.get(ino), self._paths.get(ino)
        if entry is not None and path is not None:
            return Located(entry, tree.mounted(found.mountpoint, open_object), path)
        located = tree.located_row(found.mountpoint, ino - found.base, open_object)
        if located is None:
            raise _unknown(ino)
        self._remember(ino, located)
        return located

    # --- how

    def _found(self, ino: Inode) -> tuple[CatalogTree, InodeRange[RepositoryFiles]]:
        found = self.inodes.find(ino)
        if found is None or found.tree is None or found.owner is not self:
            raise _unknown(ino)
        return found.tree, found

    def _earlier_tree(self, listing: int) -> CatalogTree:
        """The catalogs of a revision that is not shown any more; they are closed again with the superseded ones."""
        ref = self._earlier.get(listing)
        if ref is None:
            raise FsError(errno.ESTALE, "a listing that began so long ago cannot go on")
        tree = next((each for each in self._superseded if each.root_ref == ref), None)
        if tree is None:
            tree = CatalogTree(ref)
            self._superseded.append(tree)
        return tree

    def _directory(self, ino: Inode, open_object: OpenObject) -> tuple[CatalogTree, bytes]:
        """Where to look for the contents of a directory. Opens no catalog for what was used lately."""
        if ino == self.root:
            return self.snapshot.tree, b""
        tree, _ = self._found(ino)
        entry, path = self._entries.get(ino), self._paths.get(ino)
        if entry is None or path is None:
            entry, _, path = self.located(ino, open_object)
        if not entry.is_directory:
            raise FsError(errno.ENOTDIR, f"{show_path(path)} is not a directory")
        return tree, path

    def _node(self, tree: CatalogTree, located: Located) -> Node:
        entry, catalog = located.entry, located.catalog
        rowid = entry.rowid if entry.hardlinks < _GROUPED else catalog.first_link(entry)
        ino = Inode(self._base(tree, catalog) + rowid)
        if rowid == entry.rowid:  # what a number means must not depend on the name by which it was asked for last
            self._remember(ino, located)
        return Node(ino, entry)

    def _base(self, tree: CatalogTree, catalog: Catalog) -> int:
        if self._last is not None and self._last[0] is catalog:
            return self._last[1]
        found = self.inodes.range_of(self, tree, catalog.mountpoint, catalog.content_hash, catalog.max_rowid)
        if tree is self.snapshot.tree:  # an old tree may lead to what is current, too, and must not take it back
            self.inodes.move(found, tree)
        self._last = catalog, found.base
        return found.base

    def _remember(self, ino: Inode, located: Located) -> None:
        self._entries.put(ino, located.entry)
        self._paths.put(ino, located.path)

    def _clear(self) -> None:
        self._entries.clear()
        self._paths.clear()
        self._parents.clear()
        self._last = None


def _unknown(ino: int) -> FsError:
    return FsError(errno.ESTALE, f"inode {ino} is not known")
