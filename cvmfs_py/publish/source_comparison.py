"""How an entry of a local directory and an entry of the repository compare. Stateless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.packed import StoredContent

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from catalog.entry import Entry
    from cvmfs_py.publish.packed import FileState
    from cvmfs_py.publish.tree import WritableTree

_SECOND_NS = 1_000_000_000


def attributes_of(status: os.stat_result, xattrs: Mapping[bytes, bytes]) -> Attributes:
    seconds, nanoseconds = divmod(status.st_mtime_ns, _SECOND_NS)
    return Attributes(
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_s=seconds,
        mtime_ns=nanoseconds,
        xattrs=xattrs,
    )


def state_attributes(state: FileState, xattrs: Mapping[bytes, bytes]) -> Attributes:
    """Those of a file as it was when it was read."""
    seconds, nanoseconds = divmod(state.mtime_ns, _SECOND_NS)
    return Attributes(
        mode=state.mode & 0o7777, uid=state.uid, gid=state.gid, mtime_s=seconds, mtime_ns=nanoseconds, xattrs=xattrs
    )


def has_time(old: Entry, status: os.stat_result) -> bool:
    return old.mtime_s * _SECOND_NS + old.mtime_ns == status.st_mtime_ns


def has_attributes(old: Entry, status: os.stat_result, xattrs: Mapping[bytes, bytes]) -> bool:
    """Whether an entry surely has the kind and the attributes of a source; with extended ones nothing is sure.

    The tree compares those. It takes 20 times longer, and does nothing either when everything is as it was.
    """
    return (
        old.mode == status.st_mode
        and old.uid == status.st_uid
        and old.gid == status.st_gid
        and has_time(old, status)
        and not xattrs
        and not old.xattr_blob
    )


def has_links(olds: Sequence[Entry | None]) -> bool:
    """Whether these entries are all the names of one file."""
    first = olds[0]
    if first is None or (first.hardlinks != 1 if len(olds) == 1 else not first.hardlink_group):
        return False
    return first.link_count == len(olds) and all(old is not None and old.hardlinks == first.hardlinks for old in olds)


def stored_content(tree: WritableTree, path: bytes, old: Entry) -> StoredContent:
    """The content of a regular file, to be compared."""
    chunks = tree.chunks(path) if old.is_chunked else ()
    return StoredContent(old.is_verbatim, None if chunks else old.content_hash, chunks)
