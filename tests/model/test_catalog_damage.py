"""Any bytes of a catalog or tag database may be wrong: the answer is an entry or a CatalogError, nothing else."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Kind, parse_hash
from cache.ref import ObjectRef
from catalog.content import file_spans
from catalog.errors import CatalogError
from catalog.history import History
from catalog.reader import Catalog
from catalog.xattrs import parse_xattr_blob
from tests.catalog_fixtures import (
    CatalogMaker,
    Objects,
    Row,
    ZooObjects,
    chunked,
    directory,
    regular,
    symlink,
    zoo_manifest,
)

if TYPE_CHECKING:
    from catalog.entry import Entry

DIRECTORIES = (b"", b"/d", b"/d/e")
ROWS = [
    directory(b"", rowid=1),
    directory(b"/d"),
    directory(b"/d/e", xattr=b"\1\1\6\1user.xv"),
    directory(b"/n", flags=3),
    chunked(b"/d/chunked", [(0, 3, b"\1" * 20), (3, 4, b"\2" * 20)]),
    symlink(b"/d/link", b"../$(X)"),
    Row(b"/d/null", 0o020666, {"size": 0x103, "flags": 20}),
    *(regular(b"/d/e/file-%03d" % number, b"content", hardlinks=1 << 32 | 2, mtimens=number) for number in range(60)),
]


@cache
def whole_catalog() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return CatalogMaker(
            ROWS, nested=[(b"/n", "a" * 40, 4096)], binds=[(b"/d/bind", "b" * 40, 0)], counters={"self_dir": 3}
        ).write(Path(folder) / "catalog")


@cache
def whole_history() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        content_hash = parse_hash(zoo_manifest(7)["H"])
        assert content_hash is not None
        objects = ZooObjects(Path(folder))
        with closing(objects(ObjectRef(content_hash, Kind.HISTORY))) as opened:
            return opened.read()


def check_entry(entry: Entry) -> None:
    assert b"/" not in entry.name
    assert stat.S_IFMT(entry.mode) != 0
    assert 0 <= entry.mtime_ns < 1_000_000_000
    assert entry.content_hash is None or len(entry.content_hash.digest) == 20
    assert entry.compression < 8
    parse_xattr_blob(entry.xattr_blob)


def explore(catalog: Catalog) -> None:
    """Asks everything that can be asked; an error of one question does not keep the others from being asked."""
    for path in (*DIRECTORIES, b"/d/chunked", b"/d/e/file-007", b"/none", b"/n"):
        with suppress(CatalogError):
            entry = catalog.lookup(path)
            if entry is not None:
                check_entry(entry)
                assert entry.name == path.rpartition(b"/")[2]
    for path in DIRECTORIES:
        with suppress(CatalogError):
            names = [entry.name for entry in catalog.by_name(path)]
            assert names == sorted(set(names))
        with suppress(CatalogError):
            list(catalog.by_name(path, only_directories=True))
        with suppress(CatalogError):
            after: int | None = 0
            while after is not None:
                page = catalog.page(path, after, 7)
                assert page.next_rowid is None or page.next_rowid > after
                after = page.next_rowid
                for entry in page.entries:
                    explore_entry(catalog, entry, path + b"/" + entry.name)
    with suppress(CatalogError):
        catalog.counters()
    catalog.transitions.all()


def explore_entry(catalog: Catalog, entry: Entry, path: bytes) -> None:
    check_entry(entry)
    with suppress(CatalogError):
        assert catalog.path_of(entry.rowid) in (path, None)  # None: the row cannot be found by its number
    with suppress(CatalogError):
        assert catalog.first_link(entry) <= catalog.max_rowid
    with suppress(CatalogError):
        catalog.entry(entry.rowid)
    if entry.is_regular:
        with suppress(CatalogError):
            spans = file_spans(catalog, entry, path)
            assert sum(span.length for span in spans) == entry.size


def damage(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(content)
    for position, value in flips:
        damaged[position % len(damaged)] = value
    return bytes(damaged)


# Headers of pages and cells are where a byte does the most harm.
POSITIONS = st.one_of(
    st.integers(0, 1 << 20),
    st.integers(0, 99),
    st.builds(lambda page, offset: page * 1024 + offset, st.integers(0, 200), st.integers(0, 40)),
)
FLIPS = st.lists(st.tuples(POSITIONS, st.integers(0, 255)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=400)
@given(FLIPS, st.booleans())
def test_a_damaged_catalog_gives_answers_or_catalog_errors(flips: list[tuple[int, int]], nameless: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        objects = Objects(Path(folder), nameless=nameless)
        content_hash = objects.add(damage(whole_catalog(), flips))
        with suppress(CatalogError):
            catalog = Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)
            explore(catalog)
            catalog.close()
        assert objects.open_count == 0


@settings(deadline=None, max_examples=100)
@given(FLIPS)
def test_a_damaged_tag_database_gives_tags_or_catalog_errors(flips: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        objects = Objects(Path(folder))
        content_hash = objects.add(damage(whole_history(), flips))
        with suppress(CatalogError), History.open(objects(ObjectRef(content_hash))) as history:
            for ask in (history.tags, lambda: history.by_name("trunk"), lambda: history.by_date(1 << 40)):
                with suppress(CatalogError):
                    ask()
        assert objects.open_count == 0


def test_the_undamaged_databases_answer_without_errors() -> None:
    """Else the tests above would test nothing."""
    with tempfile.TemporaryDirectory() as folder:
        objects = Objects(Path(folder))
        content_hash = objects.add(whole_catalog())
        with closing(Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)) as catalog:
            assert len(list(catalog.by_name(b"/d/e"))) == 60
            explore(catalog)
        content_hash = objects.add(whole_history())
        with History.open(objects(ObjectRef(content_hash))) as history:
            assert len(history.tags()) == 8
        assert objects.open_count == 0


def test_pages_that_refer_to_each_other_in_a_mesh_do_not_hold_anybody_up() -> None:
    """All children of an interior page are one page, level after level: a small file with endlessly many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh"
        rows = [directory(b"", rowid=1), *(regular(b"/%05d" % number) for number in range(4000))]
        content = bytearray(CatalogMaker(rows).write(path))
        with closing(sqlite3.connect(path)) as connection:
            statement = "SELECT rootpage FROM sqlite_master WHERE name = 'idx_catalog_parent'"
            (root_page,) = connection.execute(statement).fetchone()
        weave(content, root_page, levels=12)
        objects = Objects(Path(folder) / "objects")
        content_hash = objects.add(bytes(content))
        with closing(Catalog.open(objects(ObjectRef(content_hash)), b"", content_hash)) as catalog:
            for only_directories in (False, True):
                with pytest.raises(CatalogError, match="a query does not end"):
                    list(catalog.by_name(b"", only_directories=only_directories))
            with pytest.raises(CatalogError, match="out of order"):
                list_in_pages(catalog, b"")
        assert objects.open_count == 0


