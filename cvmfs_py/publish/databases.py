"""The tag database and the reflog of a repository as working copies: taken from the storage, and put back.

What is changed in them is for others. Concurrency: only under the repository's lock, but for `read_tags`.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from cache.address import Kind, hash_bytes
from catalog.errors import CatalogError
from catalog.history_writer import HistoryWriter
from catalog.reflog import Reflog
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.place import REFLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.address import Algorithm, ContentHash
    from catalog.history import Tag
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.manifest import Manifest

Reference = tuple["ContentHash", Kind]


def read_tags(storage: Storage, manifest: Manifest) -> dict[str, Tag]:
    """All tags by name, the oldest revision first."""
    with (
        tempfile.TemporaryDirectory(prefix="cvmfs-py-tags-") as directory,
        _open_history(storage, manifest, directory) as history,
    ):
        return {tag.name: tag for tag in history.tags()}


def change_history(
    storage: Storage,
    manifest: Manifest | None,
    settings: RepositorySettings,
    workdir: str,
    *,
    put: Iterable[Tag] = (),
    remove: Iterable[str] = (),
) -> ContentHash:
    """Stores a tag database with some tags removed, then others put; its hash."""
    with _open_history(storage, manifest, workdir, settings.fqrn) as history:
        for name in remove:
            history.remove(name)
        for tag in put:
            history.put(tag)
        history.finish()
        return storage.put_file(os.path.join(workdir, "history"), Kind.HISTORY, settings)


def _open_history(storage: Storage, manifest: Manifest | None, workdir: str, fqrn: str = "") -> HistoryWriter:
    """A working copy; a new one where there is no tag database."""
    path = _vacant(workdir, "history")
    if manifest is None or manifest.history_hash is None:
        return HistoryWriter.create(path, manifest.fqrn if manifest else fqrn)
    storage.extract(manifest.history_hash, Kind.HISTORY, path)
    history = HistoryWriter.open(path, manifest.history_hash)
    if history.fqrn != manifest.fqrn:
        history.close()
        raise PublishError(f"the tag database of {manifest.fqrn} is that of {history.fqrn}: the repository is damaged")
    return history


def reflog_is_current(storage: Storage, manifest: Manifest) -> bool:
    """Whether the reflog is the one that the manifest names."""
    if manifest.reflog_hash is None:
        return False
    stored = storage.read_file(REFLOG)
    return stored is not None and hash_bytes(manifest.reflog_hash.algorithm, stored) == manifest.reflog_hash


def extended_reflog(
    storage: Storage,
    manifest: Manifest | None,
    fqrn: str,
    workdir: str,
    added: Iterable[Reference],
    timestamp_s: int,
    forget: Iterable[ContentHash],
    warn: Callable[[str], object],
) -> bytes:
    """The bytes of the reflog with some objects more, and without some others.

    It is taken as it is on the disk, although the manifest may name an older one: a publisher that was killed between
    replacing the two has left more in it, never less. One that is damaged is made anew from what has a name.
    """
    path = _vacant(workdir, "reflog")
    stored = storage.read_file(REFLOG)
    reflog = None
    if stored is not None:
        with open(path, "wb") as file:
            file.write(stored)
        reflog = _open_reflog(path, fqrn)
    if reflog is None:
        path = _vacant(workdir, "reflog")
        reflog = Reflog.create(path, fqrn)
        if manifest is not None:
            warn("the reflog was damaged and is made anew: it knows the tagged revisions only")
            _fill(reflog, storage, manifest)
    with reflog:
        for content_hash in forget:
            reflog.remove(content_hash)
        for content_hash, kind in added:
            reflog.add(content_hash, kind, timestamp_s)
        reflog.finish()
    with open(path, "rb") as file:
        return file.read()


def hash_reflog(content: bytes, algorithm: Algorithm) -> ContentHash:
    """The reflog's address is that of its bytes as they are: it is not compressed."""
    return hash_bytes(algorithm, content)


def _open_reflog(path: str, fqrn: str) -> Reflog | None:
    """None: it is damaged."""
    try:
        reflog = Reflog.open(path)
    except CatalogError:
        return None
    try:
        is_whole = reflog.fqrn == fqrn and all(True for _ in reflog.refs())
    except CatalogError:
        is_whole = False
    if not is_whole:
        reflog.close()
        return None
    return reflog


def _fill(reflog: Reflog, storage: Storage, manifest: Manifest) -> None:
    for tag in read_tags(storage, manifest).values():
        reflog.add(tag.root_hash, Kind.CATALOG, tag.timestamp_s)
    for reference in references_of(manifest):
        reflog.add(*reference, manifest.timestamp_s)


def references_of(manifest: Manifest) -> list[Reference]:
    """The objects that a manifest names."""
    named = (
        (manifest.root_hash, Kind.CATALOG),
        (manifest.certificate_hash, Kind.CERTIFICATE),
        (manifest.history_hash, Kind.HISTORY),
        (manifest.metainfo_hash, Kind.METAINFO),
    )
    return [(content_hash, kind) for content_hash, kind in named if content_hash is not None]


def _vacant(workdir: str, name: str) -> str:
    path = os.path.join(workdir, name)
    if os.path.lexists(path):
        os.unlink(path)
    return path
