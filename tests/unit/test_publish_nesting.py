"""Nested catalogs by dirtab and by size: which directories get them, when they go, and that markers tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.dirtab import Dirtab
from cvmfs_py.publish.nesting import AUTOMATIC_MARKER, MARKER, apply_nesting, is_generated_marker, load_dirtab
from cvmfs_py.publish.settings import RepositorySettings
from tests.unit.publish_trees import FILE, Content, Repository, put_directories, put_files

if TYPE_CHECKING:
    from pathlib import Path

    from cvmfs_py.publish.tree import WritableTree


def put_dirtab(repository: Repository, tree: WritableTree, text: bytes) -> None:
    content_hash = repository.storage.put_content(text, Kind.BULK, repository.settings)
    tree.put_file(b"/.cvmfsdirtab", FILE, Content(len(text), content_hash))


def apply(repository: Repository, tree: WritableTree) -> None:
    apply_nesting(tree, repository.storage, repository.settings)


# --- the grammar


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        (b"/a", [b"/a"], [b"", b"/b", b"/a/b", b"/ab"]),
        (b"  \t/a/b \r\n", [b"/a/b"], [b"/a", b"/a/b/c"]),
        (b"/a/*", [b"/a/b", b"/a/.b", b"/a/b c"], [b"/a", b"/a/b/c"]),
        (b"/a*/b?\n", [b"/a/b1", b"/axx/b/"[:-1] + b"2"], [b"/a/b", b"/a/b12", b"/a/x/b1"]),
        (b"/a//b/", [b"/a/b"], [b"/a"]),
        (b"# /a\n\n   # /b\n/c", [b"/c"], [b"/a", b"/b"]),
        (b"/a/*\n! /a/b", [b"/a/c"], [b"/a/b"]),
        (b"!/a/b\n/a/*\n/a/*/*", [b"/a/c", b"/a/b/c"], [b"/a/b"]),
        (b"/*/*\n! *.svn", [b"/a/b"], [b"/a/x.svn", b"/x.svn"]),  # an exception's wildcards know no slashes
        (b"/*/*/*\n! /a/*c", [b"/a/b/d", b"/b/b/c"], [b"/a/b/c"]),
        (rb"/a\*b/\?\\", [rb"/a*b/?" + b"\\"], [b"/axb/?\\", b"/a*b/x\\"]),
        (b"/a[b]/{c}", [b"/a[b]/{c}"], [b"/ab/c"]),
        (b"/\xff/*", [b"/\xff/\xfe", b"/\xff/\n"], [b"/x/\xfe"]),
        (b"!", [], [b"/a"]),
        (b"", [], [b"/a"]),
    ],
)
def test_dirtab_matches(text: bytes, matching: list[bytes], others: list[bytes]) -> None:
    dirtab = Dirtab.parse(text)
    assert [path for path in [*matching, *others] if dirtab.matches(path)] == matching
    tree = {b"", *matching, *others}
    tree |= {path[:end] for path in tree for end in range(1, len(path)) if path[end : end + 1] == b"/"}

    def below(path: bytes) -> list[bytes]:
        return sorted(one for one in tree if one and one.rpartition(b"/")[0] == path)

    found = dirtab.find(lambda path: path in tree, below)
    assert found == sorted(path for path in tree if dirtab.matches(path))
    assert set(matching) <= set(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"/a\nb/c", "line 2: b/c"),
        (b"/", "line 1"),
        (b"! /", "line 1"),
        (rb"/a\b", "backslash"),
        (b"/a\\", "backslash"),
        (b"/a/b\n! /a//b", "contradicts"),
    ],
)
def test_a_bad_dirtab_is_refused_as_a_whole(text: bytes, complaint: str) -> None:
    with pytest.raises(PublishError, match=complaint):
        Dirtab.parse(text)


# --- in a tree


def test_the_dirtab_of_the_tree_is_followed(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    with repository.open() as tree:
        put_directories(tree, b"/r", b"/r/1", b"/r/2", b"/r/2/x", b"/other")
        put_files(tree, b"/r/file", b"/r/2/x/file")
        tree.put_symlink(b"/r/latest", FILE, b"2")
        put_dirtab(repository, tree, b"/r/*\n/r/*/x\n! /r/1\n/nowhere/*\n")
        apply(repository, tree)
        catalogs = repository.commit(tree)
        assert set(catalogs) == {b"", b"/r/2", b"/r/2/x"}
        marker = catalogs[b"/r/2"].rows[b"/r/2/" + MARKER]
        top = catalogs[b"/r/2"].rows[b"/r/2"]
        assert (marker["mode"], marker["size"], marker["mtime"]) == (0o100644, 0, top["mtime"])
        assert marker["hash"].hex() == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
        assert (
            repository.storage.read_content(
                repository.storage.put_content(b"", Kind.BULK, repository.settings), Kind.BULK
            )
            == b""
        )
        dirtab = load_dirtab(tree, repository.storage)
        assert is_generated_marker(tree, b"/r/2/" + MARKER, dirtab)
        assert not is_generated_marker(tree, b"/r/1/" + MARKER, dirtab)
        assert not is_generated_marker(tree, b"/r/2/" + MARKER, Dirtab())
        assert not is_generated_marker(tree, b"/r/2/x/file", dirtab)
        apply(repository, tree)
        assert not tree.is_changed
        put_directories(tree, b"/r/3")
        apply(repository, tree)
        assert set(repository.commit(tree)) == {b"", b"/r/2", b"/r/2/x", b"/r/3"}


def test_a_bad_dirtab_stops_the_publication(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    with repository.open() as tree:
        put_dirtab(repository, tree, b"relative/*")
        with pytest.raises(PublishError, match=r"\.cvmfsdirtab, line 1"):
            apply(repository, tree)


def automatic(tmp_path: Path, limit: int) -> Repository:
    return Repository(tmp_path, RepositorySettings(fqrn="unit.test.org", auto_catalog_entries=limit))


def assert_markers(repository: Repository, limit: int) -> None:
    """Every nested catalog has its markers and no other directory has; none is too large."""
    catalogs = repository.read()
    for mountpoint, catalog in catalogs.items():
        assert len(catalog.rows) <= limit
        for name in (MARKER, AUTOMATIC_MARKER):
            holders = [path.rpartition(b"/")[0] for path in catalog.rows if path.endswith(b"/" + name)]
            assert holders == ([mountpoint] if mountpoint else [])


def test_catalogs_above_the_size_are_divided(tmp_path: Path) -> None:
    limit = 40
    repository = automatic(tmp_path, limit)
    with repository.open() as tree:
        for first in range(6):
            put_directories(tree, b"/%d" % first)
            for second in range(6):
                path = b"/%d/%d" % (first, second)
                put_directories(tree, path)
                put_files(tree, *(path + b"/%d" % third for third in range(6)))
        apply(repository, tree)
        catalogs = repository.commit(tree)
        assert 7 <= len(catalogs) <= 20
        assert_markers(repository, limit)
        apply(repository, tree)
        assert not tree.is_changed
        # One more file leaves the others as they are.
        before = {path: catalog.content_hash for path, catalog in catalogs.items()}
        put_files(tree, b"/3/3/new")
        apply(repository, tree)
        after = {path: catalog.content_hash for path, catalog in repository.commit(tree).items()}
        assert_markers(repository, limit)
        changed = [path for path in before if before[path] != after.get(path)]
        assert set(before) <= set(after)
        assert all(path in (b"", b"/3", b"/3/3") for path in changed)
        assert is_generated_marker(tree, sorted(after)[1] + b"/" + AUTOMATIC_MARKER, Dirtab())


def test_a_small_automatic_catalog_is_given_up(tmp_path: Path) -> None:
    limit = 50
    repository = automatic(tmp_path, limit)
    with repository.open() as tree:
        put_directories(tree, b"/a", b"/b")
        put_files(tree, *(b"/a/%d" % number for number in range(40)), *(b"/b/%d" % number for number in range(30)))
        apply(repository, tree)
        assert set(repository.commit(tree)) == {b"", b"/a"}
        for number in range(1, 40):
            tree.remove(b"/a/%d" % number)
        apply(repository, tree)
        catalogs = repository.commit(tree)
        assert set(catalogs) == {b""}
        assert set(catalogs[b""].rows) == {b"", b"/a", b"/a/0", b"/b", *(b"/b/%d" % number for number in range(30))}


def test_a_directory_that_is_too_large_by_itself_stays_whole(tmp_path: Path) -> None:
    repository = automatic(tmp_path, 10)
    with repository.open() as tree:
        put_directories(tree, b"/a", b"/a/b")
        put_files(tree, *(b"/a/b/%d" % number for number in range(40)))
        apply(repository, tree)
        catalogs = repository.commit(tree)
    assert set(catalogs) == {b"", b"/a/b"}


def test_very_deep_trees_are_divided_too(tmp_path: Path) -> None:
    repository = automatic(tmp_path, 50)
    with repository.open() as tree:
        path = b""
        for _ in range(1200):
            path += b"/d"
            put_directories(tree, path)
        apply(repository, tree)
        catalogs = repository.commit(tree)
    assert max(len(catalog.rows) for catalog in catalogs.values()) <= 53
    assert len(catalogs) >= 1200 / 53
