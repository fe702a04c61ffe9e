"""Manifests and whitelists that are signed here are accepted where they are read, and nothing that was changed is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash
from cvmfs_py.errors import TrustError
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.signing import Manifest, format_manifest, format_whitelist
from cvmfs_py.trust.trusted_state import TrustedState
from cvmfs_py.trust.whitelist import accept_whitelist

FQRN = "signing.test.org"
NOW = int(datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp())
ALGORITHMS = (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)
ZOO = Path(__file__).parents[1] / "data" / "zoo"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> PublisherKeys:
    return PublisherKeys.create(tmp_path_factory.mktemp("keys"), FQRN)


def some_hash(number: int, algorithm: Algorithm = Algorithm.SHA1) -> ContentHash:
    return ContentHash(algorithm, bytes([number]) * 20)


def manifest_of(algorithm: Algorithm = Algorithm.SHA1) -> Manifest:
    return Manifest(
        fqrn=FQRN,
        root_hash=some_hash(1, algorithm),
        root_size_bytes=57344,
        certificate_hash=some_hash(2, algorithm),
        history_hash=some_hash(3, algorithm),
        metainfo_hash=some_hash(4, algorithm),
        reflog_hash=some_hash(5, algorithm),
        revision=42,
        timestamp_s=NOW,
        ttl_s=900,
        is_garbage_collectable=True,
        has_alternative_paths=False,
    )


def whitelist_of(keys: PublisherKeys, algorithm: Algorithm, days: int = 30) -> bytes:
    fingerprint = keys.certificate.fingerprint(algorithm)
    return format_whitelist(FQRN, [fingerprint], NOW, NOW + days * 86400, algorithm, keys)


def accept(keys: PublisherKeys, manifest: bytes, whitelist: bytes, now_s: float = NOW) -> Manifest:
    state = TrustedState(FQRN, (keys.master_public,))
    return state.accept(manifest, keys.certificate_pem, whitelist, now_s).manifest


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_is_accepted(keys: PublisherKeys, algorithm: Algorithm) -> None:
    manifest = manifest_of(algorithm)
    assert accept(keys, format_manifest(manifest, keys), whitelist_of(keys, algorithm)) == manifest


@settings(max_examples=30)  # each signs twice
@given(data=st.data())
def test_every_field_comes_through(keys: PublisherKeys, data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    hashes = st.builds(some_hash, st.integers(1, 255), st.sampled_from(ALGORITHMS))
    optional = st.none() | hashes
    manifest = Manifest(
        fqrn=FQRN,
        root_hash=data.draw(hashes),
        root_size_bytes=data.draw(st.none() | st.integers(1, 1 << 40)),
        certificate_hash=data.draw(hashes),
        history_hash=data.draw(optional),
        metainfo_hash=data.draw(optional),
        reflog_hash=data.draw(optional),
        revision=data.draw(st.integers(0, (1 << 64) - 2)),
        timestamp_s=data.draw(st.integers(0, 1 << 40)),
        ttl_s=data.draw(st.integers(0, (1 << 32) - 1)),
        is_garbage_collectable=data.draw(st.booleans()),
        has_alternative_paths=data.draw(st.booleans()),
        channel_tips=tuple(data.draw(st.lists(st.text("abc123", min_size=1), max_size=3))),
    )
    assert accept(keys, format_manifest(manifest, keys), whitelist_of(keys, algorithm)) == manifest


def test_the_manifest_has_the_lines_of_the_reference_in_its_order(keys: PublisherKeys) -> None:
    """All lines of a real manifest, with our name and the values of the real one."""
    real = (ZOO / "server" / ".cvmfspublished").read_bytes().partition(b"\n--\n")[0].split(b"\n")
    ours = format_manifest(manifest_of(), keys).partition(b"\n--\n")[0].split(b"\n")
    assert [line[:1] for line in ours] == [line[:1] for line in real]
    assert dict.fromkeys(line for line in ours if line[:1] == b"R") == dict.fromkeys(
        line for line in real if line[:1] == b"R"
    )


def test_what_is_absent_has_no_line(keys: PublisherKeys) -> None:
    bare = dataclasses.replace(manifest_of(), history_hash=None, metainfo_hash=None, reflog_hash=None)
    body = format_manifest(bare, keys).partition(b"\n--\n")[0]
    assert b"".join(line[:1] for line in body.split(b"\n")) == b"CBRDSGANXT"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_whitelist_says_what_the_reference_says(keys: PublisherKeys, algorithm: Algorithm) -> None:
    lines = whitelist_of(keys, algorithm).partition(b"\n--\n")[0].decode().split("\n")
    assert lines[:3] == ["20260203040506", "E20260305040506", f"N{FQRN}"]
    (fingerprint,) = lines[3:]
    digits, _, suffix = fingerprint.partition("-")
    assert len(digits.split(":")) == 20
    assert digits == digits.upper()
    assert suffix == algorithm.suffix.upper().removeprefix("-")


def test_the_whitelist_ends_at_the_hour(keys: PublisherKeys) -> None:
    whitelist = whitelist_of(keys, Algorithm.SHA1, days=30)
    end = int(datetime(2026, 3, 5, 4, tzinfo=UTC).timestamp())
    accept_whitelist(whitelist, FQRN, (keys.master_public,), end - 1)
    with pytest.raises(TrustError, match="expired"):
        accept_whitelist(whitelist, FQRN, (keys.master_public,), end)


def test_whitelists_of_the_far_future_are_written(keys: PublisherKeys) -> None:
    signed = format_whitelist(FQRN, [], NOW, NOW + 36500 * 86400, Algorithm.SHA1, keys)
    assert accept_whitelist(signed, FQRN, (keys.master_public,), NOW + 36000 * 86400).fingerprints == ()


@pytest.fixture(scope="module")
def letters(keys: PublisherKeys) -> tuple[bytes, bytes]:
    return format_manifest(manifest_of(), keys), whitelist_of(keys, Algorithm.SHA1)


@given(data=st.data())
def test_not_a_byte_can_be_changed(keys: PublisherKeys, letters: tuple[bytes, bytes], data: st.DataObject) -> None:
    manifest, whitelist = letters
    for letter in (manifest, whitelist):
        place = data.draw(st.integers(0, len(letter) - 1))
        changed = bytearray(letter)
        changed[place] ^= data.draw(st.integers(1, 255))
        pair = (bytes(changed), whitelist) if letter is manifest else (manifest, bytes(changed))
        with pytest.raises(TrustError):
            accept(keys, *pair)


def test_another_owner_vouches_for_nothing_here(keys: PublisherKeys, tmp_path: Path) -> None:
    other = PublisherKeys.create(tmp_path, FQRN)
    manifest = format_manifest(manifest_of(), keys)
    with pytest.raises(TrustError, match="not signed by any of the configured master keys"):
        accept(keys, manifest, whitelist_of(other, Algorithm.SHA1))
    with pytest.raises(TrustError, match="invalid signature"):
        accept(keys, format_manifest(manifest_of(), other), whitelist_of(keys, Algorithm.SHA1))
