"""Where the members of an archive go: names to paths, the directories on the way, symlinks among them.

Nothing ever leaves the directory that the archive is unpacked to: names that would are refused, and symlinks lead as in
a container whose root that directory is. Changes the tree only by making directories. One thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.reserved import check_destination

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfs_py.publish.tree import WritableTree

MISSING_MODE = 0o755
_LINKS_LIMIT = 40  # as in the kernel
_KNOWN_LIMIT = 4096


def member_components(name: bytes) -> list[bytes]:
    """The names on the way to a member; none for the top itself. PublishError for what leads elsewhere."""
    if name.startswith(b"/"):
        raise PublishError(
            f"the archive has a member with an absolute path, {show_path(name)}: nothing was published; pack it anew "
            "with relative names"
        )
    components = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in components:
        raise PublishError(
            f"the archive has a member that leads out of it, {show_path(name)}: nothing was published; pack it anew "
            "without `..`"
        )
    return components


class TarPaths:
    """Finds the directories of members, and makes those that are missing."""

    def __init__(
        self, tree: WritableTree, top: bytes, settle: Callable[[bytes], None], made: Callable[[bytes], None]
    ) -> None:
        """`settle` is asked to put what is under way to a path, `made` told of directories that were made."""
        self._tree = tree
        self._top = top
        self._settle = settle
        self._made = made
        self._known: dict[tuple[bytes, ...], bytes] = {}

    def forget(self) -> None:
        """To be called when a directory or a symlink is removed or replaced."""
        self._known.clear()

    def path(self, components: list[bytes], mtime_ns: int) -> bytes:
        """Where a member goes. Its directory exists afterwards; the member itself is not followed."""
        if not components:
            return self._top
        return self._directory(components[:-1], mtime_ns) + b"/" + components[-1]

    def existing(self, components: list[bytes]) -> bytes | None:
        """Where a member is, if its directory is there."""
        if not components:
            return self._top
        directory = self.existing_directory(components[:-1])
        return None if directory is None else directory + b"/" + components[-1]

    def existing_directory(self, components: list[bytes]) -> bytes | None:
        return self._walk(components, None)

    def _directory(self, components: list[bytes], mtime_ns: int) -> bytes:
        key = tuple(components)
        known = self._known.get(key)
        if known is None:
            known = self._walk(components, mtime_ns)
            assert known is not None
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[key] = known
        return known

    def _walk(self, components: list[bytes], mtime_ns: int | None) -> bytes | None:
        """The real path of a directory below the top; what is missing is made if there is a time for it."""
        path = self._top
        pending = list(reversed(components))
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                path = path.rpartition(b"/")[0] if path != self._top else path
                continue
            below = path + b"/" + name
            self._settle(below)
            entry = self._tree.lookup(below)
            if entry is not None and entry.is_symlink and links < _LINKS_LIMIT:
                links += 1
                if entry.symlink.startswith(b"/"):
                    path = self._top
                pending += reversed(entry.symlink.split(b"/"))
                continue
            if entry is None or not entry.is_directory:
                if mtime_ns is None:
                    return None
                self._make(below, mtime_ns)
            path = below
        return path

    def _make(self, path: bytes, mtime_ns: int) -> None:
        check_destination(path)  # by a symlink; what is called so itself has been left out
        seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
        self._tree.put_directory(path, Attributes(mode=MISSING_MODE, mtime_s=seconds, mtime_ns=nanoseconds))
        self._made(path)
