"""Garbage collection: which objects of a storage no kept snapshot reaches, and their removal.

Only reads catalogs and deletes objects; which snapshots are kept, and what the signed files say afterwards, is for
`publication`. The caller holds the repository's lock, so nobody is writing objects that no catalog names yet.

Concurrency: one thread. The hashes in use are kept on the disk, so memory does not grow with the repository.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Kind
from catalog.hash_set import HashSet
from catalog.reader import Catalog
from catalog.transitions import catalog_ref
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.stored_objects import StoredObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from cvmfs_py.publish.storage import Storage


@dataclass(slots=True)
class Collection:
    """What a collection found and did."""

    kept_roots: int = 0
    kept_objects: int = 0
    removed_objects: int = 0
    removed_bytes: int = 0
    removed_hashes: list[ContentHash] = field(default_factory=list)  # of catalogs and the like: the reflog names them
    missing_roots: list[ContentHash] = field(default_factory=list)  # removed by an earlier collection


def collect_garbage(
    storage: Storage,
    roots: Iterable[ContentHash],
    kept: Callable[[], Iterable[ContentHash]],
    *,
    dry_run: bool = False,
    forget: Callable[[list[ContentHash]], None] = lambda hashes: None,
    advance: Callable[[int], None] = lambda size_bytes: None,
) -> Collection:
    """Removes every object that neither belongs to a snapshot with one of these roots nor is kept by name.

    `forget` gets the catalogs and the like that will be removed, before they are: until then the reflog names them.
    """
    collection = Collection()
    with (
        StoredObjects(storage) as stored,
        HashSet(os.path.join(stored.workdir, "in-use")) as in_use,
        HashSet(os.path.join(stored.workdir, "followed")) as followed,
    ):
        in_use.update(kept())
        for root in roots:
            if not storage.has(root, Kind.CATALOG):
                collection.missing_roots.append(root)
                continue
            collection.kept_roots += 1
            _mark(catalog_ref(root, None, f"root catalog {root}"), stored, in_use, followed)
        if not collection.kept_roots:
            raise PublishError("no root catalog of this repository is there: nothing is removed")
        for content_hash, kind, _ in storage.objects():
            if kind not in (Kind.BULK, Kind.CHUNK) and content_hash not in in_use:
                collection.removed_hashes.append(content_hash)
        if not dry_run and collection.removed_hashes:
            forget(collection.removed_hashes)
            in_use.update(kept())  # signing again may have made new documents
        for content_hash, kind, size_bytes in storage.objects():
            advance(size_bytes)
            if content_hash in in_use:
                collection.kept_objects += 1
                continue
            if not dry_run:
                storage.remove(content_hash, kind)
            collection.removed_objects += 1
            collection.removed_bytes += size_bytes
    return collection


def _mark(root: ObjectRef, stored: StoredObjects, in_use: HashSet, followed: HashSet) -> None:
    """Marks a catalog and everything below it. A catalog that was followed before is not followed again.

    That it is in use says nothing: a file whose content is that of the catalog has the same hash.
    """
    waiting = [(root, b"")]
    while waiting:
        ref, mountpoint = waiting.pop()
        if not followed.add(ref.content_hash):
            continue
        in_use.add(ref.content_hash)
        catalog = Catalog.open(stored.open(ref), mountpoint, ref.content_hash)
        try:
            in_use.update(content_hash for content_hash, _ in catalog.object_hashes())
            for transition in catalog.transitions.all():
                if transition.ref is not None:
                    waiting.append((transition.ref, b"" if transition.is_bind else transition.mountpoint))
        finally:
            catalog.close()
