"""The keys of a repository's owner: the master key signs whitelists, the repository key manifests.

Makes, stores and loads them and signs texts; what the texts say is for others. No passphrases: the files are readable
by their owner alone. The master key may be kept elsewhere between two whitelists. Immutable values.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError, PublishError, TrustError
from cvmfs_py.trust.certificate import Certificate, parse_certificate
from cvmfs_py.trust.keys import MasterKey, parse_master_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_BITS = 2048
_EXPONENT = 65537
_CERTIFICATE_DAYS = 3650  # clients do not look at it: how long a key may sign is for the whitelist to say
_SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")
_LIMIT_BYTES = 1 << 20
_FOR_EVERYBODY = 0o007


@dataclass(frozen=True, slots=True)
class PublisherKeys:
    """The keys of one repository."""

    fqrn: str
    directory: Path
    master_public: MasterKey
    certificate: Certificate
    certificate_pem: bytes = field(repr=False)
    _repository: RSAPrivateKey = field(repr=False)
    _master: RSAPrivateKey | None = field(repr=False)

    @classmethod
    def create(cls, directory: Path, fqrn: str) -> PublisherKeys:
        """Makes new keys; no file is overwritten. The directory is made when it is not there."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

        _make_directory(directory)
        there = [name for name in key_names(fqrn) if os.path.lexists(directory / name)]
        if there:
            raise ConfigError(f"there is {there[0]} in {directory} already: move it away, or choose another --keys-dir")
        master = generate_private_key(_EXPONENT, _BITS)
        repository = generate_private_key(_EXPONENT, _BITS)
        encoding = serialization.Encoding.PEM
        public_pem = master.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        certificate_pem = _make_certificate(repository, fqrn)
        contents = (_private_pem(master), _private_pem(repository), public_pem, certificate_pem)
        for name, content, mode in zip(key_names(fqrn), contents, (0o600, 0o600, 0o644, 0o644), strict=True):
            _write_new(directory / name, content, mode)
        sync_directory(directory)
        return cls.load(directory, fqrn)

    @classmethod
    def load(cls, directory: Path, fqrn: str) -> PublisherKeys:
        """Reads the keys. Only the master key may be missing."""
        master_file, key_file, public_file, certificate_file = (directory / name for name in key_names(fqrn))
        certificate_pem = _read(certificate_file)
        try:
            certificate = parse_certificate(certificate_pem, fqrn)
        except TrustError as error:
            raise ConfigError(f"{certificate_file} is not usable: {error}") from error
        keys = cls(
            fqrn,
            directory,
            parse_master_key(_read(public_file), str(public_file)),
            certificate,
            certificate_pem,
            _load_private(key_file),
            _load_private(master_file) if master_file.exists() else None,
        )
        # What does not fit together would sign what no client accepts.
        if not certificate.signed(b"probe", keys.sign_manifest_text(b"probe")):
            raise ConfigError(f"{certificate_file} is not the certificate of {key_file}")
        if keys.has_master and not keys.master_public.vouches_for(b"probe", keys.sign_whitelist_text(b"probe")):
            raise ConfigError(f"{public_file} is not the public key of {master_file}")
        return keys

    @property
    def has_master(self) -> bool:
        return self._master is not None

    def sign_manifest_text(self, hash_text: bytes) -> bytes:
        """PKCS#1 v1.5 with SHA-1, whatever the hash algorithm of the repository is."""
        digest = hashlib.sha1(hash_text, usedforsecurity=False).digest()
        return _sign_type_1(self._repository, _SHA1_DIGEST_INFO + digest)

    def sign_whitelist_text(self, hash_text: bytes) -> bytes:
        """PKCS#1 v1.5 of the bare text."""
        if self._master is None:
            raise ConfigError(
                f"the master key of {self.fqrn} is not in {self.directory}: bring {key_names(self.fqrn)[0]} there "
                "to sign a whitelist"
            )
        return _sign_type_1(self._master, hash_text)


def sync_directory(directory: Path) -> None:
    """Returns when the names in a directory are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def key_names(fqrn: str) -> tuple[str, str, str, str]:
    """The files of the master key, the repository key, the public master key and the certificate, in this order."""
    return f"{fqrn}.masterkey", f"{fqrn}.key", f"{fqrn}.pub", f"{fqrn}.crt"


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PublishError(f"the directory for the keys, {directory}, cannot be made: {error.strerror}") from error


def _make_certificate(repository: RSAPrivateKey, fqrn: str) -> bytes:
    """A self-signed certificate, in PEM form."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    # A common name has at most 64 characters, and a repository's name up to 60.
    subject = f"{fqrn} CernVM-FS Release Managers"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject if len(subject) <= 64 else fqrn)])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)  # clocks differ
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(repository.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .sign(repository, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: RSAPrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        fd = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
        with open(fd, "wb") as stream:
            os.fchmod(fd, mode)
            stream.write(content)
            stream.flush()
            os.fsync(fd)  # a repository that was signed with a key must not outlive it
    except OSError as error:
        raise PublishError(f"{file} cannot be written: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()[:_LIMIT_BYTES]
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _load_private(file: Path) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(file)
    if file.stat().st_mode & _FOR_EVERYBODY:
        raise ConfigError(f"{file} is open to everybody: a private key must be its owner's alone, chmod 600 {file}")
    try:
        key = load_pem_private_key(content, None)
    except TypeError as error:
        raise ConfigError(f"{file} is protected by a passphrase, which is not supported") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{file} holds no private key in PEM form") from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError(f"{file} holds no RSA key; only RSA keys can sign repositories")
    return key


def _sign_type_1(private: RSAPrivateKey, message: bytes) -> bytes:
    """PKCS#1 v1.5 type 1 over bytes as they are.

    By hand: the library signs no bare text, and some systems' policy forbids it to sign over SHA-1.
    """
    numbers = private.private_numbers()
    modulus, exponent = numbers.public_numbers.n, numbers.public_numbers.e
    size_bytes = (modulus.bit_length() + 7) // 8
    padding = size_bytes - 3 - len(message)
    if padding < 8:
        raise ConfigError(f"a key of {modulus.bit_length()} bits is too short to sign with")
    padded = int.from_bytes(b"\x00\x01" + b"\xff" * padding + b"\x00" + message, "big")
    # A random factor on the way, so that how long it takes tells nothing of the key.
    blind = secrets.randbelow(modulus - 2) + 2
    blinded = pow(padded * pow(blind, exponent, modulus) % modulus, numbers.d, modulus)
    signature = blinded * pow(blind, -1, modulus) % modulus
    if pow(signature, exponent, modulus) != padded:
        raise PublishError("a signature came out wrong: the computer is not reliable, nothing was published")
    return signature.to_bytes(size_bytes, "big")
