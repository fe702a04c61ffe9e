"""The last step of every change: reflog and manifest are replaced, in the order that survives a crash at any point.

Everything that the manifest will name has been stored before; until its file is replaced, which is one rename, clients
see what they saw. Concurrency: only under the repository's lock.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from cache.address import Kind, object_path
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.current import write_record
from cvmfs_py.publish.databases import extended_reflog, hash_reflog, references_of
from cvmfs_py.publish.place import MANIFEST, REFLOG
from cvmfs_py.publish.recovery import end_writing
from cvmfs_py.publish.signing import format_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.address import ContentHash
    from cvmfs_py.publish.keys import PublisherKeys
    from cvmfs_py.publish.place import Place
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.manifest import Manifest


def own_certificate(
    storage: Storage, keys: PublisherKeys, settings: RepositorySettings, named: ContentHash
) -> ContentHash:
    """The object of the own certificate: the one that the manifest names if it is that, else a new one."""
    # Another version of the compressor would make another object of the same certificate.
    if storage.read_content(named, Kind.CERTIFICATE) == keys.certificate_pem:
        return named
    return storage.put_content(keys.certificate_pem, Kind.CERTIFICATE, settings)


def seal(
    place: Place,
    storage: Storage,
    keys: PublisherKeys,
    workdir: str,
    current: Manifest | None,
    following: Manifest,
    *,
    warn: Callable[[str], object],
    forget: Collection[ContentHash] = (),
) -> Manifest:
    """Publishes a manifest, whose reflog hash is filled in here. `forget`: objects that leave the reflog."""
    reflog = extended_reflog(
        storage, current, place.fqrn, workdir, references_of(following), following.timestamp_s, forget, warn
    )
    following = dataclasses.replace(following, reflog_hash=hash_reflog(reflog, following.root_hash.algorithm))
    if following.has_alternative_paths:
        _link_alternatives(storage, following)
    signed = format_manifest(following, keys)
    # A power failure after the rename of the manifest must not find objects that have names and no content.
    storage.sync()
    storage.replace_file(REFLOG, reflog)
    storage.replace_file(MANIFEST, signed)
    write_record(place, following)
    end_writing(place.mark_file)
    return following


def _link_alternatives(storage: Storage, manifest: Manifest) -> None:
    """The names under which clients without credentials find what they need first."""
    for content_hash, kind in references_of(manifest):
        link = storage.directory / f".cvmfsalt-{content_hash}{kind.value}"
        try:
            if not os.path.lexists(link):
                link.symlink_to(object_path(content_hash, kind))
        except OSError as error:
            raise PublishError(f"{link} cannot be made: {error.strerror}") from error