def list_in_pages(catalog: Catalog, path: bytes) -> None:
    after: int | None = 0
    while after is not None:
        after = catalog.page(path, after, 1000).next_rowid


PAGE_BYTES = 1024
INTERIOR_INDEX_PAGE = 2


def weave(content: bytearray, root_page: int, levels: int) -> None:
    """Puts copies of an index's root page between it and one of its children; each copy leads to the next only."""
    page = content[(root_page - 1) * PAGE_BYTES : root_page * PAGE_BYTES]
    assert page[0] == INTERIOR_INDEX_PAGE
    child = int.from_bytes(page[8:12], "big")
    for _ in range(levels):
        content += with_children(page, child)
        child = len(content) // PAGE_BYTES
    content[(root_page - 1) * PAGE_BYTES : root_page * PAGE_BYTES] = with_children(page, child)
    content[28:32] = (len(content) // PAGE_BYTES).to_bytes(4, "big")  # the size of the database in its header


def with_children(page: bytes | bytearray, child: int) -> bytes:
    changed = bytearray(page)
    changed[8:12] = child.to_bytes(4, "big")
    for index in range(int.from_bytes(page[3:5], "big")):
        pointer = 12 + 2 * index
        cell = int.from_bytes(page[pointer : pointer + 2], "big")
        changed[cell : cell + 4] = child.to_bytes(4, "big")
    return bytes(changed)
