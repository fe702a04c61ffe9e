"""Every reason to refuse what a server sent, the order of the checks, and what the user is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cache.address import Algorithm, hash_bytes
from cvmfs_py.errors import Refusal
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.breadcrumb import Breadcrumb
from cvmfs_py.trust.root_choice import RootChoice
from tests.simulator.signing import MasterKey, RepositoryKey, seal_letter
from tests.unit.trust_world import (
    FQRN,
    NOW,
    OTHER_ROOT_HASH,
    ROOT_HASH,
    Documents,
    accept,
    make_documents,
    make_manifest,
    make_state,
    make_whitelist,
    refusal_of,
)

LOCAL = Breadcrumb(OTHER_ROOT_HASH, 1_000_000, 7)


def whitelist_of_lines(*lines: str) -> bytes:
    return seal_letter("".join(line + "\n" for line in lines).encode(), MasterKey.generate())


CREATED, EXPIRES = "20261119183000", "E20261220183000"
MEBIBYTE = 1 << 20


@pytest.mark.parametrize("kind", ["rsa", "ec", "dsa"])
@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_good_repository_is_accepted(kind: str, algorithm: Algorithm) -> None:
    key = RepositoryKey.generate(kind)
    documents = make_documents(
        kind,
        manifest=make_manifest(key, algorithm=algorithm),
        whitelist=make_whitelist(key, algorithm=algorithm, fingerprints=(key.fingerprint(algorithm),)),
    )
    root = accept(make_state(), documents)
    assert root.manifest.root_hash == ROOT_HASH
    assert root.choice is RootChoice.SERVER
    assert root.certificate.der == key.certificate_der
    assert root.whitelist.fqrn == FQRN
    assert root.whitelist.master_key.source == "key0.pub"
    assert root.whitelist.master_key.fingerprint == hash_bytes(Algorithm.SHA1, MasterKey.generate().public_der)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"C": None}, Refusal.INCOMPLETE),
        ({"C": ""}, Refusal.INCOMPLETE),
        ({"C": "0" * 40}, Refusal.INCOMPLETE),
        ({"C": "a" * 39}, Refusal.INCOMPLETE),
        ({"C": "a" * 32}, Refusal.INCOMPLETE),
        ({"C": "a" * 40 + "\r"}, Refusal.INCOMPLETE),
        ({"R": None}, Refusal.INCOMPLETE),
        ({"D": None}, Refusal.INCOMPLETE),
        ({"S": None}, Refusal.INCOMPLETE),
        ({"X": None}, Refusal.INCOMPLETE),
        ({"X": "0" * 40}, Refusal.INCOMPLETE),
        ({"N": None}, Refusal.WRONG_NAME),
        ({"N": "other.cern.ch"}, Refusal.WRONG_NAME),
        ({"N": FQRN.upper()}, Refusal.WRONG_NAME),
        ({"N": FQRN + " "}, Refusal.WRONG_NAME),
        ({"N": FQRN + "\r"}, Refusal.WRONG_NAME),
        ({"N": "x" * 5000}, Refusal.WRONG_NAME),
        ({"N": "\x1b[2J"}, Refusal.WRONG_NAME),
        ({"R": "0" * 32}, Refusal.WRONG_ROOT_PATH),
        ({"R": ""}, Refusal.WRONG_ROOT_PATH),
        ({"T": "999999"}, Refusal.OUTDATED),
        ({"T": None}, Refusal.OUTDATED),
        ({"S": "6"}, Refusal.OUTDATED),
        ({"S": "none", "T": "2000000"}, Refusal.OUTDATED),
    ],
)
def test_a_well_signed_manifest_that_is_refused(changes: dict[str, str | None], reason: Refusal) -> None:
    refusal = refusal_of(make_state(local=LOCAL), make_documents(manifest=make_manifest(changes=changes)))
    assert refusal.reason is reason
    assert ".cvmfspublished" in str(refusal)
    assert len(str(refusal)) < 400
    assert str(refusal).isprintable()


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (b"<html>404</html>\n", Refusal.MALFORMED),
        (b"C\n" * (MEBIBYTE // 2 + 1), Refusal.TOO_LARGE),
        (make_manifest().replace(b"\nS7\n", b"\nS8\n"), Refusal.BODY_HASH),
        (make_manifest() + b"\n", Refusal.SIGNATURE),
        (make_manifest()[:-1], Refusal.SIGNATURE),
        (make_manifest(RepositoryKey.generate("rsa", 1)), Refusal.SIGNATURE),
        (make_manifest(RepositoryKey.generate("ec")), Refusal.SIGNATURE),
    ],
    ids=["empty", "a web page", "too large", "changed", "longer", "shorter", "another key", "another kind of key"],
)
def test_a_manifest_that_is_not_what_was_signed(manifest: bytes, reason: Refusal) -> None:
    refusal = refusal_of(make_state(), make_documents(manifest=manifest))
    assert refusal.reason is reason
    assert ".cvmfspublished" in str(refusal)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (b"", Refusal.CERTIFICATE_MALFORMED),
        (b"not a certificate", Refusal.CERTIFICATE_MALFORMED),
        (b"-" * (MEBIBYTE + 1), Refusal.TOO_LARGE),
        (RepositoryKey.generate("rsa", 1).certificate_pem, Refusal.SIGNATURE),
    ],
    ids=["empty", "noise", "too large", "another one"],
)
def test_certificates_that_are_refused(certificate: bytes, reason: Refusal) -> None:
    assert refusal_of(make_state(), make_documents(certificate=certificate)).reason is reason


@pytest.mark.parametrize(
    ("whitelist", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (whitelist_of_lines(CREATED), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, EXPIRES), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED[:-1], EXPIRES, "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED + "\r", EXPIRES, "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, EXPIRES[1:], "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, EXPIRES + "\r", "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, "E20261320183000", "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, "E2027 1 1 1 1 1", "N" + FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, EXPIRES, FQRN), Refusal.MALFORMED),
        (whitelist_of_lines(CREATED, "N" + FQRN, EXPIRES), Refusal.MALFORMED),
        (b"2" * (MEBIBYTE + 1), Refusal.TOO_LARGE),
        (make_whitelist(fqrn="other.cern.ch"), Refusal.WRONG_NAME),
        (make_whitelist(fqrn=FQRN + "\r"), Refusal.WRONG_NAME),
        (make_whitelist(fqrn=""), Refusal.WRONG_NAME),
        (make_whitelist(expires=NOW - timedelta(days=1)), Refusal.WHITELIST_EXPIRED),
        (make_whitelist(flags=("Vpkcs7",)), Refusal.UNSUPPORTED),
        (make_whitelist(flags=("Wcachain",)), Refusal.UNSUPPORTED),
        (make_whitelist(flags=("Vpkcs7", "Wcachain")), Refusal.UNSUPPORTED),
        (make_whitelist().replace(b"\nE2026", b"\nE2027"), Refusal.BODY_HASH),
        (make_whitelist(master=MasterKey.generate(1)), Refusal.FOREIGN_KEY),
        (make_whitelist() + b"\n", Refusal.FOREIGN_KEY),
        (make_whitelist()[:-1], Refusal.FOREIGN_KEY),
    ],
)
def test_whitelists_that_are_refused(whitelist: bytes, reason: Refusal) -> None:
    refusal = refusal_of(make_state(), make_documents(whitelist=whitelist))
    assert refusal.reason is reason
    assert ".cvmfswhitelist" in str(refusal)


@pytest.mark.parametrize(
    ("expires", "now", "is_valid"),
    [
        (datetime(2026, 11, 20, 19, 0, 0, tzinfo=UTC), datetime(2026, 11, 20, 18, 59, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 20, 19, 0, 0, tzinfo=UTC), datetime(2026, 11, 20, 19, 0, 0, tzinfo=UTC), False),
        (datetime(2026, 11, 20, 19, 59, 59, tzinfo=UTC), datetime(2026, 11, 20, 18, 59, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 20, 19, 59, 59, tzinfo=UTC), datetime(2026, 11, 20, 19, 0, 0, tzinfo=UTC), False),
        (datetime(2026, 12, 31, 23, 0, 0, tzinfo=UTC), datetime(2027, 1, 1, 0, 0, 0, tzinfo=UTC), False),
        (datetime(2027, 1, 1, 0, 0, 0, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2126, 10, 27, 17, 0, 0, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC), True),
        (datetime(9999, 12, 31, 23, 0, 0, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC), True),
        (datetime(1970, 1, 1, 0, 0, 0, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_whitelist_ends_at_the_beginning_of_its_last_hour(expires: datetime, now: datetime, is_valid: bool) -> None:
    documents = make_documents(whitelist=make_whitelist(expires=expires))
    if is_valid:
        assert accept(make_state(), documents, now.timestamp()).manifest.revision == 7
    else:
        refusal = refusal_of(make_state(), documents, now.timestamp())
        assert refusal.reason is Refusal.WHITELIST_EXPIRED
        assert f"until {expires:%Y-%m-%d %H}:00 UTC" in str(refusal)
        assert f"the clock says {now:%Y-%m-%d %H:%M} UTC" in str(refusal)


def test_flags_elsewhere_and_unknown_ones_are_only_lines() -> None:
    fingerprint = RepositoryKey.generate().fingerprint()
    whitelist = make_whitelist(flags=("Vother",), fingerprints=(fingerprint, "# Vpkcs7", "Wcachain"))
    assert len(accept(make_state(), make_documents(whitelist=whitelist)).whitelist.fingerprints) == 1


@pytest.mark.parametrize(
    "fingerprints",
    [
        (),
        ("# " + RepositoryKey.generate().fingerprint(),),
        (RepositoryKey.generate("rsa", 1).fingerprint(),),
        (RepositoryKey.generate().fingerprint() + "-RMD160",),
    ],
    ids=["empty", "only in a comment", "another's", "in another algorithm"],
)
def test_a_certificate_that_is_not_listed(fingerprints: tuple[str, ...]) -> None:
    documents = make_documents(whitelist=make_whitelist(fingerprints=fingerprints))
    refusal = refusal_of(make_state(), documents)
    assert refusal.reason is Refusal.CERTIFICATE_NOT_LISTED
    assert RepositoryKey.generate().fingerprint() in str(refusal)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_certificate_on_the_blacklist_is_refused_though_it_is_listed(algorithm: Algorithm) -> None:
    blacklist = Blacklist.parse([RepositoryKey.generate().fingerprint(algorithm).encode()])
    refusal = refusal_of(make_state(blacklist=blacklist), make_documents())
    assert refusal.reason is Refusal.CERTIFICATE_BLACKLISTED
    assert "CVMFS_BLACKLIST" in str(refusal)
    unlisted = make_documents(whitelist=make_whitelist(fingerprints=()))
    assert refusal_of(make_state(blacklist=blacklist), unlisted).reason is Refusal.CERTIFICATE_BLACKLISTED


def test_a_blacklist_that_was_read_again_counts_at_once() -> None:
    state = make_state()
    accept(state, make_documents())
    state.replace_blacklist(Blacklist.parse([RepositoryKey.generate().fingerprint().encode()]))
    assert refusal_of(state, make_documents()).reason is Refusal.CERTIFICATE_BLACKLISTED
    state.replace_blacklist(Blacklist.parse([f"<{FQRN} 8\n".encode()]))
    root = accept(state, make_documents())
    refusal = state.blacklist.refuses_revision(state.fqrn, root.manifest.revision)
    assert refusal is not None
    assert refusal.reason is Refusal.REVISION_BLACKLISTED


def test_any_one_of_several_master_keys_is_enough() -> None:
    masters = tuple(MasterKey.generate(slot) for slot in range(3))
    for number, master in enumerate(masters):
        documents = make_documents(whitelist=make_whitelist(master=master))
        assert accept(make_state(masters=masters), documents).whitelist.master_key.source == f"key{number}.pub"


def test_without_a_master_key_nothing_is_accepted() -> None:
    refusal = refusal_of(make_state(masters=()), make_documents())
    assert refusal.reason is Refusal.FOREIGN_KEY
    assert "no master key is configured" in str(refusal)


def test_the_first_failed_check_in_the_order_of_the_format_is_the_reason() -> None:
    """Everything is wrong; what is wrong is then repaired, one thing after the other."""
    key, foreign_key = RepositoryKey.generate(), RepositoryKey.generate("rsa", 1)
    foreign_master, past = MasterKey.generate(1), NOW - timedelta(days=1)
    blacklist = Blacklist.parse([key.fingerprint().encode()])
    bad_root, old = "0" * 32, "5"
    steps = [
        (Refusal.MALFORMED, b"manifest", b"", b""),
        (Refusal.BODY_HASH, make_manifest(foreign_key, N="x").replace(b"Nx", b"Ny"), b"", b""),
        (Refusal.WRONG_NAME, make_manifest(foreign_key, N="x", R=bad_root, S=None, T=old), b"", b""),
        (Refusal.WRONG_ROOT_PATH, make_manifest(foreign_key, R=bad_root, S=None, T=old), b"", b""),
        (Refusal.INCOMPLETE, make_manifest(foreign_key, S=None, T=old), b"", b""),
        (Refusal.OUTDATED, make_manifest(foreign_key, T=old, S="6"), b"", b""),
        (Refusal.CERTIFICATE_MALFORMED, make_manifest(foreign_key, S="6"), b"", b""),
        (Refusal.SIGNATURE, make_manifest(foreign_key, S="6"), key.certificate_pem, b""),
        (Refusal.MALFORMED, make_manifest(S="6"), key.certificate_pem, b""),
    ]
    whitelists = [
        (Refusal.WHITELIST_EXPIRED, make_whitelist(expires=past, fqrn="x", flags=("Vpkcs7",), master=foreign_master)),
        (Refusal.WRONG_NAME, make_whitelist(fqrn="x", flags=("Vpkcs7",), master=foreign_master)),
        (Refusal.UNSUPPORTED, make_whitelist(flags=("Vpkcs7",), master=foreign_master)),
        (Refusal.BODY_HASH, make_whitelist(master=foreign_master).replace(b"2026", b"2025", 1)),
        (Refusal.FOREIGN_KEY, make_whitelist(master=foreign_master, fingerprints=())),
        (Refusal.CERTIFICATE_BLACKLISTED, make_whitelist(fingerprints=())),
    ]
    state = make_state(local=LOCAL, blacklist=blacklist)
    for reason, manifest, certificate, whitelist in steps:
        assert refusal_of(state, Documents(manifest, certificate, whitelist)).reason is reason
    for reason, whitelist in whitelists:
        assert refusal_of(state, Documents(make_manifest(S="6"), key.certificate_pem, whitelist)).reason is reason
    state.replace_blacklist(Blacklist())
    unlisted = Documents(make_manifest(S="6"), key.certificate_pem, make_whitelist(fingerprints=()))
    assert refusal_of(state, unlisted).reason is Refusal.CERTIFICATE_NOT_LISTED
    assert refusal_of(state, replace(unlisted, whitelist=make_whitelist())).reason is Refusal.OUTDATED
    assert accept(state, make_documents()).choice is RootChoice.LOCAL
