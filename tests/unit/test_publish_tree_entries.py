"""Entries of a writable tree: hard links, replacing one kind by another, and what is refused or left out."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash
from catalog.entry import Chunk
from catalog.xattrs import pack_xattr_blob, parse_xattr_blob
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes, TreeWarning
from tests.unit.publish_trees import DIRECTORY, FILE, Content, Repository, content, put_directories, put_files

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def links(repository: Repository) -> dict[bytes, tuple[int, int]]:
    """Group and link count of everything that is no directory."""
    rows = repository.read()[b""].rows
    found = {path: row["hardlinks"] for path, row in rows.items() if row.type != stat.S_IFDIR}
    return {path: (value >> 32, value & 0xFFFFFFFF) for path, value in found.items()}


def test_a_group_grows_shrinks_and_dissolves(repository: Repository) -> None:
    with repository.open() as tree:
        assert tree.put_file(b"/a", FILE, content("x"), other_names=(b"/b", b"/c"))
        repository.commit(tree)
        assert links(repository) == {b"/a": (1, 3), b"/b": (1, 3), b"/c": (1, 3)}
        assert tree.hard_link([b"/b", b"/d"])
        repository.commit(tree)
        assert links(repository) == dict.fromkeys((b"/a", b"/b", b"/c", b"/d"), (1, 4))
        assert tree.link_group(b"/d") == (b"/a", b"/b", b"/c", b"/d")
        tree.remove(b"/a")
        tree.put_file(b"/b", FILE, content("y"))
        repository.commit(tree)
        assert links(repository) == {b"/b": (0, 1), b"/c": (1, 2), b"/d": (1, 2)}
        tree.remove(b"/c")
        repository.commit(tree)
        assert links(repository) == {b"/b": (0, 1), b"/d": (0, 1)}


def test_the_same_group_again_changes_nothing(repository: Repository) -> None:
    with repository.open() as tree:
        tree.put_file(b"/a", FILE, content("x"), other_names=(b"/b",))
        repository.commit(tree)
        assert not tree.put_file(b"/a", FILE, content("x"), other_names=(b"/b",))
        assert not tree.put_file(b"/b", FILE, content("x"), other_names=(b"/b", b"/a"))
        assert not tree.hard_link([b"/a", b"/b"])
        assert not tree.is_changed
        assert tree.put_file(b"/a", FILE, content("x"))  # a file of its own now
        repository.commit(tree)
    assert links(repository) == {b"/a": (0, 1), b"/b": (0, 1)}


def test_attributes_belong_to_all_names(repository: Repository) -> None:
    with repository.open() as tree:
        tree.put_file(b"/a", FILE, content("x"), other_names=(b"/b",))
        assert tree.set_attributes(b"/b", DIRECTORY)
        assert not tree.set_attributes(b"/a", DIRECTORY)
        rows = repository.commit(tree)[b""].rows
    assert rows[b"/a"]["mode"] == rows[b"/b"]["mode"] == 0o100755
    assert links(repository) == {b"/a": (1, 2), b"/b": (1, 2)}


def test_hard_links_across_directories_are_broken_up_with_a_warning(repository: Repository) -> None:
    chunks = tuple(Chunk(offset, 5, ContentHash(Algorithm.SHA1, bytes([offset + 1] * 20))) for offset in (0, 5))
    with repository.open() as tree:
        put_directories(tree, b"/d")
        tree.put_file(b"/a", FILE, Content(10, None, chunks), other_names=(b"/b", b"/d/c"))
        assert [warning.path for warning in tree.warnings] == [b"/d/c"]
        assert "/a" in tree.warnings[0].message
        assert tree.hard_link([b"/a", b"/d/e"])
        catalog = repository.commit(tree)[b""]
    assert links(repository) == {b"/a": (1, 2), b"/b": (1, 2), b"/d/c": (0, 1), b"/d/e": (0, 1)}
    assert all(len(catalog.rows[path].chunks) == 2 for path in (b"/a", b"/b", b"/d/c", b"/d/e"))


def test_symlinks_and_devices_can_be_hard_links_too(repository: Repository) -> None:
    with repository.open() as tree:
        assert tree.put_symlink(b"/a", FILE, b"x", other_names=(b"/b",))
        assert tree.put_special(b"/c", FILE, stat.S_IFCHR, 0x103, other_names=(b"/d",))
        rows = repository.commit(tree)[b""].rows
        assert not tree.put_symlink(b"/b", FILE, b"x", other_names=(b"/a",))
    assert rows[b"/c"]["size"] == rows[b"/d"]["size"] == 0x103
    assert links(repository) == {b"/a": (1, 2), b"/b": (1, 2), b"/c": (2, 2), b"/d": (2, 2)}


def test_one_kind_replaces_another(repository: Repository) -> None:
    with repository.open() as tree:
        put_directories(tree, b"/x", b"/x/y")
        put_files(tree, b"/x/y/z")
        assert tree.put_symlink(b"/x", FILE, b"y")
        assert tree.lookup(b"/x/y") is None
        assert tree.put_special(b"/x", FILE, stat.S_IFIFO, 5)  # only devices have numbers
        assert tree.put_file(b"/x", FILE, content("x"))
        assert tree.put_directory(b"/x", DIRECTORY)
        assert not tree.put_directory(b"/x", DIRECTORY)
        rows = repository.commit(tree)[b""].rows
    assert set(rows) == {b"", b"/x"}
    assert (rows[b"/x"]["mode"], rows[b"/x"]["hardlinks"], rows[b"/x"]["size"]) == (0o40755, 2, 4096)
    assert rows[b""]["rowid"] == 1


def test_modes_are_those_of_the_kind(repository: Repository) -> None:
    """Whatever else is in the mode that a stat gave."""
    with repository.open() as tree:
        tree.put_file(b"/a", Attributes(mode=0o104755), content("x"))
        tree.put_symlink(b"/b", Attributes(mode=0o120777), b"x")
        tree.put_special(b"/c", Attributes(mode=0o60600), stat.S_IFBLK, 0x700)
        rows = repository.commit(tree)[b""].rows
    assert [rows[path]["mode"] for path in (b"/a", b"/b", b"/c")] == [0o104755, 0o120777, 0o60600]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (b"/" + b"n" * 256, "256 bytes"),
        (b"/a\0b", "NUL"),
        (b"/missing/a", "/missing is not there"),
        (b"/file/a", "/file is no directory"),
        (b"/d/", "normal paths"),
        (b"/d/.", "normal paths"),
        (b"/d/../x", "is not there"),
        (b"//x", "is not there"),
        (b"relative", "normal paths"),
        (b"", "normal paths"),
    ],
)
def test_impossible_paths_are_refused(repository: Repository, path: bytes, complaint: str) -> None:
    with repository.open() as tree:
        put_directories(tree, b"/d")
        put_files(tree, b"/file")
        for put in (
            lambda: tree.put_file(path, FILE, content("x")),
            lambda: tree.put_symlink(path, FILE, b"x"),
            lambda: tree.put_special(path, FILE, stat.S_IFSOCK),
            lambda: tree.hard_link([b"/file", path]),
        ):
            with pytest.raises(PublishError, match=complaint):
                put()
        if path:
            with pytest.raises(PublishError, match=complaint):
                tree.put_directory(path, DIRECTORY)
        assert set(repository.commit(tree)[b""].rows) == {b"", b"/d", b"/file"}


def test_names_of_255_bytes_of_any_kind_are_fine(repository: Repository) -> None:
    name = b"/" + bytes(range(1, 47)) + bytes(range(48, 256)) + b"."
    assert len(name) == 256
    with repository.open() as tree:
        put_files(tree, name)
        assert set(repository.commit(tree)[b""].rows) == {b"", name}


def test_impossible_values_are_refused(repository: Repository) -> None:
    other = ContentHash(Algorithm.RMD160, b"\1" * 20)
    some = ContentHash(Algorithm.SHA1, b"\1" * 20)
    contents = [
        Content(5, None),
        Content(5, None, (Chunk(0, 2, some), Chunk(3, 2, some))),
        Content(5, None, (Chunk(0, 2, some), Chunk(2, 2, some))),
        Content(4, None, (Chunk(0, 2, some), Chunk(2, 2, other))),
        Content(4, other, (Chunk(0, 2, some), Chunk(2, 2, some))),
    ]
    with repository.open() as tree:
        for one in contents:
            with pytest.raises(PublishError):
                tree.put_file(b"/a", FILE, one)
        for target in (b"", b"a\0b"):
            with pytest.raises(PublishError, match="target"):
                tree.put_symlink(b"/a", FILE, target)
        for attributes in (Attributes(mode=0, uid=1 << 32), Attributes(mode=0, mtime_ns=10**9)):
            with pytest.raises(PublishError, match="out of range"):
                tree.put_directory(b"/a", attributes)
        with pytest.raises(PublishError):
            tree.put_special(b"/a", FILE, stat.S_IFREG)
        with pytest.raises(PublishError):
            tree.remove(b"")
        with pytest.raises(PublishError):
            tree.set_attributes(b"/a", FILE)
        assert not tree.remove(b"/a")
        assert tree.lookup(b"/a") is None


def test_attributes_that_are_too_large_are_left_out_with_a_warning(repository: Repository) -> None:
    xattrs = {b"user.ok": b"v" * 255, b"user.large": b"v" * 256, b"user." + b"n" * 251: b""}
    with repository.open() as tree:
        tree.put_file(b"/a", Attributes(mode=0o644, xattrs=xattrs), content("x"))
        row = repository.commit(tree)[b""].rows[b"/a"]
        assert parse_xattr_blob(row["xattr"]) == {b"user.ok": b"v" * 255}
        assert [warning.path for warning in tree.warnings] == [b"/a", b"/a"]
        assert isinstance(tree.warnings[0], TreeWarning)
        assert "256 bytes" in tree.warnings[0].message


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=255), max_size=20))
def test_packed_attributes_are_read_back_in_the_order_of_their_names(xattrs: dict[bytes, bytes]) -> None:
    blob, left_out = pack_xattr_blob(xattrs)
    found = parse_xattr_blob(blob)
    assert found == xattrs
    assert list(found) == sorted(xattrs)
    assert not left_out
    assert (blob is None) is not bool(xattrs)


def test_an_entry_has_at_most_255_attributes() -> None:
    blob, left_out = pack_xattr_blob({b"%03d" % number: b"" for number in range(257)})
    assert len(parse_xattr_blob(blob)) == 255
    assert [name for name, _ in left_out] == [b"255", b"256"]
