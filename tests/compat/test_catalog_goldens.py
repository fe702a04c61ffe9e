"""Every entry of the zoo, as its catalogs have it, against what the reference client showed of the same revisions."""

from __future__ import annotations

import gzip
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Kind, parse_hash
from cache.ref import ObjectRef
from catalog.content import file_spans
from catalog.history import History
from catalog.tree import CatalogTree
from catalog.xattrs import parse_xattr_blob
from tests.catalog_fixtures import ZOO, ZooObjects, zoo_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from catalog.tree import Located

REVISIONS = ("head-r7", "v1", "v2", "v3-plain", "v4-external")
NO_SUCH_ATTRIBUTE = "!61"
COMPRESSION_NAMES = {0: "zlib", 1: "none"}


def golden(name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The records by path, and the summary."""
    with gzip.open(ZOO / "golden" / f"{name}.jsonl.gz", "rt") as lines:
        *records, summary = (json.loads(line) for line in lines)
    return {record["path"]: record for record in records}, summary


def root_ref(name: str, objects: ZooObjects) -> ObjectRef:
    manifest = zoo_manifest(7)
    if name == "head-r7":
        content_hash = parse_hash(manifest["C"])
        assert content_hash is not None
        return ObjectRef(content_hash, Kind.CATALOG)
    history_hash = parse_hash(manifest["H"])
    assert history_hash is not None
    with History.open(objects(ObjectRef(history_hash, Kind.HISTORY)), history_hash) as history:
        history.check_fqrn("zoo.test.org")
        tag = history.by_name(name)
    assert tag is not None
    return tag.root_ref


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[ZooObjects]:
    objects = ZooObjects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def walk(tree: CatalogTree, objects: ZooObjects, located: Located) -> Iterator[Located]:
    """By pages as a file system lists, in small ones so that there are several."""
    yield located
    if not located.entry.is_directory:
        return
    view = tree.open_directory(located.path, objects)
    assert view is not None
    after: int | None = 0
    while after is not None:
        page = view.page(after, 100)
        for entry in page.entries:
            child = tree.lookup(located.path + b"/" + entry.name, objects)
            assert child is not None
            assert child.entry == entry
            yield from walk(tree, objects, child)
        after = page.next_rowid


def walk_by_name(tree: CatalogTree, objects: ZooObjects, path: bytes) -> Iterator[bytes]:
    view = tree.open_directory(path, objects)
    assert view is not None
    yield from (located.path for located in view.by_name())
    for directory in view.subdirectories():
        yield from walk_by_name(tree, objects, directory.path)


def chunk_list(located: Located) -> list[str]:
    entry = located.entry
    if entry.is_chunked:
        return [f"{c.content_hash},{c.offset},{c.size}" for c in located.catalog.chunks(entry)]
    return [f"{entry.content_hash},0,{entry.size}"]


def compare(located: Located, record: dict[str, Any]) -> None:
    entry = located.entry
    assert entry.mode == record["mode"]
    assert entry.link_count == record["nlink"]
    assert (entry.uid, entry.gid) == (record["uid"], record["gid"])
    assert entry.mtime_s * 1_000_000_000 + entry.mtime_ns == record["mtime_ns"]
    if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        assert entry.size == record["rdev"]
    elif entry.is_symlink:
        if b"$(" not in entry.symlink:
            assert entry.symlink == os.fsencode(record["target"].encode("latin-1"))
            assert entry.size == record["size"]
    elif not entry.is_directory:
        assert entry.size == record["size"]
    stored = {k.decode("latin-1"): v.decode("latin-1") for k, v in parse_xattr_blob(entry.xattr_blob).items()}
    if located.path:
        # the reference shows magic attributes at the root only; symlinks list what they store, minus nothing
        assert stored == {k: v for k, v in record["xattrs"].items() if not k.startswith("xfsroot.")}
    compare_asked(located, record.get("asked"))


def compare_asked(located: Located, asked: dict[str, str] | None) -> None:
    if asked is None:
        return
    entry = located.entry
    expected_hash = NO_SUCH_ATTRIBUTE if entry.content_hash is None else str(entry.content_hash)
    assert asked["user.hash"] == expected_hash
    if entry.is_symlink:
        assert asked["xfsroot.rawlink"].encode("latin-1") == entry.symlink
    if not entry.is_regular:
        assert asked["user.chunks"] == NO_SUCH_ATTRIBUTE
        return
    header, *lines = asked["user.chunk_list"].splitlines()
    assert header == "hash,offset,size"
    assert lines == chunk_list(located)
    assert asked["user.chunks"] == str(len(lines))
    assert asked["user.compression"] == COMPRESSION_NAMES[entry.compression]
    assert asked["user.external_file"] == str(int(entry.is_external))
    assert asked["user.direct_io"] == str(int(entry.is_direct_io))


def compare_counters(tree: CatalogTree, objects: ZooObjects, located: Located, record: dict[str, Any]) -> None:
    if "asked" not in record or not (located.entry.is_directory or located.entry.is_regular):
        return  # Linux refuses user.* attributes elsewhere
    catalog = tree.catalog_within(located.path, objects)
    lines = [f"catalog_hash: {catalog.content_hash}", f"catalog_mountpoint: {catalog.mountpoint.decode()}"]
    lines += [f"{name},{count}" for name, count in sorted(catalog.counters().total.items())]
    assert record["asked"]["user.catalog_counters"] == "".join(line + "\n" for line in lines)


@pytest.mark.parametrize("name", REVISIONS)
@pytest.mark.parametrize("attached_limit", [2, 100])
def test_a_walk_shows_what_the_reference_client_shows(name: str, attached_limit: int, objects: ZooObjects) -> None:
    records, summary = golden(name)
    tree = CatalogTree(root_ref(name, objects), attached_limit=attached_limit)
    seen: set[str] = set()
    links: dict[tuple[bytes, int], list[str]] = {}
    root = tree.lookup(b"", objects)
    assert root is not None
    for located in walk(tree, objects, root):
        path = located.path.removeprefix(b"/").decode("latin-1")
        compare(located, records[path])
        compare_counters(tree, objects, located, records[path])
        assert path not in seen
        seen.add(path)
        # the counters may have evicted the catalog; a new look-up attaches it again
        again = tree.lookup(located.path, objects)
        assert again is not None
        if again.entry.hardlink_group:
            links.setdefault((again.catalog.mountpoint, again.catalog.first_link(again.entry)), []).append(path)
    assert seen == records.keys()
    assert sorted(sorted(members) for members in links.values()) == summary["hardlinks"]
    by_name = [path.removeprefix(b"/").decode("latin-1") for path in walk_by_name(tree, objects, b"")]
    assert sorted(by_name) == sorted(records.keys() - {""})
    tree.close()


@pytest.mark.parametrize("name", REVISIONS)
def test_the_root_knows_its_revision_and_the_number_of_entries(name: str, objects: ZooObjects) -> None:
    records, summary = golden(name)
    tree = CatalogTree(root_ref(name, objects))
    assert str(tree.root_properties(objects).revision) == records[""]["asked"]["user.revision"]
    assert str(tree.root_ref.content_hash) == records[""]["asked"]["user.root_hash"]
    assert tree.catalog_for(b"", objects).counters().entries == summary["statvfs"]["files"]
    tree.close()


def test_the_spans_of_every_file_of_the_head_name_objects_that_exist(objects: ZooObjects) -> None:
    """Inflated and put together they are as long as the file, and external ones name the file itself."""
    tree = CatalogTree(root_ref("head-r7", objects))
    root = tree.lookup(b"", objects)
    assert root is not None
    kinds = set()
    for located in walk(tree, objects, root):
        if not located.entry.is_regular or located.path.startswith(b"/dirs/many"):
            continue
        end = 0
        for span in file_spans(located.catalog, located.entry, located.path):
            assert span.offset == end
            end = span.end
            kinds.add((span.ref.kind, span.ref.verbatim, span.ref.external is not None))
            if span.ref.external is None:
                with_content = objects(span.ref)
                assert with_content.size_bytes == span.length == span.ref.size_bytes
                with_content.close()
            else:
                assert span.ref.external.path == located.path
        assert end == located.entry.size
    tree.close()
    assert {
        (Kind.BULK, False, False),
        (Kind.CHUNK, False, False),
        (Kind.BULK, True, True),
        (Kind.CHUNK, True, True),
    } <= kinds


def test_every_row_of_the_head_leads_back_to_its_path(objects: ZooObjects) -> None:
    tree = CatalogTree(root_ref("head-r7", objects), attached_limit=3)
    root = tree.lookup(b"", objects)
    assert root is not None
    for located in walk(tree, objects, root):
        mountpoint, rowid = located.catalog.mountpoint, located.entry.rowid
        again = tree.located_row(mountpoint, rowid, objects)
        assert again is not None
        assert (again.path, again.entry) == (located.path, located.entry)
    tree.close()
