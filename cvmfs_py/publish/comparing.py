"""What changed between two snapshots. Whole nested catalogs that did not change are passed over unread.

Streams in the order of a walk; directories are compared as merged, sorted listings. Concurrency: one thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog import flags as bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.address import ContentHash
    from catalog.opened import OpenObject
    from catalog.tree import CatalogTree, Located

_ATTRIBUTES = ("mode", "uid", "gid", "mtime_s", "mtime_ns", "xattr_blob")
_WHERE_AND_HOW = bits.EXTERNAL | bits.DIRECT_IO  # where the content comes from, and how it is read


class ChangeKind(enum.Enum):
    """How an entry differs; the value is its letter in listings."""

    ADDED = "A"
    DELETED = "D"
    MODIFIED = "M"  # other content, or another kind of entry
    ATTRIBUTES = "m"  # the same content with another mode, owner, time or extended attribute


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs."""

    kind: ChangeKind
    path: bytes
    old: Located | None
    new: Located | None


def compare_trees(old: CatalogTree, new: CatalogTree, open_object: OpenObject) -> Iterator[Change]:
    """Every difference from the old to the new tree, parents before what is below them."""
    if old.root_ref.content_hash == new.root_ref.content_hash:
        return
    before, after = old.lookup(b"", open_object), new.lookup(b"", open_object)
    kind = _difference(before, after)
    if kind is not None:
        yield Change(kind, b"", before, after)
    stack = [b""]
    while stack:
        directory = stack.pop()
        below: list[bytes] = []
        for change, descend in _compare_directory(old, new, directory, open_object):
            if change is not None:
                yield change
                if change.kind in (ChangeKind.ADDED, ChangeKind.DELETED, ChangeKind.MODIFIED):
                    yield from _subtree(change, old, new, open_object)
            if descend is not None:
                below.append(descend)
        stack.extend(reversed(below))


def _compare_directory(
    old: CatalogTree, new: CatalogTree, directory: bytes, open_object: OpenObject
) -> Iterator[tuple[Change | None, bytes | None]]:
    """Changes in one directory, and the subdirectories to go on with."""
    left, right = _entries(old, directory, open_object), _entries(new, directory, open_object)
    before, after = next(left, None), next(right, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.entry.name < after.entry.name):
            assert before is not None
            yield Change(ChangeKind.DELETED, before.path, before, None), None
            before = next(left, None)
        elif before is None or after.entry.name < before.entry.name:
            yield Change(ChangeKind.ADDED, after.path, None, after), None
            after = next(right, None)
        else:
            kind = _difference(before, after)
            change = None if kind is None else Change(kind, after.path, before, after)
            both = before.entry.is_directory and after.entry.is_directory
            descend = after.path if both and not _is_same_catalog(before, after) else None
            yield change, descend
            before, after = next(left, None), next(right, None)


def _subtree(change: Change, old: CatalogTree, new: CatalogTree, open_object: OpenObject) -> Iterator[Change]:
    """What is below a directory that is only on one side."""
    was, is_ = change.old, change.new
    if was is not None and was.entry.is_directory and not (is_ is not None and is_.entry.is_directory):
        for located in _all_below(old, change.path, open_object):
            yield Change(ChangeKind.DELETED, located.path, located, None)
    if is_ is not None and is_.entry.is_directory and not (was is not None and was.entry.is_directory):
        for located in _all_below(new, change.path, open_object):
            yield Change(ChangeKind.ADDED, located.path, None, located)


def _all_below(tree: CatalogTree, path: bytes, open_object: OpenObject) -> Iterator[Located]:
    stack = [path]
    while stack:
        directory = stack.pop()
        below: list[bytes] = []
        for located in _entries(tree, directory, open_object):
            yield located
            if located.entry.is_directory:
                below.append(located.path)
        stack.extend(reversed(below))


def _entries(tree: CatalogTree, directory: bytes, open_object: OpenObject) -> Iterator[Located]:
    view = tree.open_directory(directory, open_object)
    if view is not None:
        # Bind mountpoints lead to other revisions, which are no part of this one.
        yield from (each for each in view.by_name(hidden=True) if not each.entry.is_bind_mountpoint)


def _is_same_catalog(old: Located, new: Located) -> bool:
    before, after = old.catalog.transitions.at(old.path), new.catalog.transitions.at(new.path)
    return (
        before is not None
        and after is not None
        and before.content_hash is not None
        and before.content_hash == after.content_hash
    )


def _difference(old: Located | None, new: Located | None) -> ChangeKind | None:
    if old is None or new is None:
        return ChangeKind.MODIFIED if old is not new else None
    before, after = old.entry, new.entry
    if before.mode >> 12 != after.mode >> 12 or before.symlink != after.symlink:
        return ChangeKind.MODIFIED
    is_content_equal = before.is_directory or (before.size == after.size and _content(old) == _content(new))
    if not is_content_equal:
        return ChangeKind.MODIFIED
    same = all(getattr(before, name) == getattr(after, name) for name in _ATTRIBUTES)
    if same and not before.is_directory:
        # Of a directory the link count says only how many directories are in it; the number of a hard-link group is one
        # inside its catalog, and another when the catalog is divided or joined with the one above.
        same = before.link_count == after.link_count and not (before.flags ^ after.flags) & _WHERE_AND_HOW
    return None if same else ChangeKind.ATTRIBUTES


def _content(located: Located) -> tuple[ContentHash | None, ...]:
    if located.entry.is_chunked:
        return tuple(chunk.content_hash for chunk in located.catalog.chunks(located.entry))
    return (located.entry.content_hash,)
