"""Whoever changes one byte of a signed document gets a refusal: never acceptance, never another exception."""

from __future__ import annotations

from dataclasses import replace
from functools import cache as remember
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm
from cvmfs_py.errors import TrustError
from cvmfs_py.trust.certificate import parse_certificate
from cvmfs_py.trust.manifest import unverified_certificate_ref
from cvmfs_py.trust.stored import StoredTrust
from tests.simulator.signing import RepositoryKey
from tests.unit.trust_world import (
    FQRN,
    ZOO_NOW_S,
    Documents,
    accept,
    armour,
    make_documents,
    make_manifest,
    make_state,
    make_whitelist,
    zoo_documents,
    zoo_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def every_small_change(data: bytes) -> Iterator[bytes]:
    """Every bit flipped, every byte dropped or doubled, and a blank, a newline and a zero put in everywhere."""
    for position in range(len(data)):
        before, byte, after = data[:position], data[position], data[position + 1 :]
        for bit in range(8):
            yield before + bytes((byte ^ (1 << bit),)) + after
        yield before + after
        yield before + bytes((byte, byte)) + after
    for position in range(len(data) + 1):
        for inserted in b"\0", b"\n", b" ", b"#\n":
            yield data[:position] + inserted + data[position:]


def assert_refused(documents: Documents, original: Documents) -> None:
    if documents == original:
        return
    with pytest.raises(TrustError):
        accept(make_state(), documents)


@remember
def sealed(kind: str) -> Documents:
    """Signed with a key of that kind, hashed with SHAKE-128 where it is not RSA."""
    key = RepositoryKey.generate(kind)
    algorithm = Algorithm.SHA1 if kind == "rsa" else Algorithm.SHAKE128
    return make_documents(
        kind,
        manifest=make_manifest(key, algorithm=algorithm),
        whitelist=make_whitelist(key, algorithm=algorithm, fingerprints=("# comment", key.fingerprint(algorithm))),
    )


@pytest.mark.parametrize("kind", ["rsa", "ec", "dsa"])
def test_every_small_change_of_a_manifest_is_refused(kind: str) -> None:
    original = sealed(kind)
    state = make_state()
    accept(state, original)
    for changed in every_small_change(original.manifest):
        if changed != original.manifest:
            with pytest.raises(TrustError):
                accept(state, replace(original, manifest=changed))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_every_small_change_of_a_whitelist_is_refused(kind: str) -> None:
    original = sealed(kind)
    state = make_state()
    accept(state, original)
    for changed in every_small_change(original.whitelist):
        if changed != original.whitelist:
            with pytest.raises(TrustError):
                accept(state, replace(original, whitelist=changed))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_changed_certificate_is_refused_or_still_the_same_certificate(kind: str) -> None:
    """Blanks and unused bits of the armour may change: what is hashed and used is the DER inside."""
    original = sealed(kind)
    state = make_state()
    der = RepositoryKey.generate(kind).certificate_der
    refusals = 0
    for changed in every_small_change(original.certificate_pem):
        try:
            root = accept(state, replace(original, certificate_pem=changed))
        except TrustError:
            refusals += 1
        else:
            assert root.certificate.der == der
    assert refusals > 8 * len(original.certificate_pem)


@pytest.mark.parametrize("kind", ["rsa", "ec", "dsa"])
def test_every_changed_bit_of_the_certificate_itself_is_refused(kind: str) -> None:
    original = sealed(kind)
    key = RepositoryKey.generate(kind)
    state = make_state()
    der = key.certificate_der
    for position in range(len(der)):
        for bit in (0, 3, 7):
            changed = bytearray(der)
            changed[position] ^= 1 << bit
            with pytest.raises(TrustError):
                accept(state, replace(original, certificate_pem=armour(bytes(changed))))


def test_every_small_change_of_the_real_manifest_and_whitelist_is_refused() -> None:
    original = zoo_documents()
    state = zoo_state()
    accept(state, original, ZOO_NOW_S)
    for name, data in (("manifest", original.manifest), ("whitelist", original.whitelist)):
        for changed in every_small_change(data):
            if changed != data:
                with pytest.raises(TrustError):
                    accept(state, replace(original, **{name: changed}), ZOO_NOW_S)


def test_every_small_change_of_what_was_stored_is_refused() -> None:
    state = make_state()
    encoded = accept(state, make_documents("ec")).stored.encode()
    for changed in every_small_change(encoded):
        if changed != encoded:
            with pytest.raises(TrustError):
                state.reaccept(StoredTrust.decode(changed))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_several_changes_at_once_are_refused(data: st.DataObject) -> None:
    original = sealed("rsa")
    name = data.draw(st.sampled_from(("manifest", "whitelist")))
    changed = bytearray(getattr(original, name))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(start, min(len(changed), start + 64)))
        changed[start:end] = data.draw(st.binary(max_size=64))
    assert_refused(replace(original, **{name: bytes(changed)}), original)


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise_is_refused_everywhere(noise: bytes) -> None:
    original = sealed("rsa")
    for name in ("manifest", "certificate_pem", "whitelist"):
        assert_refused(replace(original, **{name: noise}), original)
    for parse in (unverified_certificate_ref, StoredTrust.decode):
        with pytest.raises(TrustError):
            parse(noise)
    with pytest.raises(TrustError):
        parse_certificate(armour(noise), FQRN)


def test_signatures_cannot_be_moved_to_another_document() -> None:
    """Each signature with the other's body, and a second letter behind the first."""
    original = sealed("rsa")
    other = make_manifest(revision=8)
    body, _, signed = original.manifest.partition(b"\n--\n")
    other_body, _, other_signed = other.partition(b"\n--\n")
    for forged in (
        body + b"\n--\n" + other_signed,
        other_body + b"\n--\n" + signed,
        original.manifest + other,
        other_body + b"\n--\n" + original.manifest,
    ):
        assert_refused(replace(original, manifest=forged), original)
