"""Tag databases and reflogs that are written are read by the reader, and are those of the reference."""

from __future__ import annotations

import re
import sqlite3
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm, ContentHash, Kind, object_path, parse_hash
from catalog.errors import CatalogError
from catalog.history import History, Tag
from catalog.history_writer import HistoryWriter
from catalog.new_entry import NewEntry
from catalog.reflog import LoggedObject, Reflog
from catalog.writer import CatalogWriter
from tests.catalog_fixtures import ZOO, Objects, OpenFile, zoo_manifest

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = (ContentHash(Algorithm.SHA1, bytes([number] * 20)) for number in (1, 2))
FQRN = "unit.test.org"
DIRECTORY = NewEntry(2, None, 4096, 0o40755, 0, 0, 1, b"", 0, 0, None)


def tag(name: str, revision: int = 1, root_hash: ContentHash = FIRST, branch: str = "") -> Tag:
    return Tag(name, root_hash, revision, 1_700_000_000 + revision, f"about {name}", branch, 57344)


def read_history(tmp_path: Path, path: Path) -> History:
    return History.open(OpenFile(Objects(tmp_path / "objects"), path, nameless=False))


def definitions(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT name, IFNULL(sql, '') FROM sqlite_master").fetchall()
    return {(name, re.sub(r"\s+", " ", sql)) for name, sql in found}


def zoo_history(tmp_path: Path) -> tuple[Path, ContentHash]:
    content_hash = parse_hash(zoo_manifest(6)["H"])
    assert content_hash is not None
    path = tmp_path / "zoo-history"
    path.write_bytes(zlib.decompress((ZOO / "server" / object_path(content_hash, Kind.HISTORY)).read_bytes()))
    return path, content_hash


def test_tags_are_added_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with HistoryWriter.create(path, FQRN) as writer:
        assert writer.tags() == ()
        writer.put(tag("old", 1))
        writer.put(tag("trunk", 1))
        writer.put(tag("trunk", 2, SECOND))
        writer.put(tag("side", 3, branch="dev"))
        assert writer.remove("old")
        assert not writer.remove("old")
        writer.finish()
    with read_history(tmp_path, path) as history:
        assert history.fqrn == FQRN
        assert history.schema_revision == 3
        assert history.previous_revision is None
        assert history.tags() == (tag("trunk", 2, SECOND), tag("side", 3, branch="dev"))


def test_a_stored_tag_database_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with HistoryWriter.create(path, FQRN) as writer:
        writer.put(tag("a"))
        writer.finish()
    with HistoryWriter.open(path, SECOND) as writer:
        assert writer.fqrn == FQRN
        writer.put(tag("b", 2))
        writer.finish()
    with read_history(tmp_path, path) as history:
        assert [one.name for one in history.tags()] == ["a", "b"]
        assert history.previous_revision == SECOND


def test_the_tag_database_of_the_reference_is_continued(tmp_path: Path) -> None:
    path, content_hash = zoo_history(tmp_path)
    with HistoryWriter.open(path, content_hash) as writer:
        before = writer.tags()
        assert "v1" in [one.name for one in before]
        writer.put(tag("new", 9))
        writer.finish()
    with read_history(tmp_path, path) as history:
        assert history.tags() == (*before, tag("new", 9))
        assert history.fqrn == "zoo.test.org"


def test_tables_are_those_of_the_reference(tmp_path: Path) -> None:
    with HistoryWriter.create(tmp_path / "history", FQRN) as writer:
        writer.finish()
    assert definitions(tmp_path / "history") == definitions(zoo_history(tmp_path)[0])
    with Reflog.create(tmp_path / "reflog", FQRN) as reflog:
        reflog.finish()
    assert definitions(tmp_path / "reflog") == definitions(ZOO / "server" / ".cvmfsreflog")


def test_older_tag_databases_are_not_changed(tmp_path: Path) -> None:
    from tests.simulator.history import write_history

    path = tmp_path / "history"
    write_history(path, FQRN, [], revision=2)
    with pytest.raises(CatalogError, match=r"1\.0 revision 2.*migrated"):
        HistoryWriter.open(path)


def test_a_reflog_keeps_its_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "reflog"
    with Reflog.create(path, FQRN) as reflog:
        assert reflog.add(SECOND, Kind.CATALOG, 10)
        assert reflog.add(FIRST, Kind.METAINFO, 20)
        assert not reflog.add(SECOND, Kind.CATALOG, 30)
        reflog.finish()
    with Reflog.open(path) as reflog:
        assert reflog.fqrn == FQRN
        assert list(reflog.refs()) == [LoggedObject(SECOND, Kind.CATALOG, 10), LoggedObject(FIRST, Kind.METAINFO, 20)]
        assert reflog.remove(SECOND)
        assert not reflog.remove(SECOND)
        assert reflog.add(SECOND, Kind.CERTIFICATE, 30)
        reflog.finish()
    with Reflog.open(path) as reflog:
        assert [(one.content_hash, one.timestamp_s) for one in reflog.refs()] == [(FIRST, 20), (SECOND, 30)]


def test_the_reflog_of_the_reference_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reflog"
    path.write_bytes((ZOO / "server" / ".cvmfsreflog").read_bytes())
    with Reflog.open(path) as reflog:
        kinds = [one.kind for one in reflog.refs()]
    assert (len(kinds), kinds.count(Kind.CERTIFICATE), kinds.count(Kind.METAINFO)) == (15, 1, 1)


@pytest.mark.parametrize("make", [HistoryWriter, Reflog])
def test_files_that_are_there_missing_or_no_databases_are_refused(tmp_path: Path, make: type[HistoryWriter]) -> None:
    path = tmp_path / "file"
    with pytest.raises(CatalogError, match="missing"):
        make.open(path)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(CatalogError, match="there already"):
        make.create(path, FQRN)
    with pytest.raises(CatalogError, match="not a database"):
        make.open(path)


def test_databases_that_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    writer = CatalogWriter.create(path, b"", DIRECTORY)
    writer.suspend()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TRIGGER t AFTER UPDATE ON catalog BEGIN DELETE FROM catalog; END")
        database.commit()
    with pytest.raises(CatalogError, match="more than tables"):
        CatalogWriter.open(path, b"", None)


def test_a_catalog_is_written_in_pieces_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    subtree = CatalogWriter.create(path, b"/top", DIRECTORY._replace(flags=33)).stored_counters().subtree
    path.unlink()
    writer = CatalogWriter.create(path, b"/top", DIRECTORY._replace(flags=33))
    for number in range(20_000):
        writer.put(b"/top/%d" % number, DIRECTORY)
    counters = writer.finish({"revision": "1"}, subtree, compact=True)
    assert counters.own["dir"] == 20_001
    full_bytes = path.stat().st_size
    writer.close()
    writer = CatalogWriter.open(path, b"/top", None)
    for number in range(19_000):
        writer.remove(b"/top/%d" % number)
    assert writer.count_below(b"/top") == 1000
    writer.finish({"revision": "2"}, subtree)
    top = writer.lookup(b"/top")
    assert top is not None
    assert (top.rowid, top.link_count) == (1, 1002)
    assert writer.number(b"revision", 0) == 2
    writer.close()
    assert path.stat().st_size < full_bytes / 5


def test_a_catalog_of_another_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    CatalogWriter.create(path, b"/top", DIRECTORY).suspend()
    with pytest.raises(CatalogError, match="/top"):
        CatalogWriter.open(path, b"/other", None)
