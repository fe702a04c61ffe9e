"""The publisher's keys: what is made, who may read it, what is refused, and that signatures are those of the format."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cvmfs_py.errors import ConfigError, PublishError
from cvmfs_py.publish.keys import PublisherKeys

FQRN = "keys.test.org"
TEXT = b"b9a6fa616aac46f9a1efe7a87090929213eaa35c"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PublisherKeys:
    return PublisherKeys.create(tmp_path_factory.mktemp("keys") / "deep" / "er", FQRN)


@pytest.fixture
def copied(made: PublisherKeys, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.directory, tmp_path / "keys"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        PublisherKeys.create(tmp_path / "keys", FQRN)
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "keys") == 0o700
    modes = {path.name.removeprefix(FQRN): mode_of(path) for path in (tmp_path / "keys").iterdir()}
    assert modes == {".masterkey": 0o600, ".key": 0o600, ".pub": 0o644, ".crt": 0o644}


def test_the_certificate_is_as_servers_make_it(made: PublisherKeys) -> None:
    certificate = x509.load_pem_x509_certificate((made.directory / f"{FQRN}.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == f"CN={FQRN} CernVM-FS Release Managers"
    assert certificate.issuer == certificate.subject
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    public_key = certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    assert public_key.key_size == 2048
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc
    certificate.verify_directly_issued_by(certificate)


def test_the_longest_name_fits_into_a_certificate(tmp_path: Path) -> None:
    fqrn = "a" * 55 + ".long"
    keys = PublisherKeys.create(tmp_path, fqrn)
    assert keys.certificate.describe().subject == f"CN={fqrn}"


def test_the_manifest_signature_is_an_ordinary_one(made: PublisherKeys) -> None:
    """PKCS#1 v1.5 over SHA-1, as the library checks it."""
    public_key = x509.load_pem_x509_certificate(made.certificate_pem).public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    public_key.verify(made.sign_manifest_text(TEXT), TEXT, padding.PKCS1v15(), hashes.SHA1())


def test_the_whitelist_signature_is_over_the_bare_text(made: PublisherKeys) -> None:
    public_key = serialization.load_pem_public_key((made.directory / f"{FQRN}.pub").read_bytes())
    assert isinstance(public_key, rsa.RSAPublicKey)
    for text in (TEXT, TEXT + b"-shake128", b""):
        signature = made.sign_whitelist_text(text)
        assert public_key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == text
        assert made.sign_whitelist_text(text) == signature  # the padding leaves nothing to chance


def test_loaded_keys_sign_the_same(made: PublisherKeys) -> None:
    loaded = PublisherKeys.load(made.directory, FQRN)
    assert loaded.sign_manifest_text(TEXT) == made.sign_manifest_text(TEXT)
    assert loaded.sign_whitelist_text(TEXT) == made.sign_whitelist_text(TEXT)
    assert loaded.certificate == made.certificate


def test_no_key_is_overwritten(copied: Path) -> None:
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    for kept in (".masterkey", ".crt"):
        for name in before:
            if name != FQRN + kept:
                (copied / name).unlink(missing_ok=True)
        with pytest.raises(ConfigError, match=f"there is {FQRN}{kept} in .* already"):
            PublisherKeys.create(copied, FQRN)
        assert [path.name for path in copied.iterdir()] == [FQRN + kept]
        for name, content in before.items():
            (copied / name).write_bytes(content)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PublishError, match=r"cannot be made: "):
        PublisherKeys.create(tmp_path / "file" / "keys", FQRN)


def test_the_master_key_may_be_kept_elsewhere(copied: Path) -> None:
    (copied / f"{FQRN}.masterkey").unlink()
    keys = PublisherKeys.load(copied, FQRN)
    assert not keys.has_master
    assert keys.certificate.signed(TEXT, keys.sign_manifest_text(TEXT))
    with pytest.raises(ConfigError, match=rf"the master key of {FQRN} is not in .*: bring {FQRN}\.masterkey there"):
        keys.sign_whitelist_text(TEXT)


@pytest.mark.parametrize("missing", [".key", ".pub", ".crt"])
def test_a_missing_file_is_named(copied: Path, missing: str) -> None:
    (copied / f"{FQRN}{missing}").unlink()
    with pytest.raises(ConfigError, match=rf"{FQRN}{missing} cannot be read: No such file"):
        PublisherKeys.load(copied, FQRN)


@pytest.mark.parametrize("file", [".key", ".masterkey"])
def test_a_private_key_for_everybody_is_refused(copied: Path, file: str) -> None:
    (copied / f"{FQRN}{file}").chmod(0o644)
    with pytest.raises(ConfigError, match=f"{FQRN}{file} is open to everybody.*chmod 600"):
        PublisherKeys.load(copied, FQRN)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (".key", "is not the certificate of"),
        (".crt", "is not the certificate of"),
        (".masterkey", "is not the public key of"),
        (".pub", "is not the public key of"),
    ],
)
def test_keys_that_do_not_belong_together_are_refused(
    copied: Path, tmp_path_factory: pytest.TempPathFactory, file: str, message: str
) -> None:
    other = PublisherKeys.create(tmp_path_factory.mktemp("other"), FQRN)
    shutil.copy(other.directory / f"{FQRN}{file}", copied)
    with pytest.raises(ConfigError, match=message):
        PublisherKeys.load(copied, FQRN)


def unusable_keys() -> dict[str, bytes]:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    curve = ec.generate_private_key(ec.SECP256R1())
    return {
        "holds no private key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "protected by a passphrase": curve.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x")),
        "holds no RSA key": curve.private_bytes(pem, pkcs8, serialization.NoEncryption()),
    }


@pytest.mark.parametrize("message", unusable_keys())
def test_keys_of_other_kinds_are_refused(copied: Path, message: str) -> None:
    (copied / f"{FQRN}.key").write_bytes(unusable_keys()[message])
    with pytest.raises(ConfigError, match=rf"{FQRN}\.key .*{message}"):
        PublisherKeys.load(copied, FQRN)


def test_keys_in_the_traditional_form_are_taken(copied: Path) -> None:
    """As older programs wrote them."""
    before = PublisherKeys.load(copied, FQRN)
    for name in (f"{FQRN}.key", f"{FQRN}.masterkey"):
        key = serialization.load_pem_private_key((copied / name).read_bytes(), None)
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        (copied / name).write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    keys = PublisherKeys.load(copied, FQRN)
    assert keys.sign_manifest_text(TEXT) == before.sign_manifest_text(TEXT)
    assert keys.sign_whitelist_text(TEXT) == before.sign_whitelist_text(TEXT)
