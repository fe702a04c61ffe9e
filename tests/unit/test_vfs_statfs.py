"""What statfs says: the cache as space, the entries of the repository as inodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.ref import NotLocal
from catalog.errors import CatalogError
from catalog.tree import CatalogTree
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.snapshot import Snapshot
from cvmfs_py.vfs.statfs import FileSystemStatus, file_system_status
from tests.catalog_fixtures import CatalogMaker, Objects, directory, store_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def snapshot(objects: Objects, **counters: object) -> Snapshot:
    nested = store_catalog(
        objects, CatalogMaker([directory(b"/sw", flags=33)], root_prefix=b"/sw", counters={"self_dir": 1})
    )
    rows = [directory(b"", rowid=1), directory(b"/sw", flags=3)]
    maker = CatalogMaker(rows, nested=[(b"/sw", str(nested.content_hash), 0)], counters=counters)
    tree = CatalogTree(store_catalog(objects, maker))
    return Snapshot("test.example.org", tree, tree.root_properties(objects), View(0, 0))


COUNTERS = {"self_dir": 2, "self_symlink": 3, "self_special": 4, "self_regular": 5, "subtree_dir": 1}


def test_space_is_that_of_the_cache(objects: Objects) -> None:
    shown = snapshot(objects, **COUNTERS)
    status = file_system_status(shown, 4000 << 20, 1000 << 20, objects)
    assert (status.block_bytes, status.blocks, status.free_blocks) == (512, 4000 << 11, 3000 << 11)
    # What is pinned may exceed the limit; nothing is free then, and nothing is negative.
    status = file_system_status(shown, 1 << 20, 2 << 20, objects)
    assert (status.blocks, status.free_blocks) == (1 << 11, 0)
    status = file_system_status(shown, None, 1 << 20, objects)
    assert (status.blocks, status.free_blocks) == (1 << 11, 0)
    assert status.files == 15
    shown.tree.close()


def test_free_inodes_are_entries_of_catalogs_that_were_not_needed(objects: Objects) -> None:
    shown = snapshot(objects, **COUNTERS)
    status = file_system_status(shown, None, 0, objects)
    assert (status.files, status.free_files) == (15, 1)
    shown.tree.open_directory(b"/sw", objects)
    status = file_system_status(shown, None, 0, objects)
    assert (status.files, status.free_files) == (15, 0)
    shown.tree.close()


def test_a_cache_that_nobody_accounts_for(objects: Objects) -> None:
    shown = snapshot(objects, **COUNTERS)
    status = file_system_status(shown, None, None, objects)
    assert status == FileSystemStatus(0, 0, 0, 0, 512, 255)
    shown.tree.close()


def test_needs_the_root_catalog_alone(objects: Objects) -> None:
    shown = snapshot(objects, **COUNTERS)
    shown.tree.close()
    root = shown.tree.root_ref.content_hash
    objects.missing.add(root)
    with pytest.raises(NotLocal) as caught:
        file_system_status(shown, 0, 0, objects)
    assert [ref.content_hash for ref in caught.value.refs] == [root]


def test_counters_that_cannot_be(objects: Objects) -> None:
    for counters, files in (({}, 0), ({"self_dir": -5}, 0), ({"self_dir": 2**63 - 1, "subtree_dir": 5}, 2**63 - 1)):
        shown = snapshot(objects, **counters)
        status = file_system_status(shown, 0, 0, objects)
        assert status.files == files
        assert 0 <= status.free_files <= files
        shown.tree.close()
    shown = snapshot(objects, self_dir="many")
    with pytest.raises(CatalogError):
        file_system_status(shown, 0, 0, objects)
    shown.tree.close()
