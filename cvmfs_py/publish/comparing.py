"""What changed between two snapshots. Whole nested catalogs that did not change are passed over unread.

Streams, a directory at a time, as a walk comes to them; each is compared as merged, sorted listings. Whoever has to
fetch catalogs on the way walks himself and takes the judgement of `compare_pair`. Concurrency: one thread.
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


@dataclass(frozen=True, slots=True)
class Place:
    """A directory to be compared, and on which sides there is one."""

    path: bytes
    is_old: bool = True
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Pair:
    """What the next entries of both sides say together."""

    change: Change | None
    below: Place | None  # what is to be compared after this directory
    takes_old: bool  # the entry is done with
    takes_new: bool


def compare_trees(old: CatalogTree, new: CatalogTree, open_object: OpenObject) -> Iterator[Change]:
    """Every difference from the old to the new tree, parents before what is below them."""
    if old.root_ref.content_hash == new.root_ref.content_hash:
        return
    top = compare_pair(old.deepest(b"", open_object), new.deepest(b"", open_object))
    if top.change is not None:
        yield top.change
    stack = [] if top.below is None else [top.below]
    while stack:
        place = stack.pop()
        below: list[Place] = []
        left = _entries(old, place.path, open_object) if place.is_old else iter(())
        right = _entries(new, place.path, open_object) if place.is_new else iter(())
        before, after = next(left, None), next(right, None)
        while before is not None or after is not None:
            pair = compare_pair(before, after)
            if pair.change is not None:
                yield pair.change
            if pair.below is not None:
                below.append(pair.below)
            before = next(left, None) if pair.takes_old else before
            after = next(right, None) if pair.takes_new else after
        stack.extend(reversed(below))


def compare_pair(before: Located | None, after: Located | None) -> Pair:
    """The next entries of the same directory in the order of names, at least one; None: that side has no more."""
    if before is None or (after is not None and after.entry.name < before.entry.name):
        assert after is not None
        below = Place(after.path, is_old=False) if after.entry.is_directory else None
        return Pair(Change(ChangeKind.ADDED, after.path, None, after), below, False, True)
    if after is None or before.entry.name < after.entry.name:
        below = Place(before.path, is_new=False) if before.entry.is_directory else None
        return Pair(Change(ChangeKind.DELETED, before.path, before, None), below, True, False)
    kind = _difference(before, after)
    place = Place(after.path, before.entry.is_directory, after.entry.is_directory)
    is_same = place.is_old and place.is_new and _is_same_catalog(before, after)
    return Pair(
        None if kind is None else Change(kind, after.path, before, after),
        place if (place.is_old or place.is_new) and not is_same else None,
        True,
        True,
    )


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


def _difference(old: Located, new: Located) -> ChangeKind | None:
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
