"""A small signed repository for the tests of trust: its documents, each of which can be made wrong in one way."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm, hash_bytes
from cvmfs_py.errors import TrustError
from cvmfs_py.trust.keys import load_master_keys
from cvmfs_py.trust.manifest import unverified_certificate_ref
from cvmfs_py.trust.trusted_state import TrustedState
from tests.simulator.signing import (
    MasterKey,
    RepositoryKey,
    change_fields,
    manifest_fields,
    sign_manifest,
    sign_whitelist,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.trust.blacklist import Blacklist
    from cvmfs_py.trust.breadcrumb import Breadcrumb
    from cvmfs_py.trust.trusted_state import TrustedRoot

ZOO = Path(__file__).parents[1] / "data" / "zoo"
ZOO_FQRN = "zoo.test.org"
ZOO_NOW_S = 1795200000.0  # an hour after its last manifest was published

FQRN = "test.cern.ch"
NOW = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
NOW_S = NOW.timestamp()
ROOT_HASH = hash_bytes(Algorithm.SHA1, b"a root catalog")
OTHER_ROOT_HASH = hash_bytes(Algorithm.SHA1, b"another root catalog")
CERTIFICATE_HASH = hash_bytes(Algorithm.SHA1, b"the compressed certificate")


@dataclass(frozen=True, slots=True)
class Documents:
    """What a server sends."""

    manifest: bytes
    certificate_pem: bytes
    whitelist: bytes


def make_manifest(
    key: RepositoryKey | None = None,
    *,
    algorithm: Algorithm = Algorithm.SHA1,
    revision: int = 7,
    timestamp_s: int = 1_000_000,
    changes: Mapping[str, str | None] | None = None,
    **more_changes: str | None,
) -> bytes:
    """A manifest of ROOT_HASH; fields can be replaced or (None) left out."""
    fields = manifest_fields(
        FQRN, ROOT_HASH, revision=revision, timestamp_s=timestamp_s, certificate_hash=CERTIFICATE_HASH
    )
    return sign_manifest(
        key or RepositoryKey.generate(), change_fields(fields, **(changes or {}), **more_changes), algorithm
    )


def make_whitelist(
    key: RepositoryKey | None = None,
    *,
    master: MasterKey | None = None,
    fqrn: str = FQRN,
    expires: datetime = NOW + timedelta(days=30),
    algorithm: Algorithm = Algorithm.SHA1,
    flags: tuple[str, ...] = (),
    fingerprints: tuple[str, ...] | None = None,
) -> bytes:
    if fingerprints is None:
        fingerprints = ((key or RepositoryKey.generate()).fingerprint(),)
    return sign_whitelist(
        master or MasterKey.generate(),
        fqrn,
        fingerprints,
        created=NOW - timedelta(days=1),
        expires=expires,
        algorithm=algorithm,
        flags=flags,
    )


def make_documents(
    kind: str = "rsa",
    *,
    manifest: bytes | None = None,
    whitelist: bytes | None = None,
    certificate: bytes | None = None,
) -> Documents:
    key = RepositoryKey.generate(kind)
    return Documents(
        manifest if manifest is not None else make_manifest(key),
        certificate if certificate is not None else key.certificate_pem,
        whitelist if whitelist is not None else make_whitelist(key),
    )


def make_state(
    *, masters: tuple[MasterKey, ...] | None = None, blacklist: Blacklist | None = None, local: Breadcrumb | None = None
) -> TrustedState:
    chosen = (MasterKey.generate(),) if masters is None else masters
    keys = load_master_keys((f"key{number}.pub", master.public_pem) for number, master in enumerate(chosen))
    return TrustedState(FQRN, keys, blacklist, local)


def accept(state: TrustedState, documents: Documents, now_s: float = NOW_S) -> TrustedRoot:
    return state.accept(documents.manifest, documents.certificate_pem, documents.whitelist, now_s)


def zoo_state() -> TrustedState:
    return TrustedState(ZOO_FQRN, load_master_keys([("zoo.pub", (ZOO / "zoo.test.org.pub").read_bytes())]))


def zoo_documents(revision: int | None = None) -> Documents:
    """The real repository's documents; of an older revision if one is given."""
    server = ZOO / "server"
    path = server / ".cvmfspublished" if revision is None else ZOO / "manifests" / f"r{revision}.cvmfspublished"
    manifest = path.read_bytes()
    certificate = zlib.decompress((server / unverified_certificate_ref(manifest).server_path).read_bytes())
    return Documents(manifest, certificate, (server / ".cvmfswhitelist").read_bytes())


def armour(der: bytes, label: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def refusal_of(state: TrustedState, documents: Documents, now_s: float = NOW_S) -> TrustError:
    """The refusal; also checks that nothing was changed by it and that the user can read what was refused and whose."""
    before = state.candidate
    with pytest.raises(TrustError) as caught:
        accept(state, documents, now_s)
    assert state.candidate == before
    message = str(caught.value)
    assert FQRN in message
    assert caught.value.reason.value in message
    assert "\n" not in message
    return caught.value
