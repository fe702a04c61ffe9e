"""Master keys: the RSA public keys that vouch for whitelists.

Reads keys from bytes and recovers what a signature was made over. Does not open files. RSA signatures of the format use
SHA-1 or no digest at all, which the security policy of some systems forbids to verify; so the padding is taken off with
the library and the rest is compared here. Pure; safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, hash_bytes
from cvmfs_py.errors import ConfigError
from cvmfs_py.trust.pem import decode_base64, parse_pem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_LIMIT_BYTES = 1 << 20
_PADDING_BYTES = 11  # PKCS#1 v1.5: 00 01, at least eight FF, 00


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One trusted RSA public key and where it came from (a file name, or a word for built-in keys)."""

    source: str
    fingerprint: ContentHash  # SHA-1 of the DER SubjectPublicKeyInfo
    _public_key: RSAPublicKey = field(repr=False, compare=False)

    def vouches_for(self, message: bytes, signature: bytes) -> bool:
        """True if the signature is this key's over the bare message (PKCS#1 v1.5 type 1 without DigestInfo)."""
        return recover_signed(self._public_key, signature, len(message)) == message


def load_master_keys(files: Iterable[tuple[str, bytes]]) -> tuple[MasterKey, ...]:
    """The keys of all files, in order. One file that holds no RSA public key is an error: see `parse_master_key`."""
    return tuple(parse_master_key(content, source) for source, content in files)


def parse_master_key(content: bytes, source: str) -> MasterKey:
    """A PEM SubjectPublicKeyInfo, or the same DER in bare base64. Raises ConfigError naming the source."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    der = None
    if len(content) <= _LIMIT_BYTES:
        der = parse_pem(content, (b"PUBLIC KEY",)) if b"-----" in content else decode_base64(content)
    if not der:
        raise _unusable(source, "it holds no public key in PEM form")
    try:
        public_key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(source, "its content cannot be read as a public key") from error
    if not isinstance(public_key, RSAPublicKey):
        raise _unusable(source, "it is not an RSA key")
    return MasterKey(source, hash_bytes(Algorithm.SHA1, der), public_key)


def recover_signed(public_key: RSAPublicKey, signature: bytes, expected_size_bytes: int) -> bytes | None:
    """What an RSA signature was made over, padding removed; None if it cannot be this key's.

    None also for a key that is too short to have signed that many bytes, and for a signature that is not exactly as
    long as the key.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    key_size_bytes = (public_key.key_size + 7) // 8
    if key_size_bytes < expected_size_bytes + _PADDING_BYTES or len(signature) != key_size_bytes:
        return None
    try:
        return public_key.recover_data_from_signature(signature, PKCS1v15(), None)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return None


def _unusable(source: str, reason: str) -> ConfigError:
    return ConfigError(
        f"the master key {source} is not usable: {reason}; replace or remove it (CVMFS_PUBLIC_KEY, CVMFS_KEYS_DIR)"
    )
