"""What a repository publishes now, verified as a client would: the foundation of everything that is published next.

Who can write to the web root must not be able to slip something into the next revision. So the manifest counts only if
the whitelist of the own master key vouches for its certificate, and if it is not older than what was published from
here last. Reads; changes nothing but the record of the latter.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.keys import sync_directory
from cvmfs_py.publish.place import MANIFEST, WHITELIST
from cvmfs_py.trust.breadcrumb import Breadcrumb
from cvmfs_py.trust.keys import parse_master_key
from cvmfs_py.trust.refusal import LIMIT_BYTES
from cvmfs_py.trust.trusted_state import TrustedState
from cvmfs_py.trust.whitelist import format_time

if TYPE_CHECKING:
    from cvmfs_py.publish.place import Place
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.certificate import Certificate
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.manifest import Manifest
    from cvmfs_py.trust.whitelist import Whitelist

_WARNING_S = 7 * 86400


@dataclass(frozen=True, slots=True)
class Current:
    """A verified manifest with what vouches for it."""

    manifest: Manifest
    certificate: Certificate
    certificate_pem: bytes
    whitelist: Whitelist


def load_public_key(place: Place) -> MasterKey:
    file = place.public_key_file
    try:
        return parse_master_key(file.read_bytes(), str(file))
    except OSError as error:
        raise PublishError(f"the public key {file} cannot be read: {error.strerror}") from error


def load_current(place: Place, storage: Storage, master_key: MasterKey) -> Current:
    """Reads and verifies. An expired whitelist is not refused here: see `whitelist_warning`."""
    manifest = storage.read_file(MANIFEST)
    whitelist = storage.read_file(WHITELIST)
    if manifest is None or whitelist is None:
        raise PublishError(
            f"{storage.directory} has no {WHITELIST if manifest else MANIFEST}: the repository is damaged"
        )
    state = TrustedState(place.fqrn, (master_key,))
    certificate_hash = state.certificate_ref(manifest).content_hash
    certificate_pem = storage.read_content(certificate_hash, Kind.CERTIFICATE, limit_bytes=LIMIT_BYTES)
    # Every whitelist was valid in 1970, when it comes to the date.
    root = state.accept(manifest, certificate_pem, whitelist, 0)
    return Current(root.manifest, root.certificate, certificate_pem, root.whitelist)


def whitelist_warning(whitelist: Whitelist, now_s: float) -> str | None:
    """What the owner should know about the date of the whitelist."""
    if now_s >= whitelist.expires_s:
        return (
            f"the whitelist of {whitelist.fqrn} has expired ({format_time(whitelist.expires_s)}): clients refuse every "
            "new revision until it is signed anew with `cvmfs-py repo resign DIR`"
        )
    if now_s >= whitelist.expires_s - _WARNING_S:
        return (
            f"the whitelist of {whitelist.fqrn} expires soon ({format_time(whitelist.expires_s)}): sign it anew with "
            "`cvmfs-py repo resign DIR`"
        )
    return None


def read_record(place: Place) -> Breadcrumb | None:
    """The last root that was published from here; None: not known."""
    try:
        return Breadcrumb.parse(place.record_file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PublishError(f"{place.record_file} cannot be read: {error.strerror}") from error


def write_record(place: Place, manifest: Manifest) -> None:
    temporary = place.record_file.with_name(f"{place.record_file.name}.new")
    crumb = Breadcrumb(manifest.root_hash, manifest.timestamp_s, manifest.revision)
    try:
        with open(temporary, "wb") as file:
            file.write(crumb.format())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place.record_file)
        sync_directory(place.keys_directory)
    except OSError as error:
        raise PublishError(f"{place.record_file} cannot be written: {error.strerror}") from error


def refuse_older(manifest: Manifest, record: Breadcrumb | None) -> None:
    """Refuses to go on from an older state than the one that was published last: clients would not follow."""
    if record is None or manifest.revision > record.revision:
        return
    if manifest.revision == record.revision and manifest.root_hash == record.root_hash:
        return
    raise PublishError(
        f"the manifest of {manifest.fqrn} is of revision {manifest.revision} ({manifest.root_hash}), but revision "
        f"{record.revision} ({record.root_hash}) was published last: the storage was replaced by another state; "
        "restore it, or go on from this state with --force"
    )
