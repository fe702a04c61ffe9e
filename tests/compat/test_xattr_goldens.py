"""Extended attributes and statfs of every entry of the zoo, against what the reference client answered."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Any

import pytest

from catalog.tree import CatalogTree
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.facts import FACT_NAMES, MountFacts, read_metainfo
from cvmfs_py.vfs.magic import Subject
from cvmfs_py.vfs.snapshot import Snapshot
from cvmfs_py.vfs.statfs import file_system_status
from cvmfs_py.vfs.xattrs import XattrRules, get_value, list_names
from tests.compat.test_catalog_goldens import REVISIONS, golden, objects, root_ref, walk

if TYPE_CHECKING:
    from catalog.directory import Located
    from tests.catalog_fixtures import ZooObjects

__all__ = ["objects"]  # a fixture

FQRN = "zoo.test.org"
VOLATILE = "(volatile)"
ROOT_GIDS = (0,)
QUOTA_BYTES = 4000 << 20
RULES = XattrRules()
FACTS = MountFacts(
    {name: (lambda name=name: f"<{name}>") for name in FACT_NAMES},
    str,
    lambda open_object: read_metainfo(None, open_object),
)


def make_snapshot(name: str, tree: CatalogTree, objects: ZooObjects) -> Snapshot:
    tag = "" if name == "head-r7" else name
    return Snapshot(FQRN, tree, tree.root_properties(objects), View(0, 0), tag=tag)


def answer(subject: Subject, name: str, objects: ZooObjects) -> str:
    """As the golden has it."""
    try:
        return get_value(subject, name.encode("latin-1"), RULES, ROOT_GIDS, objects).decode("latin-1")
    except FsError as error:
        return f"!{error.errno}"


def is_let_through(subject: Subject, name: str) -> bool:
    """Linux asks nobody for `user.` attributes of links and special files."""
    return not name.startswith("user.") or subject.entry.is_regular or subject.entry.is_directory


def compare(subject: Subject, record: dict[str, Any], objects: ZooObjects) -> int:
    """Compares all attributes; returns how many."""
    listed = [name.decode("latin-1") for name in list_names(subject, RULES, ROOT_GIDS)]
    assert sorted(listed) == sorted(record["xattrs"]), record["path"]
    expected = record["xattrs"] | record.get("asked", {})
    for name, value in expected.items():
        ours = answer(subject, name, objects)
        if not is_let_through(subject, name):
            assert value == f"!{errno.ENODATA}"
        elif name == "user.repo_metainfo":  # the reference client never finds it
            assert (value, ours) == ("manifest not available", "metainfo not available")
        elif value == VOLATILE:
            assert not ours.startswith("!"), name
        else:
            assert ours == value, (record["path"], name)
    return len(expected)


@pytest.mark.parametrize("name", REVISIONS)
def test_every_attribute_is_that_of_the_reference_client(name: str, objects: ZooObjects) -> None:
    records, summary = golden(name)
    tree = CatalogTree(root_ref(name, objects))
    snapshot = make_snapshot(name, tree, objects)
    root = tree.lookup(b"", objects)
    assert root is not None
    assert file_system_status(snapshot, QUOTA_BYTES, 0, objects).free_files > 0
    seen: set[str] = set()
    compared = 0
    for located in walk(tree, objects, root):
        path = located.path.removeprefix(b"/").decode("latin-1")
        compared += compare(Subject(located, snapshot, FACTS), records[path], objects)
        seen.add(path)
    assert seen == records.keys()
    assert compared == sum(len(record["xattrs"] | record.get("asked", {})) for record in records.values())
    assert compared > 15 * 200
    compare_status(snapshot, summary["statvfs"], objects)
    tree.close()


def compare_status(snapshot: Snapshot, statvfs: dict[str, int], objects: ZooObjects) -> None:
    """After a walk, as the golden was recorded: every catalog is attached."""
    status = file_system_status(snapshot, QUOTA_BYTES, 1 << 20, objects)
    assert status.block_bytes == statvfs["bsize"] == statvfs["frsize"]
    assert (status.files, status.free_files) == (statvfs["files"], statvfs["ffree"])
    # The reference client leaves this field out, although the zoo has names of 255 bytes.
    assert (status.name_limit_bytes, statvfs["namemax"]) == (255, 0)


def raw_link(located: Located, snapshot: Snapshot, objects: ZooObjects) -> tuple[str, str]:
    subject = Subject(located, snapshot, FACTS)
    return answer(subject, "user.rawlink", objects), answer(subject, "xfsroot.rawlink", objects)


def test_both_names_of_a_raw_link_say_the_same(objects: ZooObjects) -> None:
    """Linux asks for one of them only."""
    records, _ = golden("head-r7")
    tree = CatalogTree(root_ref("head-r7", objects))
    snapshot = make_snapshot("head-r7", tree, objects)
    links = [path for path, record in records.items() if stat.S_ISLNK(record["mode"])]
    assert len(links) > 20
    for path in links:
        located = tree.lookup(b"/" + path.encode("latin-1"), objects)
        assert located is not None
        expected = records[path]["asked"]["xfsroot.rawlink"]
        assert raw_link(located, snapshot, objects) == (expected, expected)
    tree.close()
