"""The storage of a repository: objects under their hashes, whole or not at all; and its settings file."""

from __future__ import annotations

import os
import stat
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash, Kind, hash_bytes, object_path
from cvmfs_py.errors import ConfigError, IntegrityError, PublishError
from cvmfs_py.publish.settings import (
    RepositorySettings,
    format_settings,
    load_settings,
    parse_settings,
    store_settings,
)
from cvmfs_py.publish.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = RepositorySettings(fqrn="unit.test.org")
CONTENT = b"some content\n" * 1000


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "server")
    made.create()
    return made


def temporary_files(storage: Storage) -> list[str]:
    return os.listdir(storage.directory / "data" / "txn")


def test_a_storage_has_all_its_directories(storage: Storage) -> None:
    storage.create()  # again is fine
    assert sorted(os.listdir(storage.directory / "data")) == sorted([*(f"{n:02x}" for n in range(256)), "txn"])


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
@pytest.mark.parametrize("kind", list(Kind))
def test_objects_are_found_under_their_hash_and_kind(storage: Storage, algorithm: Algorithm, kind: Kind) -> None:
    repository = RepositorySettings(fqrn="unit.test.org", algorithm=algorithm)
    content_hash = storage.put_content(CONTENT, kind, repository)
    stored = (storage.directory / object_path(content_hash, kind)).read_bytes()
    assert content_hash == hash_bytes(algorithm, stored)
    assert zlib.decompress(stored) == CONTENT
    assert storage.has(content_hash, kind)
    assert storage.read_content(content_hash, kind) == CONTENT
    assert list(storage.objects()) == [(content_hash, kind, len(stored))]
    assert storage.remove(content_hash, kind)
    assert not storage.remove(content_hash, kind)
    assert not storage.has(content_hash, kind)


def test_files_are_compressed_and_extracted(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20) + bytes(5 << 20))
    content_hash = storage.put_file(source, Kind.CATALOG, SETTINGS)
    target = tmp_path / "target"
    assert storage.extract(content_hash, Kind.CATALOG, target) == 8 << 20
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(PublishError):
        storage.extract(content_hash, Kind.CATALOG, target)  # it is there
    assert target.read_bytes() == source.read_bytes()
    assert not temporary_files(storage)


def test_an_object_that_is_there_is_kept(storage: Storage) -> None:
    content_hash = storage.put_content(CONTENT, Kind.BULK, SETTINGS)
    path = storage.path(content_hash)
    number = path.stat().st_ino
    assert storage.put_content(CONTENT, Kind.BULK, SETTINGS) == content_hash
    with storage.new_object() as writer:
        writer.write(path.read_bytes())
        assert not writer.commit(content_hash)
    assert path.stat().st_ino == number
    assert not temporary_files(storage)


