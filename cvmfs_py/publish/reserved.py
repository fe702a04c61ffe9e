"""Names that mean something to every client and server, and what can therefore not be published under them. Pure."""

from __future__ import annotations

import stat

from catalog.errors import show_path
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.tree import MARKER

RESERVED = b"/.cvmfs"  # where clients show other revisions
_IS_RESERVED = "this name is reserved: it is not published"
# The check of every server takes any entry of this name for the marker of a nested catalog, and finds none.
_IS_NO_MARKER = f"only an ordinary file can be called {MARKER.decode()}: it is not published"


def is_reserved(path: bytes) -> bool:
    return path == RESERVED or path.startswith(RESERVED + b"/")


def unpublishable(path: bytes, kind: int) -> str | None:
    """Why an entry of this kind (its S_IFMT) cannot be at a path; None: it can."""
    if is_reserved(path):
        return _IS_RESERVED
    directory, _, name = path.rpartition(b"/")
    if (name == MARKER and kind != stat.S_IFREG) or MARKER in directory.split(b"/"):
        return _IS_NO_MARKER
    return None


def check_destination(path: bytes) -> None:
    """Refuses a directory to publish to, as nothing could be there."""
    reason = unpublishable(path, stat.S_IFDIR)
    if reason is not None:
        raise PublishError(f"nothing can be published at {show_path(path)}: {reason.partition(':')[0]}")
