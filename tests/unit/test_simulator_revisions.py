"""Revisions, tags and deliberate defects of the repository builder, checked by reading what it wrote."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm, Kind, hash_bytes
from tests.simulator import reading
from tests.simulator.reading import assert_counters_consistent, read_catalogs, read_revision, read_rows
from tests.simulator.repository import Repository
from tests.simulator.signing import RepositoryKey
from tests.simulator.tree import BindMountpoint, Directory, File

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path)


# revisions


def test_unchanged_nested_catalogs_are_kept(repository: Repository) -> None:
    still = Directory({"x": File(b"x")}, nested=True)
    first = repository.publish(Directory({"still": still, "moving": still}))
    moving = Directory({"x": File(b"y"), "in": still}, nested=True)
    second = repository.publish(Directory({"still": still, "moving": moving}))
    assert second.catalog(b"/still") == first.catalog(b"/still")
    assert second.catalog(b"/moving").revision == 2
    assert (first.number, second.number) == (1, 2)
    assert second.timestamp_s > first.timestamp_s
    properties = {path: catalog.properties for path, catalog in read_revision(repository).items()}
    assert properties[b""]["previous_revision"].decode() == str(first.root_hash)
    assert properties[b"/moving"]["previous_revision"].decode() == str(first.catalog(b"/moving").content_hash)
    assert properties[b"/moving"]["root_prefix"] == b"/moving"
    assert properties[b""]["revision"] == b"2"
    assert_counters_consistent(read_revision(repository))
    for revision in (first, second):
        assert read_catalogs(repository.server_root, str(revision.root_hash)).keys() == revision.catalogs.keys()


@pytest.mark.parametrize("history_revision", [0, 1, 2, 3])
def test_history(tmp_path: Path, history_revision: int) -> None:
    repository = Repository.create(tmp_path, history_revision=history_revision)
    first = repository.publish(Directory(), tag="v1", description="the first", timestamp_s=1000)
    second = repository.publish(Directory({"a": File()}), tag="v2")
    data = reading.read_object(repository.server_root, str(second.history_hash), Kind.HISTORY)
    with closing(reading.open_database(data)) as database:
        tags = {row["name"]: row for row in reading.read_table(database, "tags")}
        properties = {row["key"]: row["value"] for row in reading.read_table(database, "properties")}
    assert tags.keys() == {b"v1", b"v2", b"trunk", b"trunk-previous"}
    assert tags[b"v1"]["hash"].decode() == tags[b"trunk-previous"]["hash"].decode() == str(first.root_hash)
    assert (tags[b"v1"]["timestamp"], tags[b"v1"]["description"]) == (1000, b"the first")
    assert tags[b"trunk"]["revision"] == 2
    assert ("branch" in tags[b"v1"]) == (history_revision == 3)
    assert ("size" in tags[b"v1"]) == (history_revision >= 1)
    assert properties[b"schema_revision"].decode() == str(history_revision)
    assert properties[b"previous_revision"].decode() == str(first.history_hash)


def test_snapshots_below_a_hidden_directory(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path, snapshots=True)
    first = repository.publish(Directory({"a": File(b"a")}), tag="v1")
    repository.publish(Directory({"a": File(b"b")}), tag="v2")
    catalogs = read_revision(repository)
    assert catalogs[b""].rows[b"/.cvmfs"]["flags"] == 0x8003
    hidden = catalogs[b"/.cvmfs"]
    assert hidden.rows[b"/.cvmfs"]["flags"] == 0x8021
    assert hidden.bound == {b"/.cvmfs/snapshots/v1": (str(first.root_hash), first.root_size_bytes)}
    assert hidden.rows[b"/.cvmfs/snapshots/v1"]["flags"] == 0x4001
    assert_counters_consistent(catalogs)


def test_options(tmp_path: Path) -> None:
    repository = Repository.create(
        tmp_path,
        volatile=True,
        garbage_collectable=True,
        alternative_paths=True,
        history_revision=None,
        metainfo=None,
        reflog=False,
        ttl_s=60,
        root_properties={"voms_authz": "x509%/cms"},
    )
    head = repository.publish(Directory(), tag="no history, no tag")
    fields = dict(head.fields)
    assert [fields.get(key) for key in "GADHMY"] == ["yes", "yes", "60", None, None, None]
    properties = read_revision(repository)[b""].properties
    assert (properties["volatile"], properties["TTL"], properties["voms_authz"]) == (b"1", b"60", b"x509%/cms")
    root = repository.server_root / f".cvmfsalt-{head.root_hash}C"
    assert root.read_bytes() == repository.object_path(head.root_hash, Kind.CATALOG).read_bytes()
    assert (repository.server_root / f".cvmfsalt-{fields['X']}X").exists()


# defects


def test_damaged_objects(repository: Repository) -> None:
    repository.publish(Directory({"a": File(b"a"), "b": File(b"b"), "c": File(b"c")}))
    [(a, kind)] = repository.find_objects(b"/a")
    [(b, _)] = repository.find_objects(b"/b")
    [(c, _)] = repository.find_objects(b"/c")
    good = repository.object_path(a).read_bytes()
    repository.swap((a, kind), (b, kind))
    assert repository.object_path(b).read_bytes() == good
    repository.tamper(b)
    assert repository.object_path(b).read_bytes()[:-1] == good[:-1]
    assert repository.object_path(b).read_bytes() != good
    repository.drop(c)
    assert not repository.object_path(c).exists()


def test_stored_bytes_as_they_are(repository: Repository) -> None:
    stored = zlib.compress(b"content") + b"trailing garbage"
    repository.publish(Directory({"f": File(b"content", stored=stored), "g": File(b"1234", size=99)}))
    [(content_hash, _)] = repository.find_objects(b"/f")
    assert repository.object_path(content_hash).read_bytes() == stored
    assert hash_bytes(Algorithm.SHA1, stored) == content_hash
    assert read_rows(read_revision(repository))[b"/g"]["size"] == 99


def test_hostile_catalogs_pass_the_hashes(repository: Repository) -> None:
    tree = Directory({"n": Directory({"f": File(b"f")}, nested=True)})
    good = repository.publish(tree)
    bad = repository.publish(tree, catalog_sql={b"/n": ["UPDATE catalog SET size = -1 WHERE name = 'f'"]})
    assert bad.catalog(b"/n").content_hash != good.catalog(b"/n").content_hash
    assert read_rows(read_revision(repository))[b"/n/f"]["size"] == -1
    stored = repository.object_path(bad.catalog(b"/n").content_hash, Kind.CATALOG).read_bytes()
    assert hash_bytes(Algorithm.SHA1, stored) == bad.catalog(b"/n").content_hash
    repository.publish(tree)
    assert read_rows(read_revision(repository))[b"/n/f"]["size"] == 1
    noise = repository.publish(tree, catalog_bytes={b"": lambda data: b"no database" + data[11:]})
    content = reading.read_object(repository.server_root, str(noise.root_hash), Kind.CATALOG)
    assert content.startswith(b"no database")
    with pytest.raises(ValueError, match="do not exist"):
        repository.publish(tree, catalog_sql={b"/typo": ["SELECT 1"]})
    with pytest.raises(sqlite3.OperationalError):
        repository.publish(tree, catalog_sql={b"": ["UPDATE nothing SET x = 1"]})


def test_letters_with_defects(repository: Repository) -> None:
    first = repository.publish(Directory())
    second = repository.publish(Directory({"a": File()}))
    manifest = repository.server_root / ".cvmfspublished"
    assert manifest.read_bytes() == second.manifest
    repository.serve(first)
    assert manifest.read_bytes() == first.manifest
    repository.resign_manifest(N="other.example.org", T=None)
    lines = manifest.read_bytes().split(b"\n--\n")[0].split(b"\n")
    assert b"Nother.example.org" in lines
    assert not [line for line in lines if line.startswith(b"T")]
    repository.replace_whitelist(b"nonsense")
    assert (repository.server_root / ".cvmfswhitelist").read_bytes() == b"nonsense"
    other = RepositoryKey.generate("ec", 7)
    repository.use_key(other)
    assert other.fingerprint().encode() in (repository.server_root / ".cvmfswhitelist").read_bytes()
    certificate = reading.read_object(repository.server_root, dict(repository.head.fields)["X"], Kind.CERTIFICATE)
    assert certificate == other.certificate_pem


def test_bind_mountpoints_anywhere(repository: Repository) -> None:
    first = repository.publish(Directory({"a": File(b"a")}))
    repository.publish(Directory({"old": BindMountpoint(first.root_hash), "broken": BindMountpoint(None)}))
    assert read_revision(repository)[b""].bound == {b"/old": (str(first.root_hash), 0), b"/broken": ("", 0)}
