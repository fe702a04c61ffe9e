"""Whiteouts: how a layer of a container image says what of the layers below it is gone.

`.wh.NAME` removes NAME, `.wh..wh..opq` empties its directory. Both speak of lower layers only: what the same layer puts
there stays, whether it comes before or after. One thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.nesting import AUTOMATIC_MARKER, MARKER

if TYPE_CHECKING:
    from cvmfs_py.publish.tree import WritableTree

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"
_OTHERS = b".wh..wh."  # notes of old union file systems to themselves


def is_whiteout(name: bytes) -> bool:
    """Whether the last name of a member means something else than an entry."""
    return name.startswith(_PREFIX)


class Layer:
    """What one layer has put, and its whiteouts."""

    def __init__(self, tree: WritableTree, top: bytes) -> None:
        self._tree = tree
        self._top = top
        self._touched: set[int] = set()  # 64-bit hashes of paths: a layer may have millions

    def touch(self, path: bytes) -> None:
        """Remembers that the layer puts an entry, and needs the directories above it."""
        while len(path) > len(self._top) and (key := hash(path)) not in self._touched:
            self._touched.add(key)
            path = path.rpartition(b"/")[0]

    def apply(self, directory: bytes, name: bytes) -> int:
        """Does what a whiteout in a directory says; the number of entries removed."""
        if name == _OPAQUE:
            return self._empty(directory)
        if name.startswith(_OTHERS):
            return 0
        hidden = name[len(_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise PublishError(f"the archive has a whiteout without a name, {show_path(directory + b'/' + name)}")
        return self._remove_lower(directory + b"/" + hidden)

    def _remove_lower(self, path: bytes) -> int:
        if hash(path) not in self._touched:
            return int(self._tree.remove(path))
        return self._empty(path)

    def _empty(self, directory: bytes) -> int:
        removed = 0
        pending = [directory]
        while pending:
            path = pending.pop()
            entry = self._tree.lookup(path)
            if entry is None or not entry.is_directory:
                continue
            markers = []
            for below in self._tree.listing(path):
                if below.is_hidden or below.is_bind_mountpoint:
                    continue
                if hash(path + b"/" + below.name) in self._touched:
                    pending.append(path + b"/" + below.name)
                elif below.name in (MARKER, AUTOMATIC_MARKER):
                    markers.append(path + b"/" + below.name)  # last: then few entries are left to move
                else:
                    removed += self._tree.remove(path + b"/" + below.name)
            for marker in markers:
                removed += self._tree.remove(marker)
        return removed
