"""The tree of a repository as it is with all changes so far: looked up, listed, measured. Changes nothing.

Concurrency: one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.address import ContentHash
    from catalog.entry import Chunk, Entry
    from cvmfs_py.publish.working_catalogs import WorkingCatalog, WorkingCatalogs

_KNOWN_DIRECTORIES = 4096
_LISTED_AT_ONCE = 2000  # entries; above that their names only


class TreeView:
    """The reading half of a writable tree."""

    def __init__(self, catalogs: WorkingCatalogs) -> None:
        self._catalogs = catalogs
        self._directories: dict[bytes, WorkingCatalog] = {}  # known to exist, with the catalog of their contents

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at a path. Link counts of directories and hard links are right after `commit` only."""
        return self._catalogs.writer(self._catalogs.holding(path)).lookup(path)

    def listing(self, path: bytes) -> Iterator[Entry]:
        """All entries of a directory (hidden ones too), ordered by the bytes of their names.

        The names are those of the moment of the call; the tree may be changed meanwhile.
        """
        writer = self._catalogs.writer(self._within(path))
        if writer.count_below(path) <= _LISTED_AT_ONCE:
            return iter(list(writer.listing(path)))
        return self._looked_up(path, writer.names(path))

    def chunks(self, path: bytes) -> tuple[Chunk, ...]:
        """The chunks of a chunked file; () for everything else."""
        return self._catalogs.writer(self._catalogs.holding(path)).chunks(path)

    def link_group(self, path: bytes) -> tuple[bytes, ...]:
        """The paths of all members of a file's hard-link group, in order; only its own when it has none."""
        writer = self._catalogs.writer(self._catalogs.holding(path))
        entry = writer.lookup(path)
        if entry is None or not entry.hardlink_group:
            return (path,)
        directory = path.rpartition(b"/")[0]
        return tuple(directory + b"/" + name for name in writer.group_names(directory, entry.hardlink_group))

    def is_nested(self, path: bytes) -> bool:
        """Whether the directory is the top of a nested catalog."""
        return path in self._catalogs.children(self._catalogs.holding(path))

    def nested_paths(self) -> list[bytes]:
        """The tops of all nested catalogs that are known so far: those in the catalogs that were looked into."""
        return sorted(catalog.mountpoint for catalog in self._catalogs.known() if catalog.mountpoint)

    @property
    def is_changed(self) -> bool:
        """Whether anything differs from what was loaded or committed last."""
        return self._catalogs.root.is_changed

    @property
    def written_catalogs(self) -> tuple[ContentHash, ...]:
        """The catalogs that commits have stored, each root after those below it."""
        return tuple(self._catalogs.written)

    def subdirectories(self, path: bytes) -> list[bytes]:
        """The paths of the directories right below one, in order; of bind mountpoints none."""
        return [path + b"/" + name for name in self._catalogs.writer(self._within(path)).subdirectories(path)]

    def count_entries(self, path: bytes) -> int:
        """The number of entries right below a directory."""
        return self._catalogs.writer(self._within(path)).count_below(path)

    def changed_catalogs(self) -> list[bytes]:
        """The tops of the catalogs that have changed, and of those above them, in order."""
        return sorted(catalog.mountpoint for catalog in self._catalogs.known() if catalog.is_changed)

    def count_rows(self, path: bytes) -> int:
        """The number of entries in the catalog that has the contents of a directory."""
        return self._catalogs.writer(self._within(path)).count_rows()

    def _within(self, directory: bytes) -> WorkingCatalog:
        """The catalog of the contents of a directory, which must exist."""
        catalog = self._catalogs.holding(directory)
        entry = self._catalogs.writer(catalog).lookup(directory)
        if entry is None or not entry.is_directory:
            reason = "is not there" if entry is None else "is no directory"
            raise PublishError(f"the directory {show_path(directory)} {reason}")
        if entry.is_bind_mountpoint:
            raise PublishError(f"{show_path(directory)} shows another revision, and cannot be changed")
        if len(self._directories) >= _KNOWN_DIRECTORIES:
            self._directories.clear()
        within = self._catalogs.within(directory)
        self._directories[directory] = within
        return within

    def _looked_up(self, directory: bytes, names: list[bytes]) -> Iterator[Entry]:
        for name in names:
            entry = self.lookup(directory + b"/" + name)
            if entry is not None:
                yield entry
