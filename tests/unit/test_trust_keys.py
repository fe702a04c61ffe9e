"""Master keys and certificates: which files are keys, which blocks are certificates, which signatures count."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from hypothesis import given
from hypothesis import strategies as st

from cache.address import Algorithm, hash_bytes
from cvmfs_py.errors import ConfigError, Refusal, TrustError
from cvmfs_py.trust.certificate import parse_certificate
from cvmfs_py.trust.keys import load_master_keys, parse_master_key
from cvmfs_py.trust.pem import cut_der_element, parse_pem
from tests.simulator.signing import MasterKey, RepositoryKey
from tests.unit.trust_world import FQRN, NOW, ZOO, armour

MESSAGE = b"9f8e7d6c5b4a39281706f5e4d3c2b1a098765432"


def public_pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_in_each_form_is_the_same_key() -> None:
    master = MasterKey.generate()
    bare = base64.b64encode(master.public_der)
    forms = {
        "plain": master.public_pem,
        "crlf": master.public_pem.replace(b"\n", b"\r\n"),
        "text around": b"the key of somebody\n" + master.public_pem + b"the end",
        "another block before": RepositoryKey.generate().certificate_pem + master.public_pem,
        "bare": bare,
        "bare, in lines": base64.encodebytes(master.public_der),
    }
    keys = load_master_keys(forms.items())
    assert [key.source for key in keys] == list(forms)
    assert {key.fingerprint for key in keys} == {hash_bytes(Algorithm.SHA1, master.public_der)}
    for key in keys:
        assert key.vouches_for(MESSAGE, master.sign(MESSAGE))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"\xff\xfe\0",
        base64.b64encode(b"some bytes that are no key"),
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n",
        MasterKey.generate().public_pem[:-30],
        RepositoryKey.generate("ec").certificate_pem,
        public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        b"A" * (1 << 21),
    ],
    ids=range(11),
)
def test_one_file_that_is_no_rsa_key_is_an_error_that_names_it(content: bytes) -> None:
    files = [("/etc/keys/good.pub", MasterKey.generate().public_pem), ("/etc/keys/bad.pub", content)]
    with pytest.raises(ConfigError, match=r"/etc/keys/bad\.pub"):
        load_master_keys(files)


@given(noise=st.binary(max_size=200))
def test_noise_is_no_key(noise: bytes) -> None:
    for content in noise, base64.b64encode(noise), b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(noise):
        with pytest.raises(ConfigError):
            parse_master_key(content, "noise")


def test_a_master_key_vouches_for_its_exact_signature_only() -> None:
    master = MasterKey.generate()
    key = parse_master_key(master.public_pem, "key")
    signature = master.sign(MESSAGE)
    assert key.vouches_for(MESSAGE, signature)
    for wrong in (b"", signature + b"\n", signature + b"\0", b"\0" + signature, signature[:-1], b"\xff" * 256):
        assert not key.vouches_for(MESSAGE, wrong)
    assert not key.vouches_for(MESSAGE[:-1] + b"0", signature)
    assert not key.vouches_for(MESSAGE, MasterKey.generate(1).sign(MESSAGE))


def test_a_signature_with_the_padding_of_a_digest_is_not_a_masters() -> None:
    """A manifest's kind of signature over the same text is no whitelist's, and the other way round."""
    master = MasterKey.generate()
    key = parse_master_key(master.public_pem, "key")
    info = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(MESSAGE, usedforsecurity=False).digest()
    assert not key.vouches_for(MESSAGE, master.sign(info))
    repository = RepositoryKey.generate()
    certificate = parse_certificate(repository.certificate_pem, FQRN)
    assert certificate.signed(MESSAGE, repository.sign(MESSAGE))
    assert not certificate.signed(MESSAGE, MasterKey(repository.private).sign(MESSAGE))  # type: ignore[arg-type]


def test_signatures_agree_with_those_of_the_library() -> None:
    """The test's own signer is not the only judge of the form of a signature."""
    master = MasterKey.generate()
    assert master.private.sign(MESSAGE, padding.PKCS1v15(), NoDigestInfo()) == master.sign(MESSAGE)


def test_a_key_too_short_for_the_hash_text_is_passed_over() -> None:
    """512 bits hold 53 bytes of message: enough for the 40 of SHA-1 and the 49 of SHAKE-128, not for 54."""
    p, q = 2**255 - 19, 2**256 - 189
    short = rsa.RSAPublicNumbers(65537, p * q).public_key()
    key = parse_master_key(public_pem(short), "short")
    assert not key.vouches_for(b"x" * 54, b"\1" * 64)
    phi = (p - 1) * (q - 1)
    padded = b"\0\1" + b"\xff" * 21 + b"\0" + MESSAGE
    signature = pow(int.from_bytes(padded, "big"), pow(65537, -1, phi), p * q).to_bytes(64, "big")
    assert key.vouches_for(MESSAGE, signature)


