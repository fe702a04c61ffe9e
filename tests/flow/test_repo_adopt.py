"""Taking over repositories that were made elsewhere: what is checked before, and that everything works afterwards."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.cli.app import run
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.signing import format_manifest
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.whitelisting import write_whitelist
from cvmfs_py.trust.letter import parse_letter
from cvmfs_py.trust.manifest import parse_manifest
from tests.simulator.publisher import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

ZOO = Path(__file__).parents[1] / "data" / "zoo"
FQRN = "zoo.test.org"


class Owner:
    """Who has a repository of the reference server and its keys, in the places where that server has them."""

    def __init__(self, directory: Path, keys: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.storage = directory / "srv" / "cvmfs" / FQRN
        self.keys = directory / "etc" / "cvmfs" / "keys"
        self.own = self.storage.with_name(f"{FQRN}.keys")
        self._capture = capture
        shutil.copytree(ZOO / "server", self.storage)
        shutil.copy(ZOO / "manifests" / "r6.cvmfspublished", self.storage / ".cvmfspublished")
        shutil.copytree(keys, self.keys)
        self._sign()

    def _sign(self) -> None:
        """Nobody has the keys of the fixture any more: its documents are signed with new ones."""
        keys = PublisherKeys.load(self.keys, FQRN)
        settings, storage = RepositorySettings(fqrn=FQRN), Storage(self.storage)
        write_whitelist(storage, keys, settings, 30, time.time())
        manifest = parse_manifest(parse_letter((self.storage / ".cvmfspublished").read_bytes(), "manifest"), fqrn=FQRN)
        certificate = storage.put_content(keys.certificate_pem, Kind.CERTIFICATE, settings)
        signed = format_manifest(dataclasses.replace(manifest, certificate_hash=certificate), keys)
        (self.storage / ".cvmfspublished").write_bytes(signed)

    def both(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        self._capture.readouterr()
        found = run(["repo", *map(str, words)])
        output, errors = self._capture.readouterr()
        assert found == code, errors
        return output, errors

    def fails(self, *words: str | Path, code: int = 5) -> str:
        output, errors = self.both(*words, code=code)
        assert output == ""
        assert errors.count("\n") == 1
        return errors

    def served(self) -> dict[str, tuple[int, int]]:
        """Everything below the web root."""
        return dict(_files(self.storage))


def _files(top: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        yield str(path.relative_to(top)), (facts.st_size, facts.st_mtime_ns)


@pytest.fixture(scope="module")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories with the keys of the owner, and of somebody else who has a repository of the same name."""
    top = tmp_path_factory.mktemp("keys")
    return PublisherKeys.create(top / "own", FQRN).directory, PublisherKeys.create(top / "foreign", FQRN).directory


