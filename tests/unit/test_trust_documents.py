"""Reading letters, manifests, whitelists and blacklists: the grammar, and what is exposed before verification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.address import Algorithm, Kind, hash_bytes, parse_hash
from cvmfs_py.errors import Refusal, TrustError
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.letter import parse_letter
from cvmfs_py.trust.manifest import Manifest, unverified_certificate_ref
from cvmfs_py.trust.number import MAXIMUM, parse_number
from cvmfs_py.trust.whitelist import format_fingerprint, parse_fingerprints
from tests.simulator.signing import RepositoryKey, seal_letter
from tests.simulator.signing import format_fingerprint as line_of
from tests.unit.trust_world import (
    CERTIFICATE_HASH,
    FQRN,
    NOW,
    OTHER_ROOT_HASH,
    ROOT_HASH,
    accept,
    make_documents,
    make_manifest,
    make_state,
    make_whitelist,
)


def accept_fields(body: bytes) -> Manifest:
    """The manifest that a well-signed body gives."""
    key = RepositoryKey.generate("ec")
    return accept(make_state(), make_documents("ec", manifest=seal_letter(body, key))).manifest


BODY = (
    f"C{ROOT_HASH}\nB520192\nRd41d8cd98f00b204e9800998ecf8427e\nD240\nS7\nN{FQRN}\nX{CERTIFICATE_HASH}\nT1795196639\n"
).encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("0", 0),
        ("240", 240),
        ("240s", 240),
        ("12 34", 12),
        ("x12", 0),
        ("-3", 0),
        ("+3", 0),
        ("000000000000000000000000000000007", 7),
        (str(MAXIMUM), MAXIMUM),
        (str(MAXIMUM + 1), MAXIMUM),
        ("9" * 100_000, MAXIMUM),
        ("٣", 0),  # a digit elsewhere, not here
    ],
)
def test_numbers_are_the_leading_digits(text: str, expected: int) -> None:
    assert parse_number(text) == expected


def test_a_letter_is_cut_at_its_first_separator() -> None:
    body = b"Cabc\nN--\n"
    text = str(hash_bytes(Algorithm.RMD160, body)).encode()
    letter = parse_letter(body + b"--\n" + text + b"\nsignature\n--\nmore\n", "the letter")
    assert (letter.body, letter.hash_text, letter.signature) == (body, text, b"signature\n--\nmore\n")
    letter.check_body("the letter")


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"\n",
        b"--\n",
        b"\n--\n",
        b"\n--",
        b"\n--\n\nsignature",
        b"\n--\n" + b"a" * 40,  # no newline after the hash
        b"\n--\n" + b"a" * 39 + b"\nsignature",
        b"\n--\n" + b"a" * 64 + b"\nsignature",  # a length that no algorithm has
        b"\n--\n" + b"0" * 40 + b"\nsignature",
        b"\n--\n" + b"A" * 40 + b"\nsignature",
        b"\n--\n" + b"a" * 40 + b"-sha256\nsignature",
        b"\n--\n" + b"a" * 32 + b"\nsignature",  # MD5
        b"\r\n--\r\n" + b"a" * 40 + b"\r\nsignature",
    ],
)
def test_what_is_no_letter(tail: bytes) -> None:
    with pytest.raises(TrustError) as caught:
        parse_letter(b"Cabc" + tail, "the letter")
    assert caught.value.reason is Refusal.MALFORMED


def test_an_md5_of_the_body_is_no_hash_even_if_it_is_right() -> None:
    body = b"Cabc\n"
    text = str(hash_bytes(Algorithm.MD5, body)).encode()
    with pytest.raises(TrustError) as caught:
        parse_letter(body + b"--\n" + text + b"\nsignature", "the letter")
    assert caught.value.reason is Refusal.MALFORMED


def test_a_manifest_of_every_field() -> None:
    extra = f"Gyes\nAyes\nH{OTHER_ROOT_HASH}\nM{OTHER_ROOT_HASH}-rmd160\nY{OTHER_ROOT_HASH}-shake128\n".encode()
    manifest = accept_fields(BODY + extra + b"L" + b"0" * 40 + b"\nZone\nQunknown\n\nZtwo\n")
    assert manifest.fqrn == FQRN
    assert manifest.root_hash == ROOT_HASH
    assert manifest.root_size_bytes == 520192
    assert manifest.certificate_hash == CERTIFICATE_HASH
    assert (manifest.revision, manifest.timestamp_s, manifest.ttl_s) == (7, 1795196639, 240)
    assert manifest.history_hash == OTHER_ROOT_HASH
    assert str(manifest.metainfo_hash) == f"{OTHER_ROOT_HASH}-rmd160"
    assert str(manifest.reflog_hash) == f"{OTHER_ROOT_HASH}-shake128"
    assert manifest.is_garbage_collectable
    assert manifest.channel_tips == ("one", "two")
    assert manifest.root_ref.server_path == f".cvmfsalt-{ROOT_HASH}C"
    assert manifest.certificate_ref.server_path == f".cvmfsalt-{CERTIFICATE_HASH}X"
    assert manifest.history_ref is not None
    assert manifest.history_ref.server_path == f"data/{str(OTHER_ROOT_HASH)[:2]}/{str(OTHER_ROOT_HASH)[2:]}H"
    assert manifest.metainfo_ref is not None
    assert manifest.metainfo_ref.kind is Kind.METAINFO


def test_a_manifest_of_the_required_fields_only() -> None:
    lines = [line for line in BODY.split(b"\n") if line[:1] not in b"BT"]
    manifest = accept_fields(b"\n".join(lines) + b"\n")
    assert (manifest.root_size_bytes, manifest.timestamp_s) == (None, 0)
    assert (manifest.history_ref, manifest.metainfo_ref, manifest.reflog_hash) == (None, None, None)
    assert not manifest.is_garbage_collectable
    assert manifest.channel_tips == ()
    assert manifest.root_ref.server_path == f"data/{str(ROOT_HASH)[:2]}/{str(ROOT_HASH)[2:]}C"


def test_a_repeated_key_overrides_and_odd_values_are_lenient() -> None:
    manifest = accept_fields(BODY + b"S12trailing\nGYES\nA\nH" + b"0" * 40 + b"\nD\nT  5\n")
    assert (manifest.revision, manifest.ttl_s, manifest.timestamp_s) == (12, 0, 0)
    assert not manifest.is_garbage_collectable
    assert not manifest.has_alternative_paths
    assert manifest.history_hash is None


def test_only_the_certificate_of_an_unverified_manifest_can_be_had() -> None:
    plain = unverified_certificate_ref(make_manifest())
    assert (plain.content_hash, plain.kind, plain.alternative_path) == (CERTIFICATE_HASH, Kind.CERTIFICATE, False)
    assert plain.limit_bytes == 1 << 20
    assert unverified_certificate_ref(make_manifest(A="yes")).alternative_path
    assert not unverified_certificate_ref(make_manifest(A="Yes")).alternative_path
    assert make_state().certificate_ref(make_manifest()) == plain


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"X": None}, Refusal.INCOMPLETE), ({"X": "0" * 40}, Refusal.INCOMPLETE), ({"X": "a" * 32}, Refusal.INCOMPLETE)],
)
def test_no_certificate_is_named(changes: dict[str, str | None], reason: Refusal) -> None:
    with pytest.raises(TrustError) as caught:
        unverified_certificate_ref(make_manifest(changes=changes), fqrn=FQRN)
    assert caught.value.reason is reason
    assert "(.cvmfspublished)" in str(caught.value)
    assert FQRN in str(caught.value)


def test_nobody_outside_trust_reads_manifests_that_are_not_verified() -> None:
    root = Path(__file__).parents[2]
    readers = [
        path.relative_to(root).as_posix()
        for path in (root / "cvmfs_py").rglob("*.py")
        if "parse_manifest" in path.read_text() and path.parent.name != "trust"
    ]
    assert readers == []


SHA1_LINE = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD"
SHA1_HASH = parse_hash("aabbccddeeff00112233445566778899aabbccdd")


@pytest.mark.parametrize(
    "line",
    [
        SHA1_LINE,
        SHA1_LINE.lower(),
        SHA1_LINE.replace(":", ""),
        SHA1_LINE + " a comment",
        SHA1_LINE + "\ta comment",
        SHA1_LINE + "# a comment",
        SHA1_LINE + "#a\tb c",
        "::" + SHA1_LINE + "::",
    ],
)
def test_lines_that_are_fingerprints(line: str) -> None:
    assert parse_fingerprints([line.encode()]) == (SHA1_HASH,)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#" + SHA1_LINE,
        " " + SHA1_LINE,
        SHA1_LINE + "\r",
        SHA1_LINE + ":EE",
        SHA1_LINE[:-1],
        SHA1_LINE + "-SHA256",
        ":".join(["00"] * 20),
        SHA1_LINE.replace("AA", "GG"),
        "Vpkcs7",
    ],
)
def test_lines_that_are_no_fingerprints(line: str) -> None:
    assert parse_fingerprints([line.encode()]) == ()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_fingerprints_in_every_algorithm(algorithm: Algorithm) -> None:
    fingerprint = RepositoryKey.generate("ec").fingerprint(algorithm)
    (parsed,) = parse_fingerprints([fingerprint.encode()])
    assert parsed.algorithm is algorithm
    assert format_fingerprint(parsed) == fingerprint


@given(lines=st.lists(st.binary(max_size=80)))
def test_any_lines_give_fingerprints_or_nothing(lines: list[bytes]) -> None:
    for fingerprint in parse_fingerprints(lines):
        assert parse_fingerprints([format_fingerprint(fingerprint).encode()]) == (fingerprint,)


def test_a_whitelist_with_comments_and_several_certificates() -> None:
    key = RepositoryKey.generate("ec")
    other = line_of(hash_bytes(Algorithm.RMD160, b"another certificate"))
    lines = ("# made by hand", "", other + " # of the other one", key.fingerprint(Algorithm.SHAKE128))
    whitelist = make_whitelist(fingerprints=lines, expires=NOW + timedelta(days=2))
    root = accept(make_state(), make_documents("ec", whitelist=whitelist))
    assert [format_fingerprint(found) for found in root.whitelist.fingerprints] == [other, lines[3]]
    assert root.whitelist.expires_s == datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "refused_revisions", "allowed_revisions"),
    [
        (b"<a.cern.ch 5", (0, 4), (5, 6)),
        (b"<a.cern.ch \t 5", (4,), (5,)),
        (b"# old\n<a.cern.ch 5\n<b.cern.ch 9\n", (4,), (5, 8)),
        (b"<a.cern.ch 5\n<a.cern.ch 3\n", (4,), (5,)),
        (b"<a.cern.ch 5 ", (), (0, 4)),
        (b"<a.cern.ch 5\r\n", (), (0, 4)),
        (b"<a.cern.ch 5 # comment", (), (0, 4)),
        (b" <a.cern.ch 5", (), (0, 4)),
        (b"< a.cern.ch 5", (), (0, 4)),
        (b"<a.cern.ch", (), (0, 4)),
        (b"<a.cern.ch x5", (), (0, 4)),
        (b"<a.cern.ch -5", (), (0, 4)),
        (b"<A.cern.ch 5", (), (0, 4)),
        (b"<a.cern.ch " + b"9" * 10_000, (0, MAXIMUM - 1), (MAXIMUM,)),
        (b"", (), (0,)),
    ],
)
def test_revisions_on_the_blacklist(
    text: bytes, refused_revisions: tuple[int, ...], allowed_revisions: tuple[int, ...]
) -> None:
    blacklist = Blacklist.parse([text])
    for revision in refused_revisions:
        refusal = blacklist.refuses_revision("a.cern.ch", revision)
        assert refusal is not None
        assert refusal.reason is Refusal.REVISION_BLACKLISTED
        assert f"revision {revision} of a.cern.ch" in str(refusal)
    for revision in allowed_revisions:
        assert blacklist.refuses_revision("a.cern.ch", revision) is None


def test_several_blacklists_count_together_and_do_not_run_into_each_other() -> None:
    blacklist = Blacklist.parse([b"<a.cern.ch 5", SHA1_LINE.encode() + b" # stolen", b"<b.cern.ch 6\n"])
    assert blacklist.fingerprints == (SHA1_HASH,)
    assert blacklist.refuses_revision("a.cern.ch", 4) is not None
    assert blacklist.refuses_revision("b.cern.ch", 5) is not None


@given(texts=st.lists(st.binary(max_size=100)))
def test_any_text_is_a_blacklist(texts: list[bytes]) -> None:
    blacklist = Blacklist.parse(texts)
    assert all(revision <= MAXIMUM for revision in blacklist.first_good_revisions.values())
