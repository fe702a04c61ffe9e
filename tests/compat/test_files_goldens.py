"""The fixture repository by inode number equals what the reference client showed of it, at every tag."""

from __future__ import annotations

import stat
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Kind, parse_hash
from cache.ref import ObjectRef
from catalog.tree import CatalogTree
from cvmfs_py.vfs.attrs import View, attributes
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import ROOT, Inode, Inodes
from cvmfs_py.vfs.snapshot import Snapshot
from tests.catalog_fixtures import ZooObjects
from tests.compat.zoo_goldens import FQRN, GOLDENS, ROOT_HASHES, Golden
from tests.vfs_world import list_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cvmfs_py.vfs.files import Node

VIEW = View(uid=0, gid=0, link_variables={b"ZOO_SET": b"zoo-value"})


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[ZooObjects]:
    objects = ZooObjects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def open_snapshot(name: str, objects: ZooObjects, attached_limit: int = 100) -> Snapshot:
    root_hash = parse_hash(ROOT_HASHES[name])
    assert root_hash is not None
    tree = CatalogTree(ObjectRef(root_hash, Kind.CATALOG), attached_limit=attached_limit)
    return Snapshot(FQRN, tree, tree.root_properties(objects), VIEW, tag=name)


def walk(files: RepositoryFiles, objects: ZooObjects, limit: int) -> Iterator[tuple[str, Node]]:
    """As a kernel does that keeps everything it was told of."""
    ahead: list[tuple[bytes, Node]] = [(b"", files.node(files.root, objects))]
    while ahead:
        path, node = ahead.pop()
        yield path[1:].decode("latin-1"), node
        if not node.entry.is_directory:
            continue
        for listed in list(list_all(files, node.ino, objects, limit)):
            found = files.lookup(node.ino, listed.entry.name, objects)
            assert found == listed
            files.inodes.remember(found.ino)
            ahead.append((path + b"/" + listed.entry.name, found))


def differences(
    path: str, node: Node, expected: dict[str, Any], files: RepositoryFiles, objects: ZooObjects
) -> list[str]:
    again = files.node(node.ino, objects)
    shown = attributes(again.entry, files.snapshot.view)
    pairs: list[tuple[str, object, object]] = [
        ("ino", again.ino, node.ino),
        ("mode", shown.mode, expected["mode"]),
        ("nlink", shown.link_count, expected["nlink"]),
        ("owner", (shown.uid, shown.gid), (expected["uid"], expected["gid"])),
        ("mtime_ns", shown.mtime_ns, expected["mtime_ns"]),
        ("rdev", shown.rdev, expected["rdev"]),
    ]
    if not stat.S_ISDIR(shown.mode):
        pairs.append(("size", shown.size_bytes, expected["size"]))
    if stat.S_ISLNK(shown.mode):
        pairs.append(("target", files.read_link(node.ino, objects).decode("latin-1"), expected["target"]))
    if stat.S_ISREG(shown.mode):
        spans = files.spans(node.ino, objects)
        pairs.append(("length", sum(span.length for span in spans), expected["size"]))
    return [f"{path}: {what}: {ours!r}, not {theirs!r}" for what, ours, theirs in pairs if ours != theirs]


def compare(files: RepositoryFiles, objects: ZooObjects, golden: Golden, limit: int) -> dict[str, Inode]:
    """The numbers by path."""
    numbers: dict[str, Inode] = {}
    names: dict[Inode, list[str]] = defaultdict(list)
    bad: list[str] = []
    for path, node in walk(files, objects, limit):
        assert path not in numbers
        numbers[path] = node.ino
        names[node.ino].append(path)
        if path in golden.records:
            bad += differences(path, node, golden.records[path], files, objects)
        if node.entry.is_directory and path:
            assert files.parent(node.ino, objects) == numbers[path.rpartition("/")[0]]
    assert not bad
    assert numbers.keys() == golden.records.keys()
    groups = sorted(sorted(group) for group in names.values() if len(group) > 1)
    assert groups == sorted(golden.hardlinks)
    assert max(numbers.values()) <= files.inodes.highest < 1 << 16
    return numbers


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("attached_limit", [2, 100])
def test_every_entry_is_what_the_reference_client_showed(name: str, attached_limit: int, objects: ZooObjects) -> None:
    snapshot = open_snapshot(name, objects, attached_limit)
    files = RepositoryFiles(Inodes(), snapshot, recent_limit=64 if attached_limit == 2 else 4096)
    compare(files, objects, Golden(name), limit=attached_limit + 5)
    assert files.attached_count <= attached_limit
    files.close()


def test_one_mount_shows_every_revision_in_turn(objects: ZooObjects) -> None:
    """Numbers mean the same for ever, and what was kept of older revisions is as it was."""
    files: RepositoryFiles | None = None
    meanings: dict[Inode, tuple[int, int, bytes | None]] = {}
    kept: dict[Inode, list[int]] = defaultdict(list)
    for index, name in enumerate(GOLDENS):
        snapshot = open_snapshot(name, objects)
        if files is None:
            files = RepositoryFiles(Inodes(), snapshot)
        else:
            files.adopt(snapshot)
        for path, ino in compare(files, objects, Golden(name), limit=100).items():
            if ino == ROOT:
                continue
            entry = files.node(ino, objects).entry
            meaning = (entry.mode, entry.mtime_s, entry.digest)
            assert meanings.setdefault(ino, meaning) == meaning, path
            kept[ino].append(index)
    assert files is not None
    for ino, meaning in meanings.items():
        entry = files.node(ino, objects).entry
        assert (entry.mode, entry.mtime_s, entry.digest) == meaning
    assert any(len(set(shown)) > 1 for shown in kept.values())  # of catalogs that revisions share
    for ino, shown in kept.items():
        files.forget(ino, len(shown))
    assert files.inodes.lookups == 0
    assert files.attached_count == files.snapshot.tree.attached_count
    files.close()
