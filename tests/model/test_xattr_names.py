"""Whatever is asked about whatever entry: a value, "no such attribute", "not local" or "damaged", and nothing else."""

from __future__ import annotations

import errno
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.address import ContentHash, Kind
from cache.ref import NotLocal, ObjectRef
from catalog.entry import Entry
from catalog.errors import CatalogError
from catalog.tree import CatalogTree, Located
from catalog.xattrs import pack_xattr_blob
from cvmfs_py.config.parameters import XattrVisibility
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.facts import FACT_NAMES, MountFacts, read_metainfo
from cvmfs_py.vfs.magic import MAGIC, Subject
from cvmfs_py.vfs.snapshot import Snapshot
from cvmfs_py.vfs.xattrs import XattrRules, get_value, list_names
from tests.catalog_fixtures import CatalogMaker, Objects, chunked, directory, regular, store_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = (b"", b"/sw", b"/sw/file", b"/file", b"/broken", b"/broken/file", b"/none", b"/sw/none")
ROW_LIMIT = 8  # of the root catalog, and one that does not exist


@dataclass
class World:
    objects: Objects
    tree: CatalogTree  # of what is asked
    rows: CatalogTree  # of where entries are
    snapshot: Snapshot
    metainfo: ObjectRef

    def catalogs(self) -> tuple[ContentHash, ...]:
        nested = self.rows.nested_refs(b"", self.objects)
        return (self.rows.root_ref.content_hash, *(ref.content_hash for ref in nested), self.metainfo.content_hash)


@contextmanager
def make_world(top: Path) -> Iterator[World]:
    objects = Objects(top / "objects")
    nested = [
        (path, str(store_catalog(objects, CatalogMaker(rows, root_prefix=path, counters=counters)).content_hash), 0)
        for path, rows, counters in (
            (b"/sw", [directory(b"/sw", flags=33), regular(b"/sw/file")], {"self_dir": -(2**63)}),
            (b"/broken", [directory(b"/broken", flags=33)], {"self_chunks": "many"}),
        )
    ]
    rows = [
        directory(b"", rowid=1),
        directory(b"/sw", flags=3),
        directory(b"/broken", flags=3),
        regular(b"/file"),
        chunked(b"/chunked", [(0, 3, b"1" * 20), (3, 4, b"2" * 20)]),
        chunked(b"/with-a-gap", [(0, 3, b"1" * 20), (4, 4, b"2" * 20)]),
        chunked(b"/with-no-hash", [(0, 7, b"1")]),
    ]
    root = store_catalog(objects, CatalogMaker(rows, nested=nested))
    metainfo = ObjectRef(objects.add(b"{}"), Kind.METAINFO)
    tree, places = CatalogTree(root), CatalogTree(root)
    snapshot = Snapshot("test.example.org", tree, tree.root_properties(objects), View(0, 0))
    yield World(objects, tree, places, snapshot, metainfo)
    tree.close()
    places.close()
    assert objects.open_count == 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as top, make_world(Path(top)) as world:
        yield world


SEPARATORS = (b"~", b"@", b"~~", b"@~", b"~@")
PAGES = (b"", b"0", b"1", b"?", b"-1", b"x", b"9" * 240, b"0" * 240, b"\xb2", b"1_0", b" 1")
KNOWN_NAMES = (*MAGIC, b"user.mine", b"security.capability", b"", b"user.")


def names() -> st.SearchStrategy[bytes]:
    base = st.sampled_from(KNOWN_NAMES)
    with_page = st.tuples(base, st.sampled_from(SEPARATORS), st.sampled_from(PAGES))
    return base | with_page.map(b"".join) | with_page.map(b"".join) | st.binary(max_size=255)


def blobs() -> st.SearchStrategy[bytes | None]:
    packed = st.dictionaries(names().filter(bool), st.binary(max_size=255), max_size=4).map(
        lambda xattrs: pack_xattr_blob(xattrs).blob
    )
    return st.none() | packed | st.binary(max_size=40)


KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(KINDS))
    algorithm = draw(st.integers(0, 2)) << 8
    return Entry(
        rowid=draw(st.integers(1, ROW_LIMIT)),
        name=b"name",
        mode=kind | 0o644,
        size=draw(st.integers(0, 8) | st.integers(0, 2**63 - 1)),
        mtime_s=0,
        mtime_ns=0,
        uid=0,
        gid=0,
        hardlinks=1,
        flags=draw(st.integers(0, 2**18 - 1)) & ~0x700 | algorithm,
        digest=draw(st.none() | st.binary(min_size=20, max_size=20)),
        symlink=draw(st.binary(max_size=20)),
        xattr_blob=draw(blobs()),
    )


TEXTS = st.text(max_size=3) | st.just("x" * 50_000) | st.sampled_from(["\udc80", "\ud800"])
FACT_VALUES: st.SearchStrategy[Any] = TEXTS | st.integers() | st.lists(TEXTS, max_size=3).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> XattrRules:
    return XattrRules(
        draw(st.sampled_from(XattrVisibility)),
        draw(st.frozensets(names(), max_size=3)),
        draw(st.frozensets(st.integers(0, 3), max_size=2)),
    )


@given(
    path=st.sampled_from(PATHS),
    entry=entries(),
    asked=st.lists(names(), min_size=1, max_size=12),
    rules=rules(),
    gids=st.frozensets(st.integers(0, 3), max_size=2),
    value=FACT_VALUES,
    unknown=st.sets(st.sampled_from(sorted(FACT_NAMES)), max_size=3),
    missing=st.sets(st.integers(0, 3)),
    is_pinned=st.booleans(),
)
def test_nothing_else_is_raised(
    world: World,
    path: bytes,
    entry: Entry,
    asked: list[bytes],
    rules: XattrRules,
    gids: frozenset[int],
    value: Any,
    unknown: set[str],
    missing: set[int],
    is_pinned: bool,
) -> None:
    facts = MountFacts(
        dict.fromkeys(FACT_NAMES - unknown, lambda: value),
        str,
        lambda open_object: read_metainfo(world.metainfo, open_object),
    )
    place = world.rows.catalog_for(b"", world.objects)
    snapshot = Snapshot("test.example.org", world.tree, world.snapshot.properties, View(0, 0), is_pinned=is_pinned)
    subject = Subject(Located(entry, place, path), snapshot, facts)
    listed = list_names(subject, rules, gids)
    assert len(listed) == len(set(listed))
    catalogs = world.catalogs()
    world.tree.close()
    world.objects.missing = {catalogs[index] for index in missing}
    for name in (*asked, *listed):
        answer = ask(world, subject, name, rules, gids)
        assert isinstance(answer, (bytes, CatalogError)) or answer == errno.ENODATA
        assert answer != errno.ENODATA or name not in listed or has_no_pages(subject, name)


def ask(world: World, subject: Subject, name: bytes, rules: XattrRules, gids: frozenset[int]) -> object:
    """The value, or the number of an error, or what says that the catalog is damaged."""
    while True:
        try:
            return get_value(subject, name, rules, gids, world.objects)
        except NotLocal as answer:
            needed = {ref.content_hash for ref in answer.refs}
            assert needed <= world.objects.missing  # something new each time, so this ends
            world.objects.missing -= needed
        except FsError as error:
            return error.errno
        except CatalogError as error:
            return error


def has_no_pages(subject: Subject, name: bytes) -> bool:
    """A list that is empty."""
    return name == b"user.pubkeys" and not subject.facts.values["pubkeys"]()
