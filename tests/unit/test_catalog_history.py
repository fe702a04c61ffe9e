"""Tag databases of every revision of their schema."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Kind, parse_hash
from cache.ref import ObjectRef
from catalog.errors import CatalogError
from catalog.history import History, parse_tag_date
from tests.catalog_fixtures import Objects, ZooObjects, zoo_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HASHES = [f"{number:040x}" for number in range(1, 9)]
# name, hash, revision, timestamp, channel, description, size, branch
TAGS: list[tuple[Any, ...]] = [
    ("trunk", HASHES[3], 4, 400, 0, "current HEAD", 4000, ""),
    ("one", HASHES[0], 1, 100, 0, "", 1000, ""),
    ("late", HASHES[1], 2, 350, 0, None, 2000, ""),  # an older revision, published later
    ("three", HASHES[2], 3, 300, 0, "third", 3000, ""),
    ("side", HASHES[4], 9, 250, 0, "", 0, "other"),
]
COLUMNS = ("name", "hash", "revision", "timestamp", "channel", "description", "size", "branch")


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def open_history(
    objects: Objects, revision: int = 3, tags: list[tuple[Any, ...]] | None = None, **properties: str | None
) -> History:
    names = COLUMNS[: {0: 6, 1: 7, 2: 7}.get(revision, 8)]
    path = objects.directory / "being-made"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE properties (key TEXT, value TEXT, PRIMARY KEY (key))")
    connection.execute(f"CREATE TABLE tags ({', '.join(names)}, PRIMARY KEY (name))")
    stored = {"schema": "1.0", "schema_revision": str(revision), "fqrn": "test.example.org", **properties}
    connection.executemany(
        "INSERT INTO properties VALUES (?, ?)", [(key, value) for key, value in stored.items() if value is not None]
    )
    marks = ", ".join("?" * len(names))
    for tag in TAGS if tags is None else tags:
        connection.execute(f"INSERT INTO tags VALUES ({marks})", tag[: len(names)])
    connection.close()
    content_hash = objects.add(path.read_bytes())
    path.unlink()
    return History.open(objects(ObjectRef(content_hash, Kind.HISTORY)), content_hash)


@pytest.mark.parametrize("revision", range(4))
def test_every_revision_of_the_schema(revision: int, objects: Objects) -> None:
    with open_history(objects, revision) as history:
        assert history.fqrn == "test.example.org"
        assert [tag.name for tag in history.tags()] == ["one", "late", "three", "trunk", "side"]
        tag = history.by_name("trunk")
        assert tag is not None
        assert (str(tag.root_hash), tag.revision, tag.timestamp_s) == (HASHES[3], 4, 400)
        assert (tag.description, tag.branch) == ("current HEAD", "")
        assert tag.size_bytes == (4000 if revision >= 1 else 0)
        side = history.by_name("side")
        assert side is not None
        assert side.branch == ("other" if revision >= 3 else "")
        assert history.by_name("none") is None
        assert history.by_name("\udcff") is None


@pytest.mark.parametrize(
    ("moment", "name"),
    [(99, None), (100, "one"), (299, "one"), (300, "three"), (360, "three"), (400, "trunk"), (1 << 40, "trunk")],
)
def test_by_date_is_the_highest_revision_and_not_the_latest_time(
    moment: int, name: str | None, objects: Objects
) -> None:
    with open_history(objects) as history:
        tag = history.by_date(moment)
        assert (None if tag is None else tag.name) == name


@pytest.mark.parametrize("revision", range(3))
def test_by_date_knows_no_branches_where_there_are_none(revision: int, objects: Objects) -> None:
    with open_history(objects, revision) as history:
        tag = history.by_date(260)
        assert tag is not None
        assert tag.name == "side"


def test_a_tag_tells_what_to_fetch(objects: Objects) -> None:
    with open_history(objects) as history:
        tag = history.by_name("trunk")
    assert tag is not None
    assert tag.root_ref == ObjectRef(tag.root_hash, Kind.CATALOG, limit_bytes=64 << 20)
    assert str(tag.root_ref) == "root catalog of tag trunk"


def test_another_repository_s_tags_are_refused(objects: Objects) -> None:
    with open_history(objects) as history:
        history.check_fqrn("test.example.org")
        with pytest.raises(CatalogError, match=r"belongs to test\.example\.org, not to other\.example\.org"):
            history.check_fqrn("other.example.org")


@pytest.mark.parametrize("schema", ["0.9", "1.1", "2.0", "", None])
def test_other_schemas_are_refused(schema: str | None, objects: Objects) -> None:
    with pytest.raises(CatalogError, match="schema version"):
        open_history(objects, schema=schema)


def test_a_database_that_does_not_tell_its_repository_is_damaged(objects: Objects) -> None:
    with pytest.raises(CatalogError, match="repository"):
        open_history(objects, fqrn=None)


def test_a_database_without_what_its_revision_has_is_damaged(objects: Objects) -> None:
    with pytest.raises(CatalogError, match="lacks the column size"):
        open_history(objects, 0, schema_revision="1")


@pytest.mark.parametrize(
    "tag",
    [
        ("bad", None, 1, 100, 0, "", 0, ""),
        ("bad", "0" * 40, 1, 100, 0, "", 0, ""),
        ("bad", "abc", 1, 100, 0, "", 0, ""),
        ("bad", "d41d8cd98f00b204e9800998ecf8427e", 1, 100, 0, "", 0, ""),
        ("bad", HASHES[0], None, 100, 0, "", 0, ""),
        ("bad", HASHES[0], -1, 100, 0, "", 0, ""),
        ("bad", HASHES[0], 1, None, 0, "", 0, ""),
        ("bad", HASHES[0], 1, "noon", 0, "", 0, ""),
        ("bad", HASHES[0], 1, 100, 0, 5, 0, ""),
        ("bad", HASHES[0], 1, 100, 0, "", "big", ""),
        ("bad", HASHES[0], 1, 100, 0, "", -1, ""),
        ("bad", HASHES[0], 1, 100, 0, "", 0, 5),
    ],
    ids=str,
)
def test_a_damaged_tag_is_an_error_where_it_is_met(tag: tuple[Any, ...], objects: Objects) -> None:
    with open_history(objects, tags=[*TAGS, tag]) as history:
        assert history.by_name("one") is not None
        with pytest.raises(CatalogError, match="tag bad"):
            history.by_name("bad")
        with pytest.raises(CatalogError, match="tag bad"):
            history.tags()


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-20T17:43:50Z", 1_795_196_630),
        ("2100-02-28T23:59:59Z", 4_107_542_399),
        ("1969-12-31T23:59:59Z", -1),
        ("2026-02-30T00:00:00Z", None),
        ("2026-11-20T24:00:00Z", None),
        ("2026-11-20T17:43:60Z", None),
        ("2026-11-20T17:43:50", None),
        ("2026-11-20T17:43:50+00:00", None),
        ("2026-11-20 17:43:50Z", None),
        ("2026-11-20T17:43:50Z\n", None),
        (" 2026-11-20T17:43:50Z", None),
        ("2026-11-20T17:43:50z", None),
        ("2026-11-20", None),
        ("٢٠٢٦-11-20T17:43:50Z", None),
        ("", None),
    ],
)
def test_dates_are_exact(text: str, timestamp: int | None) -> None:
    assert parse_tag_date(text) == timestamp


def test_the_tags_of_the_zoo(tmp_path: Path) -> None:
    objects = ZooObjects(tmp_path / "zoo")
    content_hash = parse_hash(zoo_manifest(7)["H"])
    assert content_hash is not None
    with History.open(objects(ObjectRef(content_hash, Kind.HISTORY)), content_hash) as history:
        tags = history.tags()
        assert [tag.revision for tag in tags] == [1, 2, 3, 4, 5, 5, 6, 6]
        found = history.by_date(1_795_196_636)
        assert found is not None
        assert found.name == "v3-plain"
        assert str(history.previous_revision) == "149eced3b39c992673e8af14c1f88483da7a5e5e"
    assert objects.open_count == 0