def test_nothing_is_visible_before_commit_and_nothing_stays_after_abort(storage: Storage) -> None:
    stored = zlib.compress(CONTENT)
    content_hash = hash_bytes(Algorithm.SHA1, stored)
    with storage.new_object() as writer:
        writer.write(stored[:10])
        assert len(temporary_files(storage)) == 1
    with pytest.raises(ZeroDivisionError), storage.new_object() as writer:  # noqa: PT012
        writer.write(stored)
        assert not storage.has(content_hash)
        writer.write(b"%d" % (1 // 0))
    assert not temporary_files(storage)
    assert list(storage.objects()) == []
    writer = storage.new_object()
    writer.write(stored[:10])
    writer.write(memoryview(stored)[10:])
    assert writer.commit(content_hash)
    writer.abort()
    with pytest.raises(ValueError, match="before"):
        writer.commit(content_hash)
    assert storage.read_content(content_hash, Kind.BULK) == CONTENT


def test_directories_come_back_when_someone_tidied_up(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "server")
    content_hash = storage.put_content(CONTENT, Kind.BULK, SETTINGS)
    assert storage.read_content(content_hash, Kind.BULK) == CONTENT


def test_objects_may_be_zstd_or_verbatim(storage: Storage) -> None:
    for stored, verbatim in (
        (zstandard.compress(CONTENT), False),
        (CONTENT, True),
        (zlib.compress(CONTENT) + b"x", False),
    ):
        content_hash = hash_bytes(Algorithm.SHA1, stored)
        storage.put_bytes(stored, content_hash)
        assert storage.read_content(content_hash, Kind.BULK, verbatim=verbatim) == CONTENT


@pytest.mark.parametrize("damage", ["truncate", "flip", "replace", "empty"])
@pytest.mark.parametrize("compress", [zlib.compress, zstandard.compress])
def test_damaged_objects_are_refused(storage: Storage, tmp_path: Path, damage: str, compress: object) -> None:
    assert callable(compress)
    stored = compress(CONTENT)
    content_hash = hash_bytes(Algorithm.SHA1, stored)
    storage.put_bytes(stored, content_hash)
    damaged = {
        "truncate": stored[:-5],
        "flip": stored[:-1] + bytes([stored[-1] ^ 1]),
        "replace": compress(b"other"),
        "empty": b"",
    }[damage]
    storage.path(content_hash).write_bytes(damaged)
    target = tmp_path / "target"
    for read in (
        lambda: storage.extract(content_hash, Kind.BULK, target),
        lambda: storage.read_content(content_hash, Kind.BULK),
    ):
        with pytest.raises(IntegrityError, match=str(content_hash)):
            read()
    assert not target.exists()


def test_missing_and_oversized_objects_are_named(storage: Storage) -> None:
    missing = ContentHash(Algorithm.SHA1, b"\1" * 20)
    with pytest.raises(PublishError, match=f"{missing}C is missing"):
        storage.read_content(missing, Kind.CATALOG)
    with pytest.raises(PublishError, match="missing"):
        storage.open_stored(missing)
    bomb = storage.put_content(bytes(4 << 20), Kind.BULK, SETTINGS)
    with pytest.raises(PublishError, match="larger"):
        storage.read_content(bomb, Kind.BULK, limit_bytes=1 << 20)


def test_foreign_files_below_data_are_no_objects(storage: Storage) -> None:
    content_hash = storage.put_content(CONTENT, Kind.CHUNK, SETTINGS)
    name = object_path(content_hash, Kind.CHUNK)
    for other in ("data/aa/note", "data/aa/" + "0" * 39, "data/aa/" + "A" * 38, name + "Q", name + ".bak"):
        (storage.directory / other).write_bytes(b"")
    assert [found for found, _, _ in storage.objects()] == [content_hash]


def test_files_with_fixed_names_are_replaced(storage: Storage) -> None:
    assert storage.read_file(".cvmfspublished") is None
    for data in (b"one", b"\xff two"):
        storage.replace_file(".cvmfspublished", data)
        assert storage.read_file(".cvmfspublished") == data
    storage.sync()
    assert not temporary_files(storage)


def test_leftovers_are_removed(storage: Storage) -> None:
    left = [storage.new_object() for _ in range(3)]
    assert storage.remove_leftovers() == 3
    assert storage.remove_leftovers() == 0
    for writer in left:
        writer.abort()


def test_an_unusable_storage_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = Storage(tmp_path / "file" / "below")
    with pytest.raises(PublishError, match="below"):
        storage.create()
    with pytest.raises(PublishError, match="below"):
        storage.new_object()
    with pytest.raises(PublishError, match="cannot be read"):
        storage.put_file(tmp_path / "none", Kind.CATALOG, SETTINGS)


# --- settings


@settings(deadline=None)
@given(
    st.builds(
        RepositorySettings,
        fqrn=st.sampled_from(["a.b", "sft.cern.ch"]),
        algorithm=st.sampled_from([Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128]),
        compression=st.sampled_from(["zlib", "none", "zstd"]),
        ttl_s=st.integers(1, 10**6),
        is_volatile=st.booleans(),
        is_garbage_collectable=st.booleans(),
        auto_catalog_entries=st.none() | st.integers(2, 10**6),
        has_alternative_paths=st.booleans(),
    )
)
def test_settings_are_read_as_written(some: RepositorySettings) -> None:
    assert parse_settings(format_settings(some), "it") == some


def test_settings_are_stored_in_a_file(tmp_path: Path) -> None:
    store_settings(SETTINGS, tmp_path / "unit.conf")
    assert load_settings(tmp_path / "unit.conf") == SETTINGS
    assert os.listdir(tmp_path) == ["unit.conf"]
    with pytest.raises(ConfigError, match=r"none\.conf"):
        load_settings(tmp_path / "none.conf")
    with pytest.raises(ConfigError, match="cannot be written"):
        store_settings(SETTINGS, tmp_path / "missing" / "unit.conf")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "damaged"),
        ("[]", "no JSON object"),
        ('{"format": 2, "fqrn": "a.b"}', "newer"),
        ("{}", "does not name"),
        ('{"fqrn": "a b"}', "invalid repository name"),
        ('{"fqrn": "a.b", "colour": 1}', "colour"),
        ('{"fqrn": "a.b", "ttl_s": "240"}', "ttl_s"),
        ('{"fqrn": "a.b", "ttl_s": true}', "ttl_s"),
        ('{"fqrn": "a.b", "ttl_s": 0}', "0 s makes no sense"),
        ('{"fqrn": "a.b", "is_volatile": 1}', "is_volatile"),
        ('{"fqrn": "a.b", "algorithm": "md5"}', "md5"),
        ('{"fqrn": "a.b", "compression": "lz4"}', "lz4"),
        ('{"fqrn": "a.b", "chunk_min_bytes": 99999999}', "chunks"),
        ('{"fqrn": "a.b", "auto_catalog_entries": 1}', "at least 2"),
    ],
)
def test_bad_settings_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_settings(text, "it")