@pytest.fixture
def owner(tmp_path: Path, two_keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(tmp_path, two_keys[0], capsys)


def test_a_repository_of_the_reference_server_is_taken_over(owner: Owner, tmp_path: Path) -> None:
    before = owner.served()
    assert "`cvmfs-py repo adopt DIR --keys KEYS` takes over" in owner.fails("tag", "list", owner.storage, code=2)
    output, errors = owner.both("adopt", owner.storage, "--keys", owner.keys, "--dry-run")
    assert output.startswith(f"would adopt {FQRN}, revision 6: the keys in {owner.keys} fit what it serves\n")
    assert not owner.own.exists()

    output, errors = owner.both("adopt", owner.storage, "--keys", owner.keys)
    assert errors == ""
    assert output.startswith(f"adopted {FQRN}, revision 6: ")
    assert owner.served() == before
    assert {path.name for path in owner.keys.iterdir()} == {
        f"{FQRN}.{end}" for end in ("masterkey", "key", "pub", "crt")
    }
    assert (owner.own / f"{FQRN}.key").resolve() == owner.keys / f"{FQRN}.key"

    write_tree(tmp_path / "empty", {})
    output, _ = owner.both("publish", owner.storage, "--from", tmp_path / "empty", "--at", "/hard")
    assert output.startswith(f"published revision 7 of {FQRN}")
    owner.both("publish", owner.storage, "--delete", "/hard", "--tag", "without")
    owner.both("tag", "add", owner.storage, "mine")
    assert "mine" in owner.both("tag", "list", owner.storage)[0]
    owner.both("resign", owner.storage, "--days", "20")
    owner.both("gc", owner.storage, "--keep", "1", "--quiet", "--force")
    output, _ = owner.both("check", owner.storage, "--data", "--all-tags", "--quiet")
    assert output.endswith("everything is right\n")
    owner.both("rollback", owner.storage, "--tag", "v1")


def test_settings_that_were_lost_are_made_anew(owner: Owner, tmp_path: Path) -> None:
    storage = tmp_path / "own"
    words = ["--ttl", "77", "--algorithm", "shake128", "--volatile", "--no-garbage-collectable", "--alternative-paths"]
    owner.both("init", "own.test.org", "--storage", storage, *words)
    settings = tmp_path / "own.keys" / "own.test.org.conf"
    text = settings.read_text()
    said = owner.fails("adopt", storage, code=2)
    assert f"own.test.org needs no adoption: its settings are in {settings}" in said
    settings.unlink()
    assert "`cvmfs-py repo adopt DIR` makes them" in owner.fails("tag", "add", storage, "x", code=2)
    owner.both("adopt", storage)
    assert settings.read_text() == text
    owner.both("tag", "add", storage, "x")
    assert (tmp_path / "own.keys" / "own.test.org.key").is_symlink() is False


def test_without_the_master_key_all_but_resigning_works(owner: Owner) -> None:
    os.rename(owner.keys / f"{FQRN}.masterkey", owner.keys.parent / "master")
    output, _ = owner.both("adopt", owner.storage, "--keys", owner.keys)
    assert (
        f"note          there is no {FQRN}.masterkey in {owner.keys}: `cvmfs-py repo resign` needs it before" in output
    )
    owner.both("publish", owner.storage, "--delete", "/hard")
    assert "the master key of zoo.test.org is not in" in owner.fails("resign", owner.storage, code=2)
    os.rename(owner.keys.parent / "master", owner.own / f"{FQRN}.masterkey")
    owner.both("resign", owner.storage)


def test_an_adoption_that_was_interrupted_goes_on(owner: Owner) -> None:
    owner.own.mkdir()
    (owner.own / f"{FQRN}.crt").symlink_to(owner.keys / f"{FQRN}.crt")
    said = owner.fails("adopt", owner.storage, "--keys", owner.keys, code=2)
    assert f"{owner.own} is there already, and the keys are in {owner.keys}: move it away first" in said
    for end in ("masterkey", "key", "pub"):
        (owner.own / f"{FQRN}.{end}").symlink_to(owner.keys / f"{FQRN}.{end}")
    owner.both("adopt", owner.storage, "--keys", owner.keys)
    owner.both("tag", "add", owner.storage, "x")


def test_keys_of_another_repository_are_refused(owner: Owner, two_keys: tuple[Path, Path]) -> None:
    for end in ("pub", "masterkey"):
        shutil.copy2(two_keys[1] / f"{FQRN}.{end}", owner.keys)
    assert "is not signed by any of the configured master keys" in owner.fails(
        "adopt", owner.storage, "--keys", owner.keys, code=4
    )
    assert not owner.own.exists()


def test_a_certificate_that_is_not_listed_is_for_who_can_list_it(owner: Owner, two_keys: tuple[Path, Path]) -> None:
    for end in ("crt", "key"):
        shutil.copy2(two_keys[1] / f"{FQRN}.{end}", owner.keys)
    (owner.keys / f"{FQRN}.masterkey").rename(owner.keys.parent / "master")
    said = owner.fails("adopt", owner.storage, "--keys", owner.keys, code=2)
    assert f"{FQRN}.crt in {owner.keys} is not on the whitelist of {FQRN}" in said
    (owner.keys.parent / "master").rename(owner.keys / f"{FQRN}.masterkey")
    output, _ = owner.both("adopt", owner.storage, "--keys", owner.keys)
    assert (
        "note          zoo.test.org.crt is not on the whitelist: put it there with `cvmfs-py repo resign DIR`" in output
    )
    owner.both("resign", owner.storage)
    owner.both("publish", owner.storage, "--delete", "/hard")


def test_what_cannot_be_adopted_is_told(owner: Owner, tmp_path: Path) -> None:
    adopt = ("adopt", owner.storage, "--keys")
    assert "is no directory: --keys names the one that has" in owner.fails(*adopt, tmp_path / "nowhere", code=2)
    assert "say where they are with --keys DIR" in owner.fails("adopt", owner.storage, code=2)
    said = owner.fails(*adopt, tmp_path, code=2)
    assert f"{tmp_path} lacks {FQRN}.key, {FQRN}.pub, {FQRN}.crt: nobody can publish to {FQRN} without" in said
    assert "the keys must not be in" in owner.fails(*adopt, owner.storage / "data", code=2)
    assert "there is no compression 'lzma'" in owner.fails(*adopt, owner.keys, "--compression", "lzma", code=2)
    (owner.keys / f"{FQRN}.key").write_bytes(b"\0garbage")
    assert f"{FQRN}.key holds no private key in PEM form" in owner.fails(*adopt, owner.keys, code=2)
    (owner.storage / "data").rename(tmp_path / "data")
    assert "has no directory data" in owner.fails(*adopt, owner.keys)
    assert not owner.own.exists()
