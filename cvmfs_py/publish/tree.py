"""The tree of a repository while it is changed: what putting, linking and removing entries means for its catalogs.

The objects of files are stored by others, before or after; signing is for others. Concurrency: one thread.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from catalog import flags as bits
from catalog.errors import show_path
from catalog.new_entry import NewEntry, from_entry
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes, FileContent, TreeWarning
from cvmfs_py.publish.rows import changed_row, check_path, directory_row, file_row, special_row, symlink_row
from cvmfs_py.publish.tree_view import TreeView
from cvmfs_py.publish.working_catalogs import OPEN_LIMIT, WorkingCatalog, WorkingCatalogs

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cache.address import ContentHash
    from catalog.entry import Entry
    from catalog.writer import CatalogWriter
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage

__all__ = ["Attributes", "CommittedTree", "FileContent", "TreeWarning", "WritableTree"]

MARKER = b".cvmfscatalog"
_MARKER_END = b"/" + MARKER
_ROOT = Attributes(mode=0o755)


class CommittedTree(NamedTuple):
    """What the manifest says of a root catalog."""

    root_hash: ContentHash
    root_size_bytes: int  # inflated


class WritableTree(TreeView):
    """The next revision of a repository. Paths are absolute and normal: `b""`, or `b"/a/b"`; others are refused.

    Everything that is put replaces what is there, of whatever kind; what is there already exactly so is left alone, so
    that catalogs in which nothing changes keep their hashes. The parent directory must exist.
    A regular file called `.cvmfscatalog` makes its directory the top of a nested catalog, and removing it ends that.
    Use it as a context manager: leaving it removes the working copies. Nothing is stored unless `commit` is called.
    """

    def __init__(
        self,
        storage: Storage,
        settings: RepositorySettings,
        root_hash: ContentHash | None,
        workdir: str | os.PathLike[str],
        *,
        open_limit: int = OPEN_LIMIT,
    ) -> None:
        """`root_hash` None: an empty tree, whose root directory has mode 0755. `workdir` must exist.

        `open_limit`: the number of catalogs that are open at once, at least 2, with up to 8 MiB of memory each.
        """
        super().__init__(WorkingCatalogs(storage, settings, root_hash, workdir, open_limit))
        self.warnings: list[TreeWarning] = []  # what could not be taken over as it was
        self._settings = settings
        try:
            if root_hash is None:
                self._catalogs.create_root(directory_row(b"", _ROOT, self.warnings.append))
            elif self._catalogs.root_differs_from_settings():
                self._catalogs.change(self._catalogs.root)
        except BaseException:
            self._catalogs.close()
            raise

    # --- changing

    def put_directory(self, path: bytes, attributes: Attributes) -> bool:
        """Makes a directory or, where there is one, sets its attributes; its contents stay. False: nothing changed.

        Also for `b""`.
        """
        new = directory_row(path, attributes, self.warnings.append)
        catalog = self._place(path) if path else self._catalogs.root
        old = self._catalogs.writer(catalog).lookup(path)
        if old is None or not old.is_directory:
            self._write(catalog, path, new, old)
            self._follow_markers((path,))
            return True
        return self._change_directory(catalog, path, new, old)

    def put_file(
        self,
        path: bytes,
        attributes: Attributes,
        content: FileContent,
        *,
        compression: str | None = None,
        is_external: bool = False,
        is_direct_io: bool = False,
        other_names: Sequence[bytes] = (),
    ) -> bool:
        """Puts a regular file whose objects are stored (or will be before the manifest). False: nothing changed.

        `compression` is that of its objects (None: as in the settings). `other_names`: paths in the same directory that
        are hard links to the same file; these and `path` are then exactly its hard-link group. Names in another
        directory become files of their own, with a warning.
        """
        compression = compression or self._settings.compression
        new = file_row(path, attributes, self.warnings.append, content, compression, is_external, is_direct_io)
        return self._put(path, new, other_names)

    def put_symlink(
        self, path: bytes, attributes: Attributes, target: bytes, *, other_names: Sequence[bytes] = ()
    ) -> bool:
        """Puts a symlink with this raw target. False: nothing changed."""
        return self._put(path, symlink_row(path, attributes, self.warnings.append, target), other_names)

    def put_special(
        self, path: bytes, attributes: Attributes, kind: int, device: int = 0, *, other_names: Sequence[bytes] = ()
    ) -> bool:
        """Puts a fifo, socket or device: `kind` is its S_IFMT, `device` the st_rdev. False: nothing changed."""
        return self._put(path, special_row(path, attributes, self.warnings.append, kind, device), other_names)

    def hard_link(self, paths: Sequence[bytes]) -> bool:
        """Makes all paths after the first one more names of the file at the first; other members stay in the group.

        Names in another directory become copies of their own, with a warning. False: nothing changed.
        """
        first, *others = paths
        catalog = self._place(first)
        writer = self._catalogs.writer(catalog)
        entry = writer.lookup(first)
        if entry is None or entry.is_directory:
            raise PublishError(f"{show_path(first)} is not there, or is a directory: nothing can be linked to it")
        new = from_entry(entry, writer.chunks(first))
        here, elsewhere = _by_directory(first, others)
        group = entry.hardlink_group
        olds = [(path, writer.lookup(path)) for path in here if path != first]
        missing = [
            (path, old)
            for path, old in olds
            if not (group and old is not None and old.hardlink_group == group and new.says_the_same_as(old))
        ]
        if missing:
            linked = new.in_group(group or writer.new_group(), entry.link_count + len(missing))
            for path, old in [(first, entry), *missing]:
                self._write(catalog, path, linked, old)
            self._follow_markers(here)
        return self._put_copies(first, elsewhere, new) or bool(missing)

    def set_attributes(self, path: bytes, attributes: Attributes) -> bool:
        """Changes the attributes of an entry of any kind; of a hard link, those of all its names."""
        catalog = self._place(path) if path else self._catalogs.root
        writer = self._catalogs.writer(catalog)
        entry = writer.lookup(path)
        if entry is None:
            raise PublishError(f"there is no {show_path(path)} whose attributes could be set")
        if entry.is_directory:
            return self.put_directory(path, attributes)
        new = changed_row(path, from_entry(entry, writer.chunks(path)), attributes, self.warnings.append)
        if new.says_the_same_as(entry):
            return False
        for member in self.link_group(path):
            self._write(catalog, member, new, entry)
        return True

    def remove(self, path: bytes) -> bool:
        """Removes an entry with everything below it, nested catalogs included. False: there was none."""
        if not path:
            raise PublishError("the root directory cannot be removed")
        catalog = self._catalogs.holding(path)
        entry = self._catalogs.writer(catalog).lookup(path)
        if entry is None:
            return False
        if entry.is_directory:
            self._remove_contents(catalog, path)
        self._catalogs.change(catalog).remove(path)
        self._follow_markers((path,))
        return True

    # --- nested catalogs

    def make_nested(self, path: bytes) -> bool:
        """Moves the contents of a directory into a nested catalog. False: it is one already (or the root)."""
        if not path or self.is_nested(path):
            return False
        catalog = self._within(path)
        entry = self.lookup(path)
        assert entry is not None
        row = from_entry(entry)
        self._catalogs.split(catalog, path, row._replace(flags=row.flags | bits.NESTED_ROOT))
        mountpoint = row._replace(flags=row.flags | bits.NESTED_MOUNTPOINT)
        self._catalogs.writer(catalog).put(path, mountpoint, entry)
        self._directories.clear()
        return True

    def merge_nested(self, path: bytes) -> bool:
        """Moves the contents of a nested catalog into the one above. False: there is none at this path."""
        catalog = self._catalogs.holding(path)
        child = self._catalogs.children(catalog).get(path)
        if child is None:
            return False
        self._catalogs.join(child)
        self._directories.clear()
        writer = self._catalogs.writer(catalog)
        entry = writer.lookup(path)
        if entry is None:
            raise PublishError(f"the repository is damaged: the nested catalog of {show_path(path)} has no mountpoint")
        writer.put(path, from_entry(entry)._replace(flags=entry.flags & ~bits.NESTED_MOUNTPOINT), entry)
        return True

    # --- publishing

    def commit(
        self, revision: int, timestamp_s: int, *, force: bool = False, previous: ContentHash | None = None
    ) -> CommittedTree:
        """Stores all changed catalogs and those above them. The tree can be changed and committed again afterwards.

        When nothing changed it returns the root it began with and stores nothing, unless `force`d to a new revision.
        `previous`: the root that is replaced, if it is not the one that this tree began with.
        """
        root = self._catalogs.root
        if root.is_changed or force:
            self._catalogs.commit(revision, timestamp_s, previous)
        assert root.content_hash is not None
        return CommittedTree(root.content_hash, root.size_bytes)

    def close(self) -> None:
        """Removes the working copies. Idempotent."""
        self._catalogs.close()

    def __enter__(self) -> WritableTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how

    def _put(self, path: bytes, new: NewEntry, other_names: Sequence[bytes]) -> bool:
        here, elsewhere = _by_directory(path, other_names) if other_names else ([path], [])
        changed = self._put_group(here, new)
        return self._put_copies(path, elsewhere, new) or changed

    def _put_group(self, paths: Sequence[bytes], new: NewEntry) -> bool:
        """Puts a file that has these names, all in one directory, and no others."""
        catalog = self._place(paths[0])
        writer = self._catalogs.writer(catalog)
        olds = [writer.lookup(path) for path in paths]
        same = all(
            old is not None and self._is_same(writer, path, new, old) for path, old in zip(paths, olds, strict=True)
        )
        links = {old.hardlinks for old in olds if old is not None}
        if len(paths) == 1:
            if same and links == {1}:
                return False
        else:
            if same and len(links) == 1 and links.pop() & 0xFFFFFFFF == len(paths):
                return False
            new = new.in_group(writer.new_group(), len(paths))
        for path, old in zip(paths, olds, strict=True):
            self._write(catalog, path, new, old)
        self._follow_markers(paths)
        return True

    def _put_copies(self, path: bytes, others: Sequence[bytes], new: NewEntry) -> bool:
        """Puts a file at paths that were to be hard links to one in another directory."""
        changed = False
        for other in others:
            message = f"a hard link to {show_path(path)} in another directory becomes a file of its own"
            self.warnings.append(TreeWarning(other, message))
            changed |= self._put_group([other], new.in_group(0, 1))
        return changed

    def _is_same(self, writer: CatalogWriter, path: bytes, new: NewEntry, old: Entry) -> bool:
        return new.says_the_same_as(old) and (not new.chunks or writer.chunks(path) == new.chunks)

    def _change_directory(self, catalog: WorkingCatalog, path: bytes, new: NewEntry, old: Entry) -> bool:
        """Sets the attributes of a directory, at the top of a nested catalog in both."""
        new = new._replace(size=old.size, flags=old.flags, hardlinks=old.hardlinks)
        if new.says_the_same_as(old):
            return False
        self._catalogs.change(catalog).put(path, new, old)
        child = self._catalogs.children(catalog).get(path)
        if child is not None:
            writer = self._catalogs.change(child)
            flags = new.flags & ~bits.NESTED_MOUNTPOINT | bits.NESTED_ROOT
            writer.put(path, new._replace(flags=flags), writer.lookup(path))
        return True

    def _write(self, catalog: WorkingCatalog, path: bytes, new: NewEntry, old: Entry | None) -> None:
        if old is not None and old.is_directory and not stat.S_ISDIR(new.mode):
            self._remove_contents(catalog, path)
        self._catalogs.change(catalog).put(path, new, old)

    def _remove_contents(self, catalog: WorkingCatalog, path: bytes) -> None:
        """Removes everything below a directory, whose row stays."""
        for child in self._catalogs.below(catalog, path):
            self._catalogs.drop(child)
            self._catalogs.change(catalog).remove_nested(child.mountpoint)
        writer = self._catalogs.change(catalog)
        writer.remove_binds(path)
        writer.remove_below(path)
        self._directories.clear()

    def _follow_markers(self, paths: Sequence[bytes]) -> None:
        """Makes or ends a nested catalog where its marker came or went."""
        for path in paths:
            if not path.endswith(_MARKER_END):
                continue
            directory = path[: -len(_MARKER_END)]
            entry = self.lookup(path)
            if entry is not None and entry.is_regular:
                self.make_nested(directory)
            else:
                self.merge_nested(directory)

    def _place(self, path: bytes) -> WorkingCatalog:
        """The catalog for the row of a path below the root, whose directory must exist."""
        check_path(path)
        directory = path[: path.rindex(b"/")]
        return self._directories.get(directory) or self._within(directory)


def _by_directory(path: bytes, others: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The names of a file that can be hard links to the one at `path`, itself first, and the others."""
    directory = path.rpartition(b"/")[0]
    here = [path]
    elsewhere = []
    for other in dict.fromkeys(others):
        check_path(other)
        if other.rpartition(b"/")[0] != directory:
            elsewhere.append(other)
        elif other != path:
            here.append(other)
    return here, elsewhere
