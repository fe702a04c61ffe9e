"""A tree that is put entry by entry becomes what the reference server made of the same entries, row for row."""

from __future__ import annotations

import re
import sqlite3
import stat
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import ContentHash, Kind, object_path, parse_hash
from catalog.entry import Chunk
from catalog.flags import ALGORITHMS
from catalog.xattrs import parse_xattr_blob
from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.tree import WritableTree
from tests.catalog_fixtures import ZOO, zoo_manifest
from tests.simulator.reading import CatalogContent, Row, read_catalogs, read_rows
from tests.unit.publish_trees import Content, Repository

if TYPE_CHECKING:
    from pathlib import Path

SERVER = ZOO / "server"
COMPRESSIONS = ("zlib", "none")


def zoo_catalogs(revision: int) -> dict[bytes, CatalogContent]:
    return read_catalogs(SERVER, zoo_manifest(revision)["C"])


def definitions(stored: Path) -> set[tuple[str, str]]:
    """The tables and indices of a catalog, without regard to blanks."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(zlib.decompress(stored.read_bytes()))
        found = database.execute("SELECT name, IFNULL(sql, '') FROM sqlite_master").fetchall()
    return {(name, re.sub(r"\s+", " ", sql)) for name, sql in found}


def attributes_of(row: Row) -> Attributes:
    return Attributes(
        mode=row["mode"],
        uid=row["uid"],
        gid=row["gid"],
        mtime_s=row["mtime"],
        mtime_ns=row["mtimens"] or 0,
        xattrs=parse_xattr_blob(row["xattr"]),
    )


def put_row(tree: WritableTree, row: Row, others: tuple[bytes, ...]) -> None:
    attributes, path = attributes_of(row), row.path
    if row.type == stat.S_IFDIR:
        tree.put_directory(path, attributes)
    elif row.type == stat.S_IFLNK:
        tree.put_symlink(path, attributes, row["symlink"])
    elif row.type == stat.S_IFREG:
        flags = row["flags"]
        algorithm = ALGORITHMS[flags >> 8 & 7]
        content_hash = None if row["hash"] is None else ContentHash(algorithm, row["hash"])
        chunks = tuple(Chunk(offset, size, ContentHash(algorithm, digest)) for offset, size, digest in row.chunks)
        tree.put_file(
            path,
            attributes,
            Content(row["size"], content_hash, chunks),
            compression=COMPRESSIONS[flags >> 11 & 7],
            is_external=bool(flags & 128),
            other_names=others,
        )
    else:
        tree.put_special(path, attributes, row.type, row["size"])


def comparable(row: Row) -> dict[str, Any]:
    """The columns that have to be equal: neither the numbers of rows and groups, nor what a file system chose."""
    columns = {name: value for name, value in row.columns.items() if name != "rowid"}
    columns["mtimens"] = columns["mtimens"] or 0
    columns["hardlinks"] &= 0xFFFFFFFF
    if row.type == stat.S_IFDIR:
        columns["size"] = 0
    return columns


@pytest.mark.parametrize("revision", [2, 7])
def test_every_row_and_counter_is_as_the_reference_writes_it(tmp_path: Path, revision: int) -> None:
    expected = zoo_catalogs(revision)
    rows = read_rows(expected)
    groups: dict[tuple[bytes, int], list[bytes]] = {}
    for path, row in rows.items():
        if row.type != stat.S_IFDIR and row["hardlinks"] >> 32:
            groups.setdefault((path.rpartition(b"/")[0], row["hardlinks"] >> 32), []).append(path)
    repository = Repository(tmp_path, RepositorySettings(fqrn="zoo.test.org"))
    with repository.open() as tree:
        for path in sorted(rows):
            row = rows[path]
            group = groups.get((path.rpartition(b"/")[0], row["hardlinks"] >> 32), [])
            put_row(tree, row, tuple(group) if row.type != stat.S_IFDIR else ())
        found = repository.commit(tree)
        assert not tree.warnings
    assert set(found) == set(expected)
    for mountpoint, catalog in expected.items():
        made = found[mountpoint]
        assert set(made.rows) == set(catalog.rows)
        for path, row in catalog.rows.items():
            assert comparable(made.rows[path]) == comparable(row), path
            assert made.rows[path].chunks == row.chunks, path
        assert made.statistics == catalog.statistics, mountpoint
        assert list(made.statistics) == list(catalog.statistics)
        assert set(made.nested) == set(catalog.nested)
        assert made.tables == catalog.tables
        assert set(made.properties) == set(catalog.properties) - ({"previous_revision"} if not mountpoint else set())
    members = {
        (path.rpartition(b"/")[0], row["hardlinks"] >> 32): path
        for path, row in read_rows(found).items()
        if row.type != stat.S_IFDIR and row["hardlinks"] >> 32
    }
    assert len(members) == len(groups) == (2 if revision == 7 else 0)


def test_tables_and_indices_are_those_of_the_reference(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    with repository.open() as tree:
        repository.commit(tree)
    assert repository.root_hash is not None
    made = definitions(repository.storage.path(repository.root_hash, Kind.CATALOG))
    root_hash = parse_hash(zoo_manifest(7)["C"])
    assert root_hash is not None
    assert made == definitions(SERVER / object_path(root_hash, Kind.CATALOG))


def test_a_repository_of_the_reference_is_continued(tmp_path: Path) -> None:
    """One changed file rewrites the catalogs on its path; everything else keeps its catalogs and its rows."""
    before = zoo_catalogs(7)
    root_hash = parse_hash(zoo_manifest(7)["C"])
    storage = Storage(tmp_path / "server")
    for mountpoint, catalog in before.items():
        content_hash = parse_hash(catalog.content_hash)
        assert content_hash is not None, mountpoint
        storage.put_bytes((SERVER / object_path(content_hash, Kind.CATALOG)).read_bytes(), content_hash, Kind.CATALOG)
    path = b"/nested/n0/m1/new"
    with WritableTree(storage, RepositorySettings(fqrn="zoo.test.org"), root_hash, tmp_path) as tree:
        assert not tree.is_changed
        assert tree.put_special(path, Attributes(mode=0o600), stat.S_IFIFO)
        new_root, _ = tree.commit(8, 1_800_000_000)
        assert len(tree.written_catalogs) == 3
    after = read_catalogs(storage.directory, str(new_root))
    changed = {mountpoint for mountpoint in before if before[mountpoint].content_hash != after[mountpoint].content_hash}
    assert changed == {b"", b"/nested/n0", b"/nested/n0/m1"}
    rows_before, rows_after = read_rows(before), read_rows(after)
    assert set(rows_after) - set(rows_before) == {path}
    for old_path, row in rows_before.items():
        assert rows_after[old_path].columns == row.columns | {"hardlinks": rows_after[old_path]["hardlinks"]}
        assert rows_after[old_path]["hardlinks"] == row["hardlinks"]
    for mountpoint in changed:
        old, new = before[mountpoint], after[mountpoint]
        assert new.properties["previous_revision"].decode() == old.content_hash
        assert int(new.properties["revision"]) == int(old.properties["revision"]) + 1
        assert new.properties["last_modified"] == b"1800000000"
        scope = "self" if mountpoint == b"/nested/n0/m1" else "subtree"
        assert new.statistics == old.statistics | {f"{scope}_special": old.statistics[f"{scope}_special"] + 1}
