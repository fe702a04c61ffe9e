"""The directories above a path that nobody described: made as ordinary ones where they are missing. Stateless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.publish.attributes import Attributes

if TYPE_CHECKING:
    from cvmfs_py.publish.tree import WritableTree

MODE = 0o755


def put_parents(tree: WritableTree, path: bytes, mtime_ns: int) -> int:
    """Makes the missing directories above a path, with mode 0755 and owner root; how many there were."""
    missing = []
    above = path.rpartition(b"/")[0]
    while above and tree.lookup(above) is None:
        missing.append(above)
        above = above.rpartition(b"/")[0]
    seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
    for directory in reversed(missing):
        tree.put_directory(directory, Attributes(mode=MODE, mtime_s=seconds, mtime_ns=nanoseconds))
    return len(missing)