@pytest.mark.parametrize("kind", ["rsa", "ec", "dsa"])
def test_a_certificate_verifies_its_own_signatures_only(kind: str) -> None:
    key = RepositoryKey.generate(kind)
    certificate = parse_certificate(key.certificate_pem, FQRN)
    signature = key.sign(MESSAGE)
    assert certificate.signed(MESSAGE, signature)
    assert not certificate.signed(MESSAGE + b"\n", signature)
    assert not certificate.signed(MESSAGE, signature + b"\n")
    assert not certificate.signed(MESSAGE, signature[:-1])
    assert not certificate.signed(MESSAGE, b"")
    other = parse_certificate(RepositoryKey.generate("rsa", 1).certificate_pem, FQRN)
    assert not other.signed(MESSAGE, signature)


@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_the_first_block_counts_in_each_armour(label: str) -> None:
    key, other = RepositoryKey.generate("ec"), RepositoryKey.generate("rsa")
    pem = key.certificate_pem.replace(b"CERTIFICATE", label.encode())
    text = b"subject: somebody\n" + MasterKey.generate().public_pem + pem + other.certificate_pem
    assert parse_certificate(text, FQRN).der == key.certificate_der


def test_a_trusted_certificate_with_what_openssl_puts_behind_it() -> None:
    """The uses it is trusted for and an alias: not part of the certificate, nor of its fingerprint."""
    key = RepositoryKey.generate()
    behind = bytes.fromhex("3016300a06082b060105050703010c08736f6d65626f6479")
    pem = armour(key.certificate_der + behind, "TRUSTED CERTIFICATE")
    assert parse_certificate(pem, FQRN).der == key.certificate_der


def test_a_certificate_describes_itself() -> None:
    facts = parse_certificate(RepositoryKey.generate("ec").certificate_pem, FQRN).describe()
    assert facts.subject == "CN=ec test certificate 0"
    assert facts.valid_from_s == datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert facts.valid_until_s == datetime(2020, 12, 31, tzinfo=UTC).timestamp()


def test_fingerprints_of_a_certificate_in_each_algorithm() -> None:
    key = RepositoryKey.generate("ec")
    certificate = parse_certificate(key.certificate_pem, FQRN)
    for algorithm in Algorithm:
        own = hash_bytes(algorithm, key.certificate_der)
        assert certificate.fingerprint(algorithm) == own
        assert certificate.find_among([hash_bytes(algorithm, b"another"), own]) == own
        assert certificate.find_among([hash_bytes(algorithm, b"another")]) is None
    assert certificate.find_among([]) is None


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no certificate",
        MasterKey.generate().public_pem,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" + RepositoryKey.generate().certificate_pem,
        RepositoryKey.generate().certificate_pem[:-30],
    ],
    ids=range(6),
)
def test_what_is_no_certificate(pem: bytes) -> None:
    with pytest.raises(TrustError) as caught:
        parse_certificate(pem, FQRN)
    assert caught.value.reason is Refusal.CERTIFICATE_MALFORMED
    assert FQRN in str(caught.value)


def test_a_certificate_whose_key_cannot_sign_manifests() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([])
    certificate = x509.CertificateBuilder(name, name, private.public_key(), 1, NOW, NOW + timedelta(days=1)).sign(
        private, None
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TrustError) as caught:
        parse_certificate(pem, FQRN)
    assert caught.value.reason is Refusal.CERTIFICATE_MALFORMED


@given(der=st.binary(max_size=40))
def test_an_element_is_cut_within_the_bytes(der: bytes) -> None:
    element = cut_der_element(der)
    assert element is None or (len(element) >= 2 and der.startswith(element))


def test_a_text_of_many_begins_is_read_in_linear_time() -> None:
    begins = b"-----BEGIN CERTIFICATE-----\n" * 35_000
    assert parse_pem(begins, (b"CERTIFICATE",)) is None
    assert parse_pem(b"-----BEGIN OTHER-----\n" * 35_000 + MasterKey.generate().public_pem, (b"PUBLIC KEY",))


def test_the_real_key() -> None:
    key = parse_master_key((ZOO / "zoo.test.org.pub").read_bytes(), "zoo.test.org.pub")
    lines = (ZOO / "zoo.test.org.pub").read_bytes().split(b"\n")
    assert key.fingerprint == hash_bytes(Algorithm.SHA1, base64.b64decode(b"".join(lines[1:-2])))
