"""Opening databases: by name, from memory, while files are swapped or removed; and that no query runs for ever."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cache.ref import ObjectRef
from catalog.errors import CatalogError, Subject
from catalog.reader import Catalog
from catalog.sql import open_database
from tests.catalog_fixtures import CatalogMaker, Objects, directory, regular, store_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUBJECT = Subject("the database")


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def maker(count: int = 3) -> CatalogMaker:
    return CatalogMaker([directory(b""), *(regular(b"/file-%05d" % number) for number in range(count))])


@pytest.mark.parametrize("name", ["plain", "with space", "100%25?mode=rw#x", "&immutable=0", "ü\udcff", "'\";"])
def test_any_file_name_will_do(name: str, tmp_path: Path) -> None:
    objects = Objects(tmp_path / name)
    ref = store_catalog(objects, maker())
    catalog = Catalog.open(objects(ref), b"", ref.content_hash)
    assert catalog.lookup(b"/file-00001") is not None
    catalog.close()
    assert objects.open_count == 0
    assert len(os.listdir(objects.directory)) == 1  # no journal, no other file


@pytest.mark.parametrize("nameless", [False, True])
def test_an_attached_catalog_needs_no_name(nameless: bool, objects: Objects) -> None:
    objects.nameless = nameless
    ref = store_catalog(objects, maker(2000))
    catalog = Catalog.open(objects(ref), b"", ref.content_hash)
    assert objects.open_count == 1
    os.unlink(objects.directory / str(ref.content_hash))
    assert sum(1 for _ in catalog.by_name(b"")) == 2000
    catalog.close()


def test_what_is_read_is_the_pinned_file_whatever_its_name_stands_for_by_now(objects: Objects) -> None:
    ref = store_catalog(objects, maker())
    other = store_catalog(objects, CatalogMaker([directory(b"")]))
    path = objects.directory / str(ref.content_hash)
    swapped = objects(ref)
    os.replace(objects.directory / str(other.content_hash), path)
    removed = objects(other_file(objects, ref))
    os.unlink(path)
    for local, expected in ((swapped, True), (removed, False)):
        catalog = Catalog.open(local, b"", ref.content_hash)
        assert (catalog.lookup(b"/file-00001") is not None) == expected
        catalog.close()


def other_file(objects: Objects, ref: ObjectRef) -> ObjectRef:
    """The reference under which the swapped file is found."""
    assert (objects.directory / str(ref.content_hash)).exists()
    return ref


def test_a_read_only_directory_and_file_will_do(objects: Objects) -> None:
    ref = store_catalog(objects, maker())
    (objects.directory / str(ref.content_hash)).chmod(0o400)
    objects.directory.chmod(0o500)
    catalog = Catalog.open(objects(ref), b"", ref.content_hash)
    assert catalog.lookup(b"/file-00001") is not None
    catalog.close()
    objects.directory.chmod(0o700)


def test_nothing_can_be_written(objects: Objects) -> None:
    ref = store_catalog(objects, maker())
    database = open_database(objects(ref), SUBJECT)
    for statement in (
        "DELETE FROM catalog",
        "CREATE TABLE t (x)",
        "ATTACH ':memory:' AS other",
        "PRAGMA writable_schema=ON",
        "SELECT load_extension('x')",
        "SELECT max(rowid) FROM catalog",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ):
        with pytest.raises(CatalogError, match="the database cannot be read"):
            database.rows(statement)
    database.close()


@pytest.mark.parametrize("nameless", [False, True])
def test_a_query_that_takes_far_more_steps_than_there_are_bytes_is_stopped(nameless: bool, objects: Objects) -> None:
    objects.nameless = nameless
    ref = store_catalog(objects, maker(500))
    database = open_database(objects(ref), SUBJECT)
    product = "SELECT a.rowid FROM catalog a, catalog b, catalog c WHERE a.size + b.size + c.size < 0"
    with pytest.raises(CatalogError, match="a query does not end"):
        database.row(product)
    with pytest.raises(CatalogError, match="a query does not end"):
        list(database.stream(product))
    assert database.row("SELECT rowid FROM catalog LIMIT 1") == (1,)
    for _ in range(3000):  # many short queries are not one long one
        assert len(database.rows("SELECT rowid FROM catalog")) == 501
    database.close()


def test_a_stream_keeps_its_database_open_to_its_end(objects: Objects) -> None:
    ref = store_catalog(objects, maker(1000))
    database = open_database(objects(ref), SUBJECT)
    statement = "SELECT rowid FROM catalog ORDER BY rowid"
    not_begun, dropped, half, whole = (database.stream(statement) for _ in range(4))
    assert next(half) == (1,)
    database.close()
    assert objects.open_count == 1
    assert next(half) == (2,)
    del dropped, half
    assert sum(1 for _ in whole) == 1001
    assert objects.open_count == 1
    assert sum(1 for _ in not_begun) == 1001
    assert objects.open_count == 0
    database.close()
    with pytest.raises(CatalogError, match="not attached any more"):
        database.row(statement)


SORT = """
import resource, sys
from pathlib import Path
from cache.ref import ObjectRef
from cache.address import parse_hash
from catalog.reader import Catalog
from tests.catalog_fixtures import Objects
objects = Objects(Path(sys.argv[1]))
content_hash = parse_hash(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
catalog = Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)
print(sum(1 for _ in catalog.by_name(b"")))
catalog.close()
"""


def test_a_large_directory_is_sorted_where_no_temporary_file_can_be_written(objects: Objects) -> None:
    count = 30_000
    ref = store_catalog(objects, maker(count))
    arguments = [sys.executable, "-c", SORT, str(objects.directory), str(ref.content_hash)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{count}\n", "")


def test_a_database_in_wal_mode_leaves_no_files_beside_it(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "wal"
    maker().write(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    content_hash = objects.add(path.read_bytes())
    catalog = Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)
    assert catalog.lookup(b"/file-00001") is not None
    assert len(os.listdir(objects.directory)) == 1
    catalog.close()
    objects.nameless = True  # SQLite cannot do this in memory
    with pytest.raises(CatalogError, match="cannot be"):
        Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)
