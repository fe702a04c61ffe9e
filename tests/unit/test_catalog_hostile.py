"""Every wrong thing in a catalog is a CatalogError that says where: never a crash, a hang or something untrue."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cache.ref import ObjectRef
from catalog.errors import CatalogError
from catalog.pathkey import path_key
from catalog.reader import Catalog
from tests.catalog_fixtures import (
    CatalogMaker,
    Objects,
    Row,
    chunked,
    directory,
    regular,
    store_catalog,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.address import ContentHash

DIGEST = b"\x11" * 20


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def open_catalog(objects: Objects, maker: CatalogMaker) -> Catalog:
    ref = store_catalog(objects, maker)
    return Catalog.open(objects(ref), b"", ref.content_hash)


WRONG_COLUMNS: list[dict[str, Any]] = [
    {"mode": None},
    {"mode": "text"},
    {"mode": 0.5},
    {"mode": 0},
    {"mode": 0o644},
    {"mode": 0o030644},  # no such file type
    {"mode": -1},
    {"mode": 1 << 40},
    {"size": None},
    {"size": -1},
    {"size": b"\1"},
    {"size": 1e30},
    {"mtime": None},
    {"mtime": "yesterday"},
    {"mtimens": 1_000_000_000},
    {"mtimens": "many"},
    {"hardlinks": None},
    {"hardlinks": -1},
    {"hardlinks": 1e30},
    {"flags": None},
    {"flags": "all"},
    {"flags": 4 | 3 << 8},  # an unknown hash algorithm
    {"flags": 4 | 7 << 8},
    {"flags": 2},  # a file cannot be a mountpoint
    {"flags": 32},
    {"flags": 0x4000},
    {"hash": DIGEST[:19]},
    {"hash": DIGEST + b"\0"},
    {"hash": 5},
    {"uid": None},
    {"uid": -1},
    {"gid": 1 << 32},
    {"gid": "root"},
    {"symlink": 5},
    {"xattr": 5},
    {"name": None},
    {"name": 5},
    {"rowid": 0},
    {"rowid": -5},
]


@pytest.mark.parametrize("columns", WRONG_COLUMNS, ids=str)
def test_a_wrong_value_in_a_row_is_an_error_of_that_row_alone(columns: dict[str, Any], objects: Objects) -> None:
    rows = [
        directory(b"", rowid=1),
        directory(b"/good"),
        regular(b"/good/file"),
        directory(b"/bad"),
        regular(b"/bad/file", **columns),
        regular(b"/bad/other"),
    ]
    catalog = open_catalog(objects, CatalogMaker(rows, typeless=True))
    with pytest.raises(CatalogError, match=r"the catalog of / \([0-9a-f]{40}\) is damaged") as failure:
        catalog.lookup(b"/bad/file")
    assert failure.value.content_hash == catalog.content_hash
    with pytest.raises(CatalogError, match="is damaged"):
        catalog.page(b"/bad", 0, 100)
    with pytest.raises(CatalogError, match="is damaged"):
        list(catalog.by_name(b"/bad"))
    assert [entry.name for entry in catalog.page(b"/good", 0, 100).entries] == [b"file"]
    assert catalog.lookup(b"/bad/other") is not None
    catalog.close()


@pytest.mark.parametrize("columns", [{"size": -1}, {"mode": "x"}, {"name": 5}], ids=str)
def test_a_row_that_is_asked_for_by_its_number_is_checked_too(columns: dict[str, Any], objects: Objects) -> None:
    rows = [directory(b"", rowid=1), regular(b"/file", rowid=2, **columns)]
    catalog = open_catalog(objects, CatalogMaker(rows, typeless=True))
    with pytest.raises(CatalogError, match="row 2"):
        catalog.entry(2)
    assert catalog.entry(3) is None
    assert catalog.path_of(3) is None
    catalog.close()


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"/", b"another"])
def test_a_name_that_is_not_the_one_of_its_path_is_damage(name: bytes, objects: Objects) -> None:
    rows = [directory(b""), regular(b"/file", name=name)]
    catalog = open_catalog(objects, CatalogMaker(rows))
    for ask in (
        lambda: catalog.lookup(b"/file"),
        lambda: catalog.page(b"", 0, 10),
        lambda: list(catalog.by_name(b"")),
        lambda: catalog.path_of(2),
    ):
        with pytest.raises(CatalogError, match="is damaged"):
            ask()
    catalog.close()


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\0"])
def test_a_name_that_no_file_can_have_is_damage_even_where_it_is_stored_consistently(
    name: bytes, objects: Objects
) -> None:
    key = path_key(b"/d/" + name)
    row = Row(b"/d/x", columns={"name": name, "md5path_1": key[0], "md5path_2": key[1], "hash": DIGEST})
    catalog = open_catalog(objects, CatalogMaker([directory(b""), directory(b"/d"), row]))
    with pytest.raises(CatalogError, match="no entry of a directory can have this name"):
        list(catalog.by_name(b"/d"))
    with pytest.raises(CatalogError, match="no entry of a directory can have this name"):
        catalog.entry(3)
    catalog.close()


def test_a_directory_cannot_contain_itself(objects: Objects) -> None:
    key = path_key(b"/loop")
    rows = [directory(b""), directory(b"/loop", parent_1=key[0], parent_2=key[1])]
    catalog = open_catalog(objects, CatalogMaker(rows))
    with pytest.raises(CatalogError, match="it is not stored as /loop/loop"):
        list(catalog.by_name(b"/loop", only_directories=True))
    with pytest.raises(CatalogError, match="no proper path"):
        catalog.path_of(2)
    catalog.close()


def test_a_row_in_a_directory_that_does_not_exist_has_no_path(objects: Objects) -> None:
    catalog = open_catalog(objects, CatalogMaker([directory(b"", rowid=1), regular(b"/nowhere/file", rowid=2)]))
    with pytest.raises(CatalogError, match="a directory that does not exist"):
        catalog.path_of(2)
    catalog.close()


def test_a_name_occurs_once(objects: Objects) -> None:
    """The primary key forbids it, so somebody must have made the table without one."""
    rows = [directory(b""), regular(b"/twice"), regular(b"/once")]
    again = (
        "CREATE TABLE copy AS SELECT * FROM catalog; DROP TABLE catalog; ALTER TABLE copy RENAME TO catalog;"
        "INSERT INTO catalog SELECT * FROM catalog WHERE name = 'twice'"
    )
    catalog = open_catalog(objects, CatalogMaker(rows, statements=(again,)))
    with pytest.raises(CatalogError, match="occurs twice"):
        list(catalog.by_name(b""))
    catalog.close()


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [(0, 5, DIGEST)],  # ends before the file
        [(0, 11, DIGEST)],  # and after it
        [(1, 9, DIGEST)],
        [(0, 4, DIGEST), (5, 5, DIGEST)],
        [(0, 6, DIGEST), (5, 5, DIGEST)],
        [(0, 5, DIGEST), (0, 10, DIGEST)],
        [(0, -1, DIGEST), (0, 10, DIGEST)],
        [(-5, 15, DIGEST)],
        [(0, 1 << 62, DIGEST), (1 << 62, 1 << 62, DIGEST)],
        [(0, 0, DIGEST), (0, 10, DIGEST)],
        [(0, 10, None)],
        [(0, 10, b"")],
        [(0, 10, DIGEST[:-1])],
        [(0, 10, b"\0" * 20)],
        [(0, 10, "0123456789012345678")],
        [(0, 5.5, DIGEST), (5, 5, DIGEST)],
        [("zero", 10, DIGEST)],
        [(None, 10, DIGEST)],
    ],
    ids=str,
)
def test_chunks_that_do_not_make_up_the_file_are_damage(chunks: list[tuple[Any, Any, Any]], objects: Objects) -> None:
    row = Row(b"/file", columns={"flags": 68, "size": 10}, chunks=chunks)
    catalog = open_catalog(objects, CatalogMaker([directory(b""), row, chunked(b"/good", [(0, 1, DIGEST)])]))
    file, good = catalog.lookup(b"/file"), catalog.lookup(b"/good")
    assert file is not None
    assert good is not None
    with pytest.raises(CatalogError, match='entry "file"'):
        catalog.chunks(file)
    assert len(catalog.chunks(good)) == 1
    catalog.close()


@pytest.mark.parametrize(
    "nested",
    [
        (b"/", "a" * 40, 0),
        (b"", "a" * 40, 0),
        (b"/a/", "a" * 40, 0),
        (b"/a//b", "a" * 40, 0),
        (b"/a/../b", "a" * 40, 0),
        (b"/./a", "a" * 40, 0),
        (b"a", "a" * 40, 0),
        (None, "a" * 40, 0),
        (b"/a", "a" * 40, -1),
        (b"/a", "a" * 40, "big"),
        (b"/a", 5.5, 1e30),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["nested", "binds"])
def test_a_nested_catalog_at_an_impossible_place_or_of_no_size_is_damage(
    nested: tuple[Any, Any, Any], kind: str, objects: Objects
) -> None:
    maker = CatalogMaker([directory(b"")])
    setattr(maker, kind, [nested])
    with pytest.raises(CatalogError, match="nested catalog"):
        open_catalog(objects, maker)


def test_a_path_cannot_be_two_transitions(objects: Objects) -> None:
    maker = CatalogMaker([directory(b"")], nested=[(b"/a", "a" * 40, 0)], binds=[(b"/a", "b" * 40, 0)])
    with pytest.raises(CatalogError, match="two catalogs at /a"):
        open_catalog(objects, maker)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
CODE = {
    "endless view": f"""
        DROP TABLE properties;
        CREATE VIEW properties AS {ENDLESS} 'schema' AS key, '2.5' AS value FROM n;
    """,
    "view as table": f"""
        DROP TABLE nested_catalogs;
        CREATE VIEW nested_catalogs AS {ENDLESS} '/a' || i AS path, '' AS sha1, 0 AS size FROM n;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET type = 'table' WHERE name = 'nested_catalogs';
    """,
    "disguised view": f"""
        DROP TABLE nested_catalogs;
        CREATE VIEW nested_catalogs AS {ENDLESS} '/a' || i AS path, '' AS sha1, 0 AS size FROM n;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET type = 'table', sql = 'CREATE TABLE nested_catalogs AS SELECT 1 AS path'
        WHERE name = 'nested_catalogs';
    """,
    "generated column": """
        DROP TABLE statistics;
        DROP TABLE nested_catalogs;
        CREATE TABLE nested_catalogs (path TEXT, size INTEGER, sha1 TEXT AS (hex(zeroblob(100000000))));
        INSERT INTO nested_catalogs (path, size) VALUES ('/a', 5);
    """,
    "virtual table": """
        DROP TABLE nested_catalogs;
        CREATE VIRTUAL TABLE nested_catalogs USING fts5(path, sha1, size);
    """,
    "without rowid": """
        DROP TABLE catalog;
        CREATE TABLE catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens,
        flags, name, symlink, uid, gid, xattr, PRIMARY KEY (md5path_1, md5path_2)) WITHOUT ROWID;
    """,
    "rowid of one's own": "ALTER TABLE catalog ADD rowid TEXT;",
    "very many properties": f"INSERT INTO properties {ENDLESS} 'k' || i, i FROM n LIMIT 1001;",
    "no catalog": "DROP TABLE catalog;",
}


@pytest.mark.parametrize("name", CODE)
def test_code_that_comes_with_a_database_is_not_run(name: str, objects: Objects) -> None:
    with pytest.raises(CatalogError):
        open_catalog(objects, CatalogMaker([directory(b"")], statements=(CODE[name],)))


def test_triggers_and_views_elsewhere_do_no_harm(objects: Objects) -> None:
    extra = "CREATE VIEW other AS SELECT * FROM catalog; CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT 1; END;"
    catalog = open_catalog(objects, CatalogMaker([directory(b"")], statements=(extra,)))
    assert catalog.lookup(b"") is not None
    catalog.close()


def test_a_value_too_large_for_any_catalog_is_refused(objects: Objects) -> None:
    rows = [directory(b""), regular(b"/big", xattr=b"\1" * (17 << 20))]
    catalog = open_catalog(objects, CatalogMaker(rows))
    with pytest.raises(CatalogError, match="too big"):
        catalog.lookup(b"/big")
    catalog.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 500, b"\0" * 5000])
@pytest.mark.parametrize("nameless", [False, True])
def test_what_is_no_database_is_refused(content: bytes, nameless: bool, objects: Objects) -> None:
    objects.nameless = nameless
    content_hash = objects.add(content)
    with pytest.raises(CatalogError, match="the catalog of /x"):
        Catalog.open(objects(ObjectRef(content_hash)), b"/x", content_hash)


def list_root(objects: Objects, content_hash: ContentHash) -> None:
    with closing(Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)) as catalog:
        list(catalog.by_name(b""))


def test_every_truncation_is_an_error(objects: Objects, tmp_path: Path) -> None:
    rows = [directory(b""), *(regular(b"/%d" % number) for number in range(50))]
    content = CatalogMaker(rows).write(tmp_path / "whole")
    for length in range(0, len(content), 509):
        content_hash = objects.add(content[:length])
        with pytest.raises(CatalogError):
            list_root(objects, content_hash)


def test_messages_do_not_carry_what_could_move_a_cursor(objects: Objects) -> None:
    rows = [directory(b""), directory(b"/\x1b[2J\xff"), regular(b"/\x1b[2J\xff/x\n", size=-1)]
    catalog = open_catalog(objects, CatalogMaker(rows))
    with pytest.raises(CatalogError) as failure:
        catalog.lookup(b"/\x1b[2J\xff/x\n")
    assert str(failure.value).isprintable()
    catalog.close()
