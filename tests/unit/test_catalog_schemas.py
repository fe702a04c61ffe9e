"""Catalogs of every schema version that servers wrote, and the refusal of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cache.address import parse_hash
from catalog.content import file_spans
from catalog.errors import CatalogError
from catalog.reader import Catalog
from catalog.tree import CatalogTree
from catalog.xattrs import parse_xattr_blob
from tests.catalog_fixtures import (
    CatalogMaker,
    Objects,
    Row,
    chunked,
    directory,
    regular,
    store_catalog,
    symlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGEST = b"\x11" * 20
ROWS = [
    directory(b"", rowid=1),
    directory(b"/d", xattr=b"\1\1\6\1user.xv"),
    regular(b"/d/file", b"hello", mtimens=7, hardlinks=2),
    symlink(b"/d/link", b"../$(X:-y)"),
    chunked(b"/d/chunked", [(0, 3, DIGEST), (3, 4, DIGEST)]),
    regular(b"/d/odd", b"plain", flags=4 | 0x8000 | 1 << 11 | 2 << 8),
]
VERSIONS: list[tuple[str, int | None]] = [
    ("1.0", None),
    ("1.2", None),
    ("1.2", 3),
    ("2.4", 0),
    *(("2.5", revision) for revision in (*range(8), 12)),
]


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def open_catalog(objects: Objects, maker: CatalogMaker) -> Catalog:
    ref = store_catalog(objects, maker)
    return Catalog.open(objects(ref), b"", ref.content_hash)


@pytest.mark.parametrize(("schema", "revision"), VERSIONS)
@pytest.mark.parametrize("altered", [False, True])
def test_each_version_shows_what_it_has(schema: str, revision: int | None, altered: bool, objects: Objects) -> None:
    is_old = float(schema) < 2
    number = (revision or 0) if schema == "2.5" else 0
    rows = [row for row in ROWS if not (is_old and row.chunks)]
    catalog = open_catalog(objects, CatalogMaker(rows, schema, revision, altered=altered))
    assert catalog.schema.version == float(schema)

    file = catalog.lookup(b"/d/file")
    assert file is not None
    assert (file.uid, file.gid) == ((None, None) if is_old else (1000, 100))
    assert file.link_count == (1 if is_old else 2)
    assert file.mtime_ns == (7 if number >= 7 else 0)
    assert (file.mtime_s, file.size) == (1_700_000_000, 5)
    link = catalog.lookup(b"/d/link")
    assert link is not None
    assert link.symlink == b"../$(X:-y)"
    within = catalog.lookup(b"/d")
    assert within is not None
    assert parse_xattr_blob(within.xattr_blob) == ({b"user.x": b"v"} if number >= 2 else {})
    odd = catalog.lookup(b"/d/odd")
    assert odd is not None
    assert (odd.is_hidden, odd.compression, odd.algorithm.value) == (
        (False, 0, "sha1") if is_old else (True, 1, "-shake128")
    )
    names = [entry.name for entry in catalog.by_name(b"/d")]
    assert names == [name for name in (b"chunked", b"file", b"link", b"odd") if not (is_old and name == b"chunked")]
    if not is_old:
        split = catalog.lookup(b"/d/chunked")
        assert split is not None
        assert [span.length for span in file_spans(catalog, split, b"/d/chunked")] == [3, 4]
    assert catalog.counters().total["regular"] == 0  # nothing was counted
    catalog.close()


@pytest.mark.parametrize("schema", ["2.0", "2.1", "2.3", "2.45", "2.6", "3.0", "27", "nonsense"])
def test_other_versions_are_refused(schema: str, objects: Objects) -> None:
    maker = CatalogMaker(ROWS, "2.5", 7, properties={"schema": schema})
    with pytest.raises(CatalogError, match="schema version"):
        open_catalog(objects, maker)


@pytest.mark.parametrize("text", ["2.4", "2.40", "2.399999999999999911182158029987"])
def test_versions_are_compared_as_numbers(text: str, objects: Objects) -> None:
    catalog = open_catalog(objects, CatalogMaker(ROWS, "2.4", 0, properties={"schema": text}))
    assert catalog.schema.version == pytest.approx(2.4)
    catalog.close()


def test_a_catalog_without_a_schema_is_of_version_1_0(objects: Objects) -> None:
    maker = CatalogMaker([directory(b"")], "1.0", None, statements=("DELETE FROM properties",))
    catalog = open_catalog(objects, maker)
    assert (catalog.schema.version, catalog.schema.revision) == (1.0, 0)
    assert catalog.properties.ttl_s == 240
    assert (catalog.properties.revision, catalog.properties.last_modified_s) == (0, 0)
    catalog.close()


def test_schema_0_9_names_nested_catalogs_that_cannot_be_reached(objects: Objects) -> None:
    rows = [directory(b""), directory(b"/n", flags=3)]
    tree = CatalogTree(store_catalog(objects, CatalogMaker(rows, "0.9", None, nested=[(b"/n", None, 0)])))
    located = tree.lookup(b"/n", objects)
    assert located is not None
    assert located.entry.is_nested_mountpoint
    with pytest.raises(CatalogError, match="nothing below /n can be reached"):
        tree.lookup(b"/n/x", objects)
    with pytest.raises(CatalogError, match="nothing below /n can be reached"):
        tree.open_directory(b"/n", objects)
    tree.close()


def test_what_a_version_should_have_and_lacks_is_damage(objects: Objects) -> None:
    with pytest.raises(CatalogError, match="lacks the column mtimens"):
        open_catalog(objects, CatalogMaker(ROWS, "2.5", 6, properties={"schema_revision": 7}))
    with pytest.raises(CatalogError, match="no table bind_mountpoints"):
        open_catalog(objects, CatalogMaker(ROWS, "2.5", 3, properties={"schema_revision": 4}))
    with pytest.raises(CatalogError, match="no table properties"):
        open_catalog(objects, CatalogMaker(ROWS, statements=("DROP TABLE properties",)))


PREVIOUS = "6c34113235838d031d7feecac4e124a11e34f2eb"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, {"ttl_s": 240, "revision": 1, "is_volatile": False, "voms_authz": None, "previous_revision": None}),
        ({"TTL": "900", "revision": 42}, {"ttl_s": 900, "revision": 42}),
        ({"last_modified": "4294967296000"}, {"last_modified_s": 4_294_967_296_000}),
        ({"volatile": "1"}, {"is_volatile": True}),
        ({"volatile": "0"}, {"is_volatile": False}),
        ({"voms_authz": "x509%/cms"}, {"voms_authz": b"x509%/cms"}),
        ({"previous_revision": PREVIOUS}, {"previous_revision": parse_hash(PREVIOUS)}),
        ({"previous_revision": "0" * 64}, {"previous_revision": None}),
        ({"previous_revision": ""}, {"previous_revision": None}),
        ({"TTL": 900.0}, {"ttl_s": 900}),
        ({"voms_authz": "x509\0rest"}, {"voms_authz": b"x509"}),
        ({"key of the future": b"\xff\0"}, {"ttl_s": 240}),
    ],
)
def test_properties(properties: dict[str, Any], expected: dict[str, Any], objects: Objects) -> None:
    catalog = open_catalog(objects, CatalogMaker(ROWS, properties=properties))
    assert {name: getattr(catalog.properties, name) for name in expected} == expected
    catalog.close()


@pytest.mark.parametrize(
    "properties",
    [
        {"TTL": "soon"},
        {"revision": "-1"},
        {"revision": "99999999999999999999"},
        {"last_modified": b"\xff"},
        {"schema_revision": ""},
        {"root_prefix": "no/slash"},
        {"root_prefix": "/a/../b"},
        {"root_prefix": "/"},
    ],
)
def test_properties_that_make_no_sense_are_damage(properties: dict[str, Any], objects: Objects) -> None:
    with pytest.raises(CatalogError, match="is damaged: its "):
        open_catalog(objects, CatalogMaker(ROWS, properties=properties))


def test_counters(objects: Objects) -> None:
    counters = {"self_regular": 3, "subtree_regular": 4, "self_dir": 2, "self_of_the_future": 9}
    catalog = open_catalog(objects, CatalogMaker(ROWS, counters=counters))
    counted = catalog.counters()
    assert (counted.own["regular"], counted.subtree["regular"], counted.total["regular"]) == (3, 4, 7)
    assert counted.total["xattr"] == 0
    assert counted.entries == 9
    catalog.close()


def test_a_counter_that_is_no_number_is_damage(objects: Objects) -> None:
    catalog = open_catalog(objects, CatalogMaker(ROWS, counters={"self_regular": "many"}))
    with pytest.raises(CatalogError, match="self_regular"):
        catalog.counters()
    catalog.close()


def test_times_before_1970_and_after_2038_and_absent_fractions(objects: Objects) -> None:
    rows = [
        directory(b""),
        regular(b"/old", mtime=-86_400, mtimens=-1),
        regular(b"/new", mtime=1 << 40, mtimens=999_999_999),
    ]
    catalog = open_catalog(objects, CatalogMaker(rows))
    old, new = catalog.lookup(b"/old"), catalog.lookup(b"/new")
    assert old is not None
    assert new is not None
    assert (old.mtime_s, old.mtime_ns) == (-86_400, 0)
    assert (new.mtime_s, new.mtime_ns) == (1 << 40, 999_999_999)
    catalog.close()


def test_special_files_keep_their_device_number_in_the_size(objects: Objects) -> None:
    rows = [directory(b""), Row(b"/null", 0o020666, {"size": 0x103, "flags": 20, "hash": None})]
    catalog = open_catalog(objects, CatalogMaker(rows))
    device = catalog.lookup(b"/null")
    assert device is not None
    assert device.size == 0x103
    assert device.content_hash is None
    catalog.close()


def test_a_null_link_target_counts_as_empty_and_text_ends_at_a_nul(objects: Objects) -> None:
    rows = [directory(b""), symlink(b"/null", b"", symlink=None), symlink(b"/cut", b"target\0rest")]
    catalog = open_catalog(objects, CatalogMaker(rows))
    assert [entry.symlink for entry in catalog.by_name(b"")] == [b"target", b""]
    catalog.close()


def test_hard_link_groups_share_a_row_only_where_they_share_content(objects: Objects) -> None:
    group = 5 << 32 | 3
    rows = [
        directory(b"", rowid=1),
        regular(b"/a", b"same", hardlinks=group, rowid=2),
        regular(b"/b", b"same", hardlinks=group, rowid=3),
        regular(b"/c", b"other", hardlinks=group, rowid=4),
        regular(b"/single", b"same", hardlinks=2, rowid=5),
        regular(b"/unset", b"same", hardlinks=1, rowid=6),
    ]
    catalog = open_catalog(objects, CatalogMaker(rows))
    by_name = {entry.name: catalog.first_link(entry) for entry in catalog.by_name(b"")}
    assert by_name == {b"a": 2, b"b": 2, b"c": 4, b"single": 5, b"unset": 6}
    found = catalog.lookup(b"/b")
    assert found is not None
    assert (found.link_count, found.hardlink_group) == (3, 5)
    catalog.close()


@pytest.mark.parametrize("order", [("/a", "/b"), ("/b", "/a")])
def test_hard_link_groups_of_two_directories_are_never_one(order: tuple[str, ...], objects: Objects) -> None:
    """Whichever directory is looked at first: inode numbers must not depend on it. Their owners may differ."""
    group = 1 << 32 | 2
    rows = [
        directory(b"", rowid=1),
        directory(b"/a", rowid=2),
        directory(b"/b", rowid=3),
        *(regular(b"/a/%d" % number, b"same", hardlinks=group, uid=1, rowid=4 + number) for number in range(2)),
        *(regular(b"/b/%d" % number, b"same", hardlinks=group, uid=2, rowid=6 + number) for number in range(2)),
    ]
    catalog = open_catalog(objects, CatalogMaker(rows))
    found = {top: [catalog.first_link(entry) for entry in catalog.by_name(top.encode())] for top in order}
    assert found == {"/a": [4, 4], "/b": [6, 6]}
    catalog.close()
