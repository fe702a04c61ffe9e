"""Makes and signs what a repository's owner signs: master keys, certificates, whitelists and manifests.

For tests only: no passphrases, and every field can be made wrong on purpose. Knows nothing of files or servers.
Keys are cached for the whole test session by (kind, slot), because making an RSA key takes a tenth of a second: ask for
another `slot` to get a different key. Not thread-safe while the first key of a slot is made.

    master = MasterKey.generate()
    key = RepositoryKey.generate("ec")
    whitelist = sign_whitelist(master, "zoo.test.org", [key.fingerprint()], created=..., expires=...)
    manifest = sign_manifest(key, manifest_fields("zoo.test.org", root_hash, revision=7, timestamp_s=...,
                                                  certificate_hash=...))
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache as remember
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID

from cache.address import Algorithm, ContentHash, hash_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
_SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The key that signs whitelists (RSA)."""

    private: rsa.RSAPrivateKey

    @staticmethod
    def generate(slot: int = 0, *, bits: int = 2048) -> MasterKey:
        return MasterKey(_rsa_key("master", slot, bits))

    @property
    def public_der(self) -> bytes:
        public = self.private.public_key()
        return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_pem(self) -> bytes:
        public = self.private.public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """PKCS#1 v1.5 type 1 without DigestInfo, as whitelists are signed."""
        return _sign_type_1(self.private, message)


@dataclass(frozen=True, slots=True)
class RepositoryKey:
    """The key that signs manifests, and its self-signed certificate."""

    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey
    certificate: x509.Certificate

    @staticmethod
    def generate(kind: str = "rsa", slot: int = 0, *, bits: int = 2048) -> RepositoryKey:
        """`kind` is rsa, ec or dsa."""
        return _repository_key(kind, slot, bits)

    @property
    def certificate_pem(self) -> bytes:
        """What is stored (zlib-compressed) as the object that manifest field X names."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def fingerprint(self, algorithm: Algorithm = Algorithm.SHA1) -> str:
        """The line that a whitelist carries for this certificate."""
        return format_fingerprint(hash_bytes(algorithm, self.certificate_der))

    def sign(self, message: bytes) -> bytes:
        """The signature that a manifest carries: over SHA-1, with the DigestInfo where the key is RSA."""
        if isinstance(self.private, rsa.RSAPrivateKey):  # by hand: some systems' policy forbids to sign with SHA-1
            return _sign_type_1(self.private, _SHA1_DIGEST_INFO + hashlib.sha1(message).digest())
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(message, ec.ECDSA(hashes.SHA1()))
        return self.private.sign(message, hashes.SHA1())


def format_fingerprint(content_hash: ContentHash) -> str:
    return content_hash.digest.hex(":").upper() + content_hash.algorithm.suffix.upper()


def whitelist_body(
    fqrn: str,
    fingerprints: Iterable[str],
    *,
    created: datetime,
    expires: datetime,
    flags: Sequence[str] = (),
    extra_lines: Sequence[str] = (),
) -> bytes:
    """The signed part of a whitelist. `flags` are V and W lines; `extra_lines` follow the fingerprints."""
    lines = [f"{created:%Y%m%d%H%M%S}", f"E{expires:%Y%m%d%H%M%S}", f"N{fqrn}", *flags, *fingerprints, *extra_lines]
    return "".join(line + "\n" for line in lines).encode("latin-1")


def sign_whitelist(
    master: MasterKey,
    fqrn: str,
    fingerprints: Iterable[str],
    *,
    created: datetime,
    expires: datetime,
    algorithm: Algorithm = Algorithm.SHA1,
    flags: Sequence[str] = (),
    extra_lines: Sequence[str] = (),
) -> bytes:
    """A complete `.cvmfswhitelist`. Fingerprints are lines: see `RepositoryKey.fingerprint`."""
    body = whitelist_body(fqrn, fingerprints, created=created, expires=expires, flags=flags, extra_lines=extra_lines)
    return seal_letter(body, master, algorithm)


def manifest_fields(
    fqrn: str,
    root_hash: ContentHash,
    *,
    revision: int,
    timestamp_s: int,
    certificate_hash: ContentHash,
    root_size_bytes: int = 4096,
    ttl_s: int = 240,
    extra: Sequence[tuple[str, str]] = (),
) -> Fields:
    """The fields of an ordinary manifest, in the order in which servers write them."""
    return [
        ("C", str(root_hash)),
        ("B", str(root_size_bytes)),
        ("R", EMPTY_MD5),
        ("D", str(ttl_s)),
        ("S", str(revision)),
        ("G", "no"),
        ("A", "no"),
        ("N", fqrn),
        ("X", str(certificate_hash)),
        ("T", str(timestamp_s)),
        *extra,
    ]


def change_fields(fields: Fields, **changes: str | None) -> Fields:
    """The same fields with some values replaced in place, added at the end, or (None) left out."""
    changed = [(key, changes.get(key, value)) for key, value in fields]
    present = {key for key, _ in fields}
    changed += [(key, value) for key, value in changes.items() if key not in present]
    return [(key, value) for key, value in changed if value is not None]


def sign_manifest(
    repository_key: RepositoryKey, fields: Sequence[tuple[str, str]], algorithm: Algorithm = Algorithm.SHA1
) -> bytes:
    """A complete `.cvmfspublished`. `algorithm` is that of the letter's hash text (the root catalog's, normally)."""
    body = "".join(f"{key}{value}\n" for key, value in fields).encode("latin-1")
    return seal_letter(body, repository_key, algorithm)


def seal_letter(body: bytes, signer: MasterKey | RepositoryKey, algorithm: Algorithm = Algorithm.SHA1) -> bytes:
    """body, separator, hash text and signature: the form that manifests and whitelists share."""
    hash_text = str(hash_bytes(algorithm, body)).encode()
    return body + b"--\n" + hash_text + b"\n" + signer.sign(hash_text)


def _sign_type_1(private: rsa.RSAPrivateKey, message: bytes) -> bytes:
    numbers = private.private_numbers()
    modulus = numbers.public_numbers.n
    size_bytes = (modulus.bit_length() + 7) // 8
    padded = b"\x00\x01" + b"\xff" * (size_bytes - 3 - len(message)) + b"\x00" + message
    return pow(int.from_bytes(padded, "big"), numbers.d, modulus).to_bytes(size_bytes, "big")


@remember
def _rsa_key(use: str, slot: int, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@remember
def _repository_key(kind: str, slot: int, bits: int) -> RepositoryKey:
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey
    if kind == "rsa":
        private = _rsa_key("repository", slot, bits)
    elif kind == "ec":
        private = ec.generate_private_key(ec.SECP256R1())
    elif kind == "dsa":
        private = dsa.generate_private_key(2048)
    else:
        raise ValueError(f"no such kind of key: {kind}")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} test certificate {slot}")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1000 + slot)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))  # long over: clients must not look at these dates
        .sign(private, hashes.SHA256())
    )
    return RepositoryKey(private, certificate)
