"""Nested catalogs of a writable tree: what moves where, what is rewritten, what is counted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm, ContentHash, Kind
from catalog.entry import Chunk
from catalog.errors import CatalogError
from cvmfs_py.errors import IntegrityError, PublishError
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.tree import WritableTree
from tests.unit.publish_trees import DIRECTORY, FILE, MARKER, Content, Repository, content, put_directories, put_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def fill(repository: Repository) -> None:
    """`/a` and `/a/b` are nested catalogs, `/c` is none."""
    with repository.open() as tree:
        put_directories(tree, b"/a", b"/a/b", b"/a/b/deep", b"/c")
        put_files(tree, b"/a/file", b"/a/b/" + MARKER, b"/a/b/deep/file", b"/a/" + MARKER, b"/c/file")
        repository.commit(tree)


def hashes(repository: Repository) -> dict[bytes, str]:
    return {mountpoint: catalog.content_hash for mountpoint, catalog in repository.read().items()}


def test_markers_make_and_end_nested_catalogs(repository: Repository) -> None:
    fill(repository)
    catalogs = repository.read()
    assert set(catalogs) == {b"", b"/a", b"/a/b"}
    assert set(catalogs[b""].rows) == {b"", b"/a", b"/c", b"/c/file"}
    assert set(catalogs[b"/a"].rows) == {b"/a", b"/a/file", b"/a/" + MARKER, b"/a/b"}
    assert set(catalogs[b"/a/b"].rows) == {b"/a/b", b"/a/b/" + MARKER, b"/a/b/deep", b"/a/b/deep/file"}
    assert (catalogs[b""].rows[b"/a"]["flags"], catalogs[b"/a"].rows[b"/a"]["flags"]) == (3, 33)
    assert catalogs[b""].nested[b"/a"][1] == catalogs[b"/a"].size_bytes
    with repository.open() as tree:
        assert tree.remove(b"/a/" + MARKER)
        assert tree.nested_paths() == [b"/a/b"]
        catalogs = repository.commit(tree)
    assert set(catalogs) == {b"", b"/a/b"}
    assert catalogs[b""].rows[b"/a"]["flags"] == 1
    assert catalogs[b""].nested == {b"/a/b": (catalogs[b"/a/b"].content_hash, catalogs[b"/a/b"].size_bytes)}


def test_a_nested_catalog_that_only_gets_another_parent_keeps_its_hash(repository: Repository) -> None:
    fill(repository)
    before = hashes(repository)
    with repository.open() as tree:
        tree.remove(b"/a/" + MARKER)
        repository.commit(tree)
    assert hashes(repository)[b"/a/b"] == before[b"/a/b"]
    with repository.open() as tree:
        put_files(tree, b"/a/" + MARKER)
        repository.commit(tree)
    assert hashes(repository)[b"/a/b"] == before[b"/a/b"]


def test_only_catalogs_on_the_path_of_a_change_are_rewritten(repository: Repository) -> None:
    fill(repository)
    before = hashes(repository)
    with repository.open() as tree:
        put_files(tree, b"/a/another")
        repository.commit(tree)
        assert len(tree.written_catalogs) == 2
    after = hashes(repository)
    assert {path for path in after if after[path] != before[path]} == {b"", b"/a"}


def test_nothing_changed_means_the_same_root_unless_forced(repository: Repository) -> None:
    fill(repository)
    before = repository.root_hash
    stored = set(repository.storage.objects())
    with repository.open() as tree:
        put_directories(tree, b"/a", b"/a/b", b"/c")
        put_files(tree, b"/a/file", b"/a/b/deep/file", b"/a/" + MARKER)
        assert not tree.is_changed
        assert tree.commit(2, 1_800_000_000).root_hash == before
        assert set(repository.storage.objects()) == stored
        assert tree.commit(2, 1_800_000_000, force=True).root_hash != before
        assert len(tree.written_catalogs) == 1


def test_attributes_of_a_mountpoint_change_in_both_catalogs(repository: Repository) -> None:
    fill(repository)
    with repository.open() as tree:
        assert tree.set_attributes(b"/a", FILE)
        catalogs = repository.commit(tree)
    for mountpoint in (b"", b"/a"):
        row = catalogs[mountpoint].rows[b"/a"]
        assert (row["mode"], row["mtime"], row["mtimens"]) == (0o40644, FILE.mtime_s, FILE.mtime_ns)


def test_link_counts_of_a_mountpoint_are_those_of_its_own_catalog(repository: Repository) -> None:
    fill(repository)
    with repository.open() as tree:
        put_directories(tree, b"/a/b/one", b"/a/b/two")
        catalogs = repository.commit(tree)
    assert catalogs[b"/a"].rows[b"/a/b"]["hardlinks"] == catalogs[b"/a/b"].rows[b"/a/b"]["hardlinks"] == 5


def test_removing_a_directory_removes_the_catalogs_below(repository: Repository) -> None:
    fill(repository)
    with repository.open() as tree:
        assert tree.remove(b"/a")
        catalogs = repository.commit(tree)
    assert set(catalogs) == {b""}
    assert set(catalogs[b""].rows) == {b"", b"/c", b"/c/file"}
    assert catalogs[b""].statistics["subtree_dir"] == 0
    assert catalogs[b""].rows[b""]["hardlinks"] == 3


def test_groups_of_hard_links_do_not_mix_when_catalogs_are_joined(repository: Repository) -> None:
    """Each catalog has a group number 1."""
    with repository.open() as tree:
        put_directories(tree, b"/a")
        put_files(tree, b"/a/" + MARKER)
        tree.put_file(b"/a/x", FILE, content("1"), other_names=(b"/a/y",))
        tree.put_file(b"/x", FILE, content("2"), other_names=(b"/y", b"/z"))
        catalogs = repository.commit(tree)
        assert catalogs[b""].rows[b"/x"]["hardlinks"] == 1 << 32 | 3
        assert catalogs[b"/a"].rows[b"/a/x"]["hardlinks"] == 1 << 32 | 2
        tree.remove(b"/a/" + MARKER)
        rows = repository.commit(tree)[b""].rows
    assert rows[b"/a/x"]["hardlinks"] == rows[b"/a/y"]["hardlinks"] == 2 << 32 | 2
    assert rows[b"/x"]["hardlinks"] == rows[b"/y"]["hardlinks"] == rows[b"/z"]["hardlinks"] == 1 << 32 | 3


def test_chunks_move_with_their_files(repository: Repository) -> None:
    pieces = tuple(Chunk(offset, 10, ContentHash(Algorithm.SHA1, bytes([offset + 1] * 20))) for offset in (0, 10, 20))
    with repository.open() as tree:
        put_directories(tree, b"/a")
        tree.put_file(b"/a/big", FILE, Content(30, None, pieces))
        tree.make_nested(b"/a")
        catalogs = repository.commit(tree)
        assert [size for _, size, _ in catalogs[b"/a"].rows[b"/a/big"].chunks] == [10, 10, 10]
        assert catalogs[b""].statistics["self_chunks"] == 0
        assert catalogs[b"/a"].statistics["self_chunks"] == 3
        tree.merge_nested(b"/a")
        catalogs = repository.commit(tree)
        assert catalogs[b""].statistics["self_chunks"] == 3
        assert tree.chunks(b"/a/big") == pieces
        tree.put_file(b"/a/big", FILE, content("small"))
        assert repository.commit(tree)[b""].statistics["self_chunks"] == 0


def test_settings_of_the_root_are_written_and_followed(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    fill(repository)
    properties = repository.read()[b""].properties
    assert (properties["TTL"], "volatile" in properties, "root_prefix" in properties) == (b"240", False, False)
    repository.settings = RepositorySettings(fqrn="unit.test.org", ttl_s=60, is_volatile=True)
    with repository.open() as tree:
        assert tree.is_changed
        properties = repository.commit(tree)[b""].properties
    assert (properties["TTL"], properties["volatile"]) == (b"60", b"1")
    assert properties["previous_revision"] != b"0" * 40
    repository.settings = RepositorySettings(fqrn="unit.test.org", ttl_s=60)
    with repository.open() as tree:
        assert repository.commit(tree)[b""].properties["volatile"] == b"0"


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_catalogs_are_addressed_in_the_algorithm_of_the_repository(tmp_path: Path, algorithm: Algorithm) -> None:
    repository = Repository(tmp_path, RepositorySettings(fqrn="unit.test.org", algorithm=algorithm))
    fill(repository)
    assert all(text.endswith(algorithm.suffix) for text in hashes(repository).values())
    assert {content_hash.algorithm for content_hash, _, _ in repository.storage.objects()} == {algorithm}


def test_hidden_entries_and_other_revisions_are_left_as_they_are(repository: Repository, tmp_path: Path) -> None:
    """`/.cvmfs` as servers make it: hidden, and with a directory that shows another revision."""
    with repository.open() as tree:
        put_directories(tree, b"/.cvmfs", b"/.cvmfs/snapshots", b"/.cvmfs/snapshots/old", b"/d")
        repository.commit(tree)
    first = repository.root_hash
    assert first is not None
    copy = tmp_path / "copy"
    repository.storage.extract(first, Kind.CATALOG, copy)
    with closing(sqlite3.connect(copy)) as database:
        database.execute("UPDATE catalog SET flags = 0x8001 WHERE name = '.cvmfs'")
        database.execute("UPDATE catalog SET flags = 0x4001, hardlinks = 7 WHERE name = 'old'")
        database.execute("INSERT INTO bind_mountpoints VALUES ('/.cvmfs/snapshots/old', ?, 57344)", (str(first),))
        database.commit()
    repository.root_hash = repository.storage.put_file(copy, Kind.CATALOG, repository.settings)
    with repository.open() as tree:
        put_files(tree, b"/d/file")
        assert not tree.put_directory(b"/.cvmfs", DIRECTORY)
        assert [entry.name for entry in tree.listing(b"")] == [b".cvmfs", b"d"]
        assert tree.subdirectories(b"/.cvmfs/snapshots") == []
        with pytest.raises(PublishError, match="another revision"):
            put_files(tree, b"/.cvmfs/snapshots/old/file")
        catalog = repository.commit(tree)[b""]
        assert catalog.bound == {b"/.cvmfs/snapshots/old": (str(first), 57344)}
        assert catalog.rows[b"/.cvmfs"]["flags"] == 0x8001
        assert catalog.rows[b"/.cvmfs/snapshots/old"]["hardlinks"] == 7
        tree.make_nested(b"/.cvmfs")
        catalogs = repository.commit(tree)
        assert (catalogs[b""].bound, len(catalogs[b"/.cvmfs"].bound)) == ({}, 1)
        assert (catalogs[b""].rows[b"/.cvmfs"]["flags"], catalogs[b"/.cvmfs"].rows[b"/.cvmfs"]["flags"]) == (
            0x8003,
            0x8021,
        )
        tree.merge_nested(b"/.cvmfs")
        assert repository.commit(tree)[b""].bound == catalog.bound
        assert tree.remove(b"/.cvmfs/snapshots")
        assert repository.commit(tree)[b""].bound == {}


def test_a_large_directory_is_listed_in_order_while_it_changes(repository: Repository) -> None:
    with repository.open() as tree:
        put_directories(tree, b"/d")
        put_files(tree, *(b"/d/%05d" % number for number in range(5000)))
        seen = []
        for entry in tree.listing(b"/d"):
            seen.append(entry.name)
            tree.remove(b"/d/" + entry.name)
        assert seen == [b"%05d" % number for number in range(5000)]
        assert list(tree.listing(b"/d")) == []
        assert repository.commit(tree)[b""].statistics["self_regular"] == 0


def test_what_was_put_into_a_removed_directory_stays_away(repository: Repository) -> None:
    fill(repository)
    with repository.open() as tree:
        put_files(tree, b"/a/b/deep/new")
        tree.remove(b"/a/b")
        with pytest.raises(PublishError, match="is not there"):
            put_files(tree, b"/a/b/deep/new")
        put_directories(tree, b"/a/b")
        assert list(tree.listing(b"/a/b")) == []
        assert not tree.is_nested(b"/a/b")
        repository.commit(tree)


def test_a_damaged_or_missing_catalog_is_named(repository: Repository) -> None:
    fill(repository)
    nested = ContentHash(Algorithm.SHA1, bytes.fromhex(hashes(repository)[b"/a"]))
    path = repository.storage.path(nested, Kind.CATALOG)
    stored = path.read_bytes()
    path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with repository.open() as tree, pytest.raises(IntegrityError, match=str(nested)):
        tree.lookup(b"/a/file")
    path.unlink()
    with repository.open() as tree, pytest.raises(PublishError, match=str(nested)):
        tree.remove(b"/a")


def test_working_copies_go_away_in_any_case(repository: Repository) -> None:
    fill(repository)
    assert not list(repository.workdir.iterdir())
    missing = ContentHash(Algorithm.SHA1, b"\1" * 20)
    with pytest.raises(PublishError):
        WritableTree(repository.storage, repository.settings, missing, repository.workdir)
    assert not list(repository.workdir.iterdir())
    tree = repository.open()
    tree.put_directory(b"/new", DIRECTORY)
    tree.close()
    tree.close()
    assert not list(repository.workdir.iterdir())


def test_catalogs_of_older_schemas_are_not_changed(tmp_path: Path) -> None:
    from tests.simulator.catalogs import CatalogWriter
    from tests.simulator.schema import Schema
    from tests.simulator.tree import Directory

    repository = Repository(tmp_path)
    old = tmp_path / "old"
    writer = CatalogWriter(old, Schema("2.5", 6))
    writer.add_directory(b"", Directory(), 2)
    writer.finish({"schema": "2.5", "schema_revision": "6"}, {})
    repository.root_hash = repository.storage.put_file(old, Kind.CATALOG, repository.settings)
    with pytest.raises(CatalogError, match=r"2\.5 revision 6.*migrate"):
        repository.open()
