"""The trusted state of a repository: never back, nothing by halves, and the start without a network."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_py.errors import Refusal, TrustError
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.breadcrumb import Breadcrumb
from cvmfs_py.trust.root_choice import RootChoice
from cvmfs_py.trust.stored import StoredTrust
from tests.simulator.signing import MasterKey, RepositoryKey
from tests.unit.trust_world import (
    NOW_S,
    OTHER_ROOT_HASH,
    ROOT_HASH,
    ZOO_NOW_S,
    Documents,
    accept,
    make_documents,
    make_manifest,
    make_state,
    make_whitelist,
    refusal_of,
    zoo_documents,
    zoo_state,
)

if TYPE_CHECKING:
    from cvmfs_py.trust.trusted_state import TrustedState

LOCAL = Breadcrumb(OTHER_ROOT_HASH, 1_000_000, 7)
MEBIBYTE = 1 << 20


def test_a_manifest_with_the_same_root_is_verified_all_the_same() -> None:
    """The root that is already here is no reason to look away: a replayed one could carry any revision."""
    state = make_state()
    state.adopt(accept(state, make_documents()))
    forged = make_manifest(RepositoryKey.generate("rsa", 1), revision=10**9)
    assert refusal_of(state, make_documents(manifest=forged)).reason is Refusal.SIGNATURE
    unsigned = make_manifest(revision=10**9)[:-256] + bytes(256)
    assert refusal_of(state, make_documents(manifest=unsigned)).reason is Refusal.SIGNATURE


def test_a_manifest_is_refused_before_its_certificate_is_fetched() -> None:
    state = make_state(local=LOCAL)
    for manifest, reason in ((make_manifest(N="x"), Refusal.WRONG_NAME), (make_manifest(T="5"), Refusal.OUTDATED)):
        with pytest.raises(TrustError) as caught:
            state.certificate_ref(manifest)
        assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("revision", "timestamp_s", "choice", "adopted"),
    [
        (8, 1_000_001, RootChoice.SERVER, Breadcrumb(ROOT_HASH, 1_000_001, 8)),
        (8, 1_000_000, RootChoice.SERVER, Breadcrumb(ROOT_HASH, 1_000_000, 8)),
        (7, 1_000_001, RootChoice.LOCAL, LOCAL),  # another root of the same revision: the local one stays
        (7, 1_000_000, RootChoice.LOCAL, LOCAL),
        (6, 1_000_001, None, LOCAL),
        (8, 999_999, None, LOCAL),
    ],
)
def test_the_table_of_the_root_choice(
    revision: int, timestamp_s: int, choice: RootChoice | None, adopted: Breadcrumb
) -> None:
    state = make_state(local=LOCAL)
    documents = make_documents(manifest=make_manifest(revision=revision, timestamp_s=timestamp_s))
    if choice is None:
        assert refusal_of(state, documents).reason is Refusal.OUTDATED
    else:
        root = accept(state, documents)
        assert root.choice is choice
        assert state.candidate == LOCAL  # nothing changes before the root catalog is here
        assert state.adopt(root) == adopted
    assert state.candidate == adopted


def test_a_root_that_could_not_be_loaded_is_offered_again() -> None:
    state = make_state(local=LOCAL)
    documents = make_documents(manifest=make_manifest(revision=8))
    assert accept(state, documents).choice is RootChoice.SERVER
    assert accept(state, documents).choice is RootChoice.SERVER
    state.adopt(accept(state, documents))
    assert accept(state, documents).choice is RootChoice.LOCAL


def test_without_revisions_the_server_is_followed() -> None:
    state = make_state(local=Breadcrumb(OTHER_ROOT_HASH, 5, 0))
    root = accept(state, make_documents(manifest=make_manifest(revision=0)))
    assert root.choice is RootChoice.SERVER
    assert state.adopt(root) == Breadcrumb(ROOT_HASH, 1_000_000, 0)


@settings(max_examples=25, deadline=None)
@given(
    offers=st.lists(
        st.tuples(st.integers(0, 4), st.integers(999_998, 1_000_003), st.booleans(), st.booleans()), max_size=12
    )
)
def test_no_sequence_of_manifests_leads_back(offers: list[tuple[int, int, bool, bool]]) -> None:
    key = RepositoryKey.generate("ec")  # signs quickly
    state = make_state()
    whitelist = make_whitelist(key)
    for revision, timestamp_s, is_genuine, is_loaded in offers:
        before = state.candidate
        signer = key if is_genuine else RepositoryKey.generate("ec", 1)
        manifest = make_manifest(signer, revision=revision, timestamp_s=timestamp_s)
        try:
            root = accept(state, Documents(manifest, key.certificate_pem, whitelist))
        except TrustError:
            assert state.candidate == before
            # a genuine manifest is refused only for being older
            if is_genuine:
                assert before is not None
                assert revision < before.revision or timestamp_s < before.timestamp_s
            continue
        assert is_genuine
        assert state.candidate == before
        if not is_loaded:
            continue
        after = state.adopt(root)
        assert after == state.candidate
        if before is not None:
            assert after.revision >= before.revision
            assert after.timestamp_s >= before.timestamp_s
        assert (after != before) or root.choice is RootChoice.LOCAL or revision == 0


def test_roots_adopted_out_of_order_do_not_lead_back() -> None:
    state = make_state()
    older = accept(state, make_documents(manifest=make_manifest(revision=8, timestamp_s=9)))
    newer = accept(state, make_documents(manifest=make_manifest(revision=9, timestamp_s=5)))
    state.adopt(newer)
    assert state.adopt(older) == Breadcrumb(ROOT_HASH, 5, 9)
    other_state = make_state()
    other_state.adopt(older)
    assert other_state.adopt(newer) == Breadcrumb(ROOT_HASH, 9, 9)  # the newer revision, but the later time


def test_what_was_accepted_is_accepted_again_offline_after_its_whitelist_expired() -> None:
    state = make_state()
    root = accept(state, make_documents())
    state.adopt(root)
    stored = StoredTrust.decode(root.stored.encode())
    assert stored == root.stored
    assert stored.accepted_at_s == NOW_S
    later = NOW_S + 100 * 86400
    assert refusal_of(state, make_documents(), later).reason is Refusal.WHITELIST_EXPIRED
    again = state.reaccept(stored)
    assert (again.manifest, again.certificate, again.whitelist) == (root.manifest, root.certificate, root.whitelist)
    assert again.choice is RootChoice.LOCAL


@pytest.mark.parametrize(
    ("stored_changes", "state", "reason"),
    [
        ({}, make_state(masters=(MasterKey.generate(1),)), Refusal.FOREIGN_KEY),
        (
            {},
            make_state(blacklist=Blacklist.parse([RepositoryKey.generate().fingerprint().encode()])),
            Refusal.CERTIFICATE_BLACKLISTED,
        ),
        ({}, make_state(local=replace(LOCAL, revision=8)), Refusal.OUTDATED),
        ({}, make_state(local=replace(LOCAL, timestamp_s=1_000_001)), Refusal.OUTDATED),
        ({"accepted_at_s": int(NOW_S) + 31 * 86400}, make_state(), Refusal.WHITELIST_EXPIRED),
        ({"manifest": make_manifest(RepositoryKey.generate("rsa", 1))}, make_state(), Refusal.SIGNATURE),
        ({"whitelist": make_whitelist(master=MasterKey.generate(1))}, make_state(), Refusal.FOREIGN_KEY),
        ({"whitelist": make_whitelist(fingerprints=())}, make_state(), Refusal.CERTIFICATE_NOT_LISTED),
        ({"certificate_pem": b""}, make_state(), Refusal.CERTIFICATE_MALFORMED),
    ],
)
def test_what_was_stored_is_verified_whole(
    stored_changes: dict[str, object], state: TrustedState, reason: Refusal
) -> None:
    stored = accept(make_state(), make_documents()).stored
    changed = StoredTrust.decode(replace(stored, **stored_changes).encode())  # type: ignore[arg-type]
    before = state.candidate
    with pytest.raises(TrustError) as caught:
        state.reaccept(changed)
    assert caught.value.reason is reason
    assert state.candidate == before


@pytest.mark.parametrize(
    "stored",
    [
        StoredTrust(b"", b"", b"", 2**64 - 1),
        StoredTrust(b"x" * (MEBIBYTE + 1), b"", b"", 0),
    ],
)
def test_stored_sizes_and_dates_are_bounded(stored: StoredTrust) -> None:
    with pytest.raises(TrustError) as caught:
        StoredTrust.decode(stored.encode())
    assert caught.value.reason is Refusal.MALFORMED


def test_the_real_repository_is_accepted() -> None:
    root = zoo_state().accept(*documents_of_zoo(), ZOO_NOW_S)
    assert (root.manifest.fqrn, root.manifest.revision, root.manifest.root_size_bytes) == ("zoo.test.org", 7, 520192)
    assert root.whitelist.expires_s == datetime(2126, 10, 27, 17, tzinfo=UTC).timestamp()
    assert root.certificate.find_among(root.whitelist.fingerprints) is not None
    assert root.certificate.describe().subject == "CN=zoo.test.org CernVM-FS Release Managers"
    assert root.manifest.history_ref is not None
    assert root.manifest.metainfo_ref is not None


def test_the_real_repositorys_history_is_followed_forwards_only() -> None:
    state = zoo_state()
    for revision in range(2, 8):
        root = accept(state, zoo_documents(revision), ZOO_NOW_S)
        assert root.manifest.revision == revision
        assert root.choice is RootChoice.SERVER
        state.adopt(root)
    assert accept(state, zoo_documents(), ZOO_NOW_S).choice is RootChoice.LOCAL
    for revision in range(2, 7):
        with pytest.raises(TrustError) as caught:
            accept(state, zoo_documents(revision), ZOO_NOW_S)
        assert caught.value.reason is Refusal.OUTDATED


def documents_of_zoo() -> tuple[bytes, bytes, bytes]:
    documents = zoo_documents()
    return documents.manifest, documents.certificate_pem, documents.whitelist
