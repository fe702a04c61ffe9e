"""The certificate of a repository: the key that signs its manifests.

Reads the first certificate of a PEM text, tells its fingerprints and verifies signatures made with its key. Does not
look at validity dates, issuer or key usage: trust comes from the whitelist alone. Pure, but parse in one thread only:
that silences warnings for a moment, and Python has one set of warning filters for all threads.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, hash_bytes
from cvmfs_py.errors import Refusal, TrustError
from cvmfs_py.trust.keys import recover_signed
from cvmfs_py.trust.pem import cut_der_element, parse_pem
from cvmfs_py.trust.refusal import certificate_of, check_size, refused

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
_SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says of itself, for people. Nothing of it is checked."""

    subject: str
    valid_from_s: int
    valid_until_s: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate with a key that can sign manifests."""

    der: bytes = field(repr=False)
    _parsed: x509.Certificate = field(repr=False, compare=False)
    _public_key: RSAPublicKey | EllipticCurvePublicKey | DSAPublicKey = field(repr=False, compare=False)

    def fingerprint(self, algorithm: Algorithm = Algorithm.SHA1) -> ContentHash:
        return hash_bytes(algorithm, self.der)

    def find_among(self, fingerprints: Collection[ContentHash]) -> ContentHash | None:
        """The one of these fingerprints (each in its own algorithm) that is this certificate's."""
        for algorithm in {fingerprint.algorithm for fingerprint in fingerprints}:
            own = self.fingerprint(algorithm)
            if own in fingerprints:
                return own
        return None

    def signed(self, message: bytes, signature: bytes) -> bool:
        """True only if the signature over the message was made with the certificate's key, over SHA-1.

        Raises TrustError(UNSUPPORTED) where the system's policy forbids to find out.
        """
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

        digest = hashlib.sha1(message, usedforsecurity=False).digest()
        if isinstance(self._public_key, RSAPublicKey):
            expected = _SHA1_DIGEST_INFO + digest
            return recover_signed(self._public_key, signature, len(expected)) == expected
        return _verify_dss(self._public_key, digest, signature)

    def describe(self) -> CertificateFacts:
        """Subject and dates, for display. Not read before it is asked for, because few ask."""
        try:
            return CertificateFacts(
                subject=self._parsed.subject.rfc4514_string(),
                valid_from_s=int(self._parsed.not_valid_before_utc.timestamp()),
                valid_until_s=int(self._parsed.not_valid_after_utc.timestamp()),
            )
        except ValueError:  # a certificate may be good for verifying and still have an unreadable name
            return CertificateFacts(subject="(unreadable)", valid_from_s=0, valid_until_s=0)


def parse_certificate(pem: bytes, fqrn: str) -> Certificate:
    """The first certificate of a PEM text."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    what = certificate_of(fqrn)
    check_size(what, pem)
    der = cut_der_element(parse_pem(pem, _LABELS) or b"")
    if der is None:
        raise refused(what, Refusal.CERTIFICATE_MALFORMED, "it holds no X.509 certificate in PEM form")
    try:
        # the library warns of what it tolerates (a serial number of 0, say), on the user's terminal and to no use
        with warnings.catch_warnings(action="ignore"):
            parsed = x509.load_der_x509_certificate(der)
            public_key = parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise refused(
            what, Refusal.CERTIFICATE_MALFORMED, "its content cannot be read as an X.509 certificate"
        ) from error
    if not isinstance(public_key, RSAPublicKey | EllipticCurvePublicKey | DSAPublicKey):
        raise refused(what, Refusal.CERTIFICATE_MALFORMED, "its key is of a kind that cannot sign manifests")
    return Certificate(der, parsed, public_key)


def _verify_dss(public_key: EllipticCurvePublicKey | DSAPublicKey, sha1_digest: bytes, signature: bytes) -> bool:
    """The library's default signature of the key's kind over a SHA-1 digest."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA1

    hashed = Prehashed(SHA1())
    try:
        if isinstance(public_key, EllipticCurvePublicKey):
            public_key.verify(signature, sha1_digest, ECDSA(hashed))
        else:
            public_key.verify(signature, sha1_digest, hashed)
    except UnsupportedAlgorithm as error:
        raise TrustError(
            Refusal.UNSUPPORTED,
            "the manifest is signed over SHA-1 with a key that is not RSA, which this system's cryptographic policy"
            " does not allow to verify; allow SHA-1 signatures in it (on EL: update-crypto-policies)",
        ) from error
    except (InvalidSignature, ValueError):
        return False
    return True
