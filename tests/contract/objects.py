"""Small objects for tests of stores: what a verified download would hand over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.address import Algorithm, Kind, hash_bytes
from cache.ref import NotLocal, ObjectRef

if TYPE_CHECKING:
    from cache.pins import Pin
    from cache.store import Store


def make_ref(
    data: bytes,
    kind: Kind = Kind.BULK,
    volatile: bool = False,
    label: str = "",
    algorithm: Algorithm = Algorithm.SHA1,
    size_bytes: int | None = -1,
) -> ObjectRef:
    """The reference of an object with this content."""
    return ObjectRef(
        hash_bytes(algorithm, data),
        kind=kind,
        verbatim=True,
        size_bytes=len(data) if size_bytes == -1 else size_bytes,
        volatile=volatile,
        label=label,
    )


def commit(store: Store, ref: ObjectRef, data: bytes) -> Pin:
    with store.begin(ref) as transaction:
        transaction.write(data)
        return transaction.commit()


def put(store: Store, data: bytes, kind: Kind = Kind.BULK, volatile: bool = False, label: str = "") -> ObjectRef:
    """Store an object and let go of it."""
    ref = make_ref(data, kind, volatile, label)
    commit(store, ref, data).close()
    return ref


def content(store: Store, ref: ObjectRef) -> bytes | None:
    """What the store says an object contains; None where it is not local."""
    try:
        pin = store.open(ref)
    except NotLocal:
        return None
    with pin:
        return pin.read()


def object_file(directory: str, ref: ObjectRef) -> str:
    text = str(ref.content_hash)
    return os.path.join(directory, "objects", text[:2], text[2:])
