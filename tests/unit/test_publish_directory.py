"""A directory of the repository becomes equal to one on the disk, whatever is in either."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm
from cvmfs_py.errors import ConfigError, PublishError
from cvmfs_py.publish.exclusions import Exclusions
from cvmfs_py.publish.from_directory import DirectoryOptions, apply_directory
from cvmfs_py.publish.packed import FileRecipe, recipe_of
from cvmfs_py.publish.source_errors import UnreadableSourceError
from tests.unit.publish_sources import (
    SETTINGS,
    Published,
    Seen,
    make_zoo,
    map_paths,
    put,
    seen_on_disk,
    without_privileges,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cvmfs_py.publish.tally import Tally


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


def names(published: Published, at: bytes = b"") -> set[bytes]:
    return set(published.see(at)) - {b""}


@pytest.mark.parametrize("processes", [0, 2])
def test_everything_is_published_as_it_is(published: Published, source: Path, processes: int) -> None:
    make_zoo(source)
    expected = seen_on_disk(source)
    tally = published.take(source, processes=processes)
    assert published.see() == expected
    assert published.warnings == []
    assert tally.entries == len(expected)
    assert tally.changed == len(expected) - sum(len(seen.links) > 0 for seen in expected.values()) + 4  # one a group
    assert tally.files == sum(seen.content is not None for seen in expected.values())
    stored = len([one for one in published.objects() if one[1] in ("", "P")])
    # Two processes that store the same object at the same moment may both count it.
    assert tally.new_objects >= stored if processes else tally.new_objects == stored


def test_again_nothing_changes(published: Published, source: Path) -> None:
    make_zoo(source)
    published.take(source)
    before, objects = published.root_hash, published.objects()
    for wishes in ({}, {"compare_contents": True}, {"compare_contents": True, "processes": 2}):
        tally = published.take(source, **wishes)
        assert (tally.changed, tally.removed, tally.packed_files, tally.new_objects) == (0, 0, 0, 0)
        assert bool(tally.compared_files) is bool(wishes)
        assert published.root_hash == before
        assert published.objects() == objects


def test_other_settings(tmp_path: Path, source: Path) -> None:
    settings = replace(SETTINGS, algorithm=Algorithm.SHAKE128, compression="zstd")
    published = Published(tmp_path, settings)
    make_zoo(source)
    published.take(source)
    assert published.see() == seen_on_disk(source)


# --- changes

CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "file").write_bytes(b"something else"),
    "content of a large file": lambda top: (top / "large").write_bytes(os.urandom(400_000)),
    "a large file becomes small": lambda top: (top / "large").write_bytes(b"small"),
    "a small file becomes large": lambda top: (top / "file").write_bytes(os.urandom(400_000)),
    "time": lambda top: os.utime(top / "file", ns=(0, 12_345)),
    "mode": lambda top: (top / "file").chmod(0o600),
    "mode of a directory": lambda top: (top / "directory").chmod(0o700),
    "mode of the top": lambda top: top.chmod(0o700),
    "attribute": lambda top: os.setxattr(top / "file", "user.new", b"value"),
    "attribute of a directory": lambda top: os.setxattr(top / "directory", "user.new", b"value"),
    "attribute gone": lambda top: os.removexattr(top / "attributed", "user.colour"),
    "attribute changed": lambda top: os.setxattr(top / "attributed", "user.colour", b"red"),
    "target": lambda top: [(top / "link").unlink(), os.symlink("elsewhere", top / "link")],
    "file gone": lambda top: (top / "file").unlink(),
    "directory gone": lambda top: [(top / "directory/inside").unlink(), (top / "directory").rmdir()],
    "new file": lambda top: put(top, "directory/new", b"new"),
    "new tree": lambda top: put(top, "new/tree/of/a/file", b"new"),
    "everything gone": lambda top: map_paths(top / "directory", lambda path: path.is_file() and path.unlink()),
    "a name more": lambda top: os.link(top / "one", top / "four"),
    "a name less": lambda top: (top / "two").unlink(),
    "links broken": lambda top: [(top / "two").unlink(), put(top, "two", b"linked")],
    "all links broken": lambda top: (
        [(top / name).unlink() or put(top, name, b"linked") for name in ("one", "two", "three")]
    ),
    "links made": lambda top: os.link(top / "file", top / "file too"),
    "links exchanged": lambda top: (
        [
            (top / "two").unlink(),
            os.link(top / "file", top / "two"),
            (top / "same").unlink(),
            os.link(top / "one", top / "same"),
        ]
    ),
    "mode of links": lambda top: (top / "two").chmod(0o640),
    "content of links": lambda top: (top / "two").write_bytes(b"changed in all"),
}


def make_example(top: Path) -> None:
    put(top, "file", b"content")
    put(top, "same", b"linked")
    put(top, "large", bytes(range(256)) * 2000)
    put(top, "directory/inside", b"inside")
    os.symlink("file", top / "link")
    os.setxattr(put(top, "attributed"), "user.colour", b"blue")
    put(top, "one", b"linked")
    os.link(top / "one", top / "two")
    os.link(top / "one", top / "three")


@pytest.mark.parametrize("compare", [False, True], ids=["by time", "by content"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(published: Published, source: Path, name: str, compare: bool) -> None:
    make_example(source)
    published.take(source)
    before = published.root_hash
    CHANGES[name](source)
    expected = seen_on_disk(source)
    tally = published.take(source, compare_contents=compare)
    assert published.see() == expected
    assert tally.changed + tally.removed > 0
    assert published.root_hash != before


KINDS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"content"),
    "large file": lambda path: path.write_bytes(bytes(300_000)),
    "directory": lambda path: put(path, "inside/deep", b"deep"),
    "nested catalog": lambda path: [put(path, ".cvmfscatalog"), put(path, "inside", b"inside")],
    "symlink": lambda path: path.symlink_to("target"),
    "fifo": lambda path: os.mkfifo(path),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_every_kind_becomes_every_other(published: Published, tmp_path: Path, before: str, after: str) -> None:
    for number, kind in enumerate((before, after)):
        source = tmp_path / f"source {number}"
        put(source, "a/first", b"1")
        put(source, "a/z last", b"2")
        KINDS[kind](source / "a" / "it")
        os.utime(source, ns=(0, number))
        published.take(source)
        assert published.see() == seen_on_disk(source)
        assert set(published.catalogs()) == ({b"", b"/a/it"} if kind == "nested catalog" else {b""})


def test_a_change_of_attributes_reads_nothing(published: Published, source: Path) -> None:
    make_example(source)
    published.take(source)
    objects = {one for one in published.objects() if one[1] != "C"}

    def touch(path: Path) -> None:
        if not path.is_symlink():
            path.chmod(0o700)
            os.setxattr(path, "user.touched", b"yes")

    map_paths(source, touch)
    tally = published.take(source)
    assert published.see() == seen_on_disk(source)
    assert (tally.packed_files, tally.compared_files) == (0, 0)
    assert {one for one in published.objects() if one[1] != "C"} == objects


def test_only_reading_finds_what_time_and_size_hide(published: Published, source: Path) -> None:
    path = Path(os.fsdecode(put(source, "file", b"content")))
    large = Path(os.fsdecode(put(source, "large", bytes(300_000))))
    published.take(source)
    for one, content in ((path, b"CONTENT"), (large, bytes(299_999) + b"!")):
        status = one.stat()
        one.write_bytes(content)
        os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert published.take(source).changed == 0
    assert published.see()[b"/file"].content == b"content"
    tally = published.take(source, compare_contents=True)
    assert (tally.packed_files, tally.changed) == (2, 2)
    assert published.see() == seen_on_disk(source)


def test_new_times_of_old_contents_store_nothing(published: Published, source: Path) -> None:
    make_example(source)
    published.take(source)
    for number, wishes in enumerate(({"compare_contents": True}, {})):
        map_paths(source, lambda path, number=number: os.utime(path, ns=(0, number), follow_symlinks=False))
        tally = published.take(source, **wishes)
        assert tally.new_objects == 0
        assert published.see() == seen_on_disk(source)


def test_only_the_catalogs_on_the_path_are_written(published: Published, source: Path) -> None:
    for name in ("a", "b", "a/deep", "b/deep"):
        put(source, f"{name}/.cvmfscatalog")
        put(source, f"{name}/file", b"content")
    published.take(source)
    before = {path: catalog.content_hash for path, catalog in published.catalogs().items()}
    (source / "a/deep/file").write_bytes(b"changed")
    published.take(source)
    after = {path: catalog.content_hash for path, catalog in published.catalogs().items()}
    assert {path for path in after if after[path] != before[path]} == {b"", b"/a", b"/a/deep"}
    assert published.see() == seen_on_disk(source)


# --- where to, and what is left alone


def test_a_tree_goes_to_any_path(published: Published, source: Path) -> None:
    make_example(source)
    os.utime(source, ns=(0, 1_234_567_890_123_456_789))
    published.take(source, b"/software/v1")
    published.take(source / "directory", b"/other")
    assert published.see(b"/software/v1") == seen_on_disk(source)
    assert published.see(b"/other") == seen_on_disk(source / "directory")
    made = published.see()[b"/software"]
    assert made == Seen(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime_ns=1_234_567_890_123_456_789)
    (source / "file").unlink()
    published.take(source, b"/software/v1")
    assert published.see(b"/software/v1") == seen_on_disk(source)
    assert published.see(b"/other") == seen_on_disk(source / "directory")


def test_a_path_below_a_file_is_refused(published: Published, source: Path) -> None:
    put(source, "file")
    published.take(source)
    with pytest.raises(PublishError, match="no directory"):
        published.take(source, b"/file/below")


def test_the_source_must_be_a_directory(published: Published, source: Path) -> None:
    put(source, "file")
    with pytest.raises(PublishError, match="No such file"):
        published.take(source / "missing")
    with pytest.raises(PublishError, match="Not a directory"):
        published.take(source / "file")


def test_the_source_may_be_given_as_a_link_or_relative(
    published: Published, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_example(source)
    (tmp_path / "link").symlink_to("source")
    monkeypatch.chdir(tmp_path)
    published.take("link", processes=2)
    assert published.see() == seen_on_disk(source)


def test_markers_that_nobody_has_written_stay(tmp_path: Path, source: Path) -> None:
    """Those of the dirtab and of automatic catalogs: the source has none of them."""
    published = Published(tmp_path, replace(SETTINGS, auto_catalog_entries=40))
    for directory in ("listed/a", "listed/b", "heavy", "plain"):
        for number in range(60 if directory == "heavy" else 3):
            put(source, f"{directory}/{number}", b"content")
    put(source, ".cvmfsdirtab", b"/listed/*\n")
    published.take(source)
    tops = {b"", b"/heavy", b"/listed/a", b"/listed/b"}
    assert set(published.catalogs()) == tops
    before = published.root_hash
    tally = published.take(source)
    assert (tally.changed, tally.removed, published.root_hash) == (0, 0, before)

    put(source, ".cvmfsdirtab", b"/listed/a\n/plain\n")
    published.take(source)
    assert set(published.catalogs()) == tops - {b"/listed/b"} | {b"/plain"}
    assert b"/listed/b/.cvmfscatalog" not in published.see()
    (source / ".cvmfsdirtab").unlink()
    published.take(source)
    assert set(published.catalogs()) == {b"", b"/heavy"}
    generated = {b"/heavy/.cvmfscatalog", b"/heavy/.cvmfsautocatalog"}
    assert {path: seen for path, seen in published.see().items() if path not in generated} == seen_on_disk(source)


@pytest.mark.parametrize("first", [".cvmfscatalog", ".cvmfsdirtab"])
def test_what_is_read_before_the_others_may_have_other_names(published: Published, source: Path, first: str) -> None:
    put(source, first, b"")
    os.link(source / first, source / "other")
    tally = published.take(source)
    assert published.see() == seen_on_disk(source)
    assert (tally.entries, tally.files) == (3, 2)
    assert published.take(source).changed == 0


def test_a_bad_dirtab_is_refused(published: Published, source: Path) -> None:
    put(source, ".cvmfsdirtab", b"relative\n")
    with pytest.raises(PublishError, match="dirtab"):
        published.take(source)
    assert published.root_hash is None


def test_the_reserved_name_is_left_out(published: Published, source: Path) -> None:
    put(source, ".cvmfs/snapshots", b"not mine")
    put(source, "a/.cvmfs", b"not reserved here")
    published.take(source)
    assert names(published) == {b"/a", b"/a/.cvmfs"}
    assert [path for path, _ in published.warnings] == [b"/.cvmfs"]


def test_what_is_excluded_is_left_alone(published: Published, source: Path) -> None:
    for name in ("kept", "tmp/file", "a/tmp/file", "a/file.o", "a/file.c"):
        put(source, name, b"old")
    published.take(source)
    for name in ("kept", "tmp/file", "a/tmp/file", "a/file.o", "a/file.c"):
        put(source, name, b"changed")
    put(source, "a/new.o", b"new")
    (source / "tmp/file").unlink()
    (source / "tmp").rmdir()
    published.take(source, exclude=Exclusions([b"tmp", b"*.o"]))
    contents = {path: seen.content for path, seen in published.see().items() if seen.content is not None}
    assert contents == {
        b"/kept": b"changed",
        b"/tmp/file": b"old",
        b"/a/tmp/file": b"old",
        b"/a/file.o": b"old",
        b"/a/file.c": b"changed",
    }


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"tmp", [b"/tmp", b"/a/tmp", b"/a/b/tmp"], [b"/tmpx", b"/xtmp", b"/tmp/a"]),
        (b"tmp/", [b"/tmp", b"/a/tmp"], [b"/tmp/a"]),
        (b"/tmp", [b"/tmp"], [b"/a/tmp"]),
        (b"a/b", [b"/a/b"], [b"/c/a/b", b"/a/b/c"]),
        (b"*.o", [b"/x.o", b"/.o", b"/a/x.o", b"/\xff\n.o"], [b"/x.oo", b"/x.o/a"]),
        (b"/a/*/c", [b"/a/b/c"], [b"/a/c", b"/a/b/b/c"]),
        (b"/a/**/c", [b"/a/b/c", b"/a/c", b"/a/b/b/c"], [b"/b/c", b"/a/bc"]),
        (b"/a/**", [b"/a/b", b"/a/b/c"], [b"/a"]),
        (b"?", [b"/a", b"/x/\n"], [b"/ab"]),
        (b"[ab]x", [b"/ax", b"/q/bx"], [b"/cx", b"/x"]),
        (b"[!ab]x", [b"/cx"], [b"/ax", b"//x"]),
        (b"[a-c]", [b"/b"], [b"/d", b"/-"]),
        (b"[]^\\]", [b"/]", b"/^", b"/\\"], [b"/a"]),
        (rb"\*", [b"/*"], [b"/a"]),
        (b"a.b", [b"/a.b"], [b"/aXb"]),
        (b"[", [b"/["], [b"/a"]),
    ],
)
def test_patterns(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    excluded = Exclusions([b"never", pattern])
    assert [path for path in matching if not excluded(path)] == []
    assert [path for path in others if excluded(path)] == []


@pytest.mark.parametrize("pattern", [b"", b"/", b"//", b"[b-a]"])
def test_bad_patterns_are_refused(pattern: bytes) -> None:
    with pytest.raises(ConfigError):
        Exclusions([pattern])
    assert not Exclusions([])
    assert not Exclusions([])(b"/a")


def test_recipes_can_differ_by_path(published: Published, source: Path) -> None:
    for name in ("plain", "packed", "external"):
        put(source, name, bytes(300_000))
    usual = recipe_of(SETTINGS)
    recipes = {
        b"/plain": FileRecipe(compression="none", chunking=None),
        b"/external": FileRecipe(compression="none", chunking=usual.chunking, is_external=True),
    }
    published.take(source, recipe_for=lambda path: recipes.get(path, usual))
    rows = published.catalogs()[b""].rows
    assert rows[b"/plain"]["flags"] == 2052
    assert rows[b"/packed"]["flags"] == 68
    assert rows[b"/external"]["flags"] == 2052 | 128 | 64
    assert published.take(source, recipe_for=lambda path: recipes.get(path, usual)).changed == 0
    assert published.take(source).packed_files == 1  # it is to be stored now
    assert published.see() == seen_on_disk(source)


# --- what cannot be read


def assert_refused(published: Published, source: Path, paths: set[Path], reason: str) -> None:
    before, objects = published.root_hash, {one for one in published.objects() if one[1] == "C"}
    with pytest.raises(UnreadableSourceError, match="nothing was published") as raised:
        published.take(source)
    assert {Path(os.fsdecode(path)) for path, _ in raised.value.failures} == paths
    assert {text for _, text in raised.value.failures} == {reason}
    assert raised.value.count == len(paths)
    assert published.root_hash == before
    assert {one for one in published.objects() if one[1] == "C"} == objects


@pytest.fixture
def common_ground() -> Iterator[Path]:
    """A directory that is open to every user, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-publish-") as name:
        ground = Path(name)
        ground.chmod(0o755)
        yield ground


def test_what_cannot_be_read_is_listed_and_nothing_published(common_ground: Path) -> None:
    source, published = common_ground / "source", Published(common_ground)
    make_example(source)
    published.take(source)
    put(source, "new", b"new")
    locked = [source / "secret", source / "directory/secret", source / "locked"]
    put(source, "secret", b"secret", 0)
    put(source, "directory/secret", b"secret", 0)
    put(source, "locked/inside", b"secret")
    (source / "locked").chmod(0)
    shared = [published.storage.directory, published.workdir]
    for top in shared:
        map_paths(top, lambda path: path.chmod(0o777))
    with without_privileges():
        assert_refused(published, source, set(locked), "Permission denied")
    for path in locked:
        path.chmod(0o755)
    published.take(source)
    assert published.see() == seen_on_disk(source)


def test_a_file_that_never_keeps_still_is_named(published: Published) -> None:
    """These have contents, and size 0."""
    source = Path("/proc/sys/kernel/random")
    with pytest.raises(UnreadableSourceError, match="random/uuid: it changes while it is read"):
        published.take(source, b"/random")
    assert published.root_hash is None


def test_long_lists_are_cut() -> None:
    failures = [(b"/%d\n" % number, "it is bad") for number in range(9)]
    error = UnreadableSourceError(failures, 3000)
    assert "3000 entries" in str(error)
    assert "/4\\n: it is bad; and 2995 more" in str(error)
    assert "one entry of the source cannot be read: /0\\n: it is bad" in str(UnreadableSourceError(failures[:1]))


def test_who_watches_sees_counts_rise(published: Published, source: Path) -> None:
    make_example(source)
    seen: list[tuple[int, int, int]] = []

    def watch(tally: Tally) -> None:
        seen.append((tally.entries, tally.packed_files, tally.packed_bytes))

    with published.change() as tree:
        options = DirectoryOptions(processes=2)
        tally = apply_directory(tree, published.storage, published.settings, source, b"", options, watch)
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == (tally.entries, tally.packed_files, tally.packed_bytes)
    assert tally.packed_bytes == 7 + 6 + 512_000 + 6 + 0 + 6


# --- any sequence of changes

NAMES = st.sampled_from(
    ["a", "b", "c", "a/a", "a/b", "b/a", "b/b/c", ".cvmfscatalog", "a/.cvmfscatalog", "b/b/.cvmfscatalog"]
)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), NAMES, st.sampled_from([b"", b"one", b"two", bytes(200_000)])),
    st.tuples(st.just("mkdir"), NAMES),
    st.tuples(st.just("symlink"), NAMES, st.sampled_from(["x", "y"])),
    st.tuples(st.just("link"), NAMES, NAMES),
    st.tuples(st.just("fifo"), NAMES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("move"), NAMES, NAMES),
    st.tuples(st.just("chmod"), NAMES, st.sampled_from([0o600, 0o755])),
    st.tuples(st.just("xattr"), NAMES, st.sampled_from([b"", b"value"])),
)


def act(top: Path, action: str, name: str, *more: Any) -> None:
    """Does what is possible."""
    path = top / name
    if action == "write":
        if not path.is_fifo():  # for which nobody waits
            put(top, name, *more)
    elif action == "mkdir":
        path.mkdir(parents=True)
    elif action == "symlink":
        path.symlink_to(*more)
    elif action == "link":
        os.link(path, top / more[0], follow_symlinks=False)
    elif action == "fifo":
        os.mkfifo(path)
    elif action == "remove":
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    elif action == "move":
        path.rename(top / more[0])
    elif action == "chmod" and not path.is_symlink():
        path.chmod(*more)
    elif action == "xattr" and path.is_file() and not path.is_symlink():
        os.setxattr(path, "user.x", *more)


def publishable(tree: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Without what only looks like the marker of a nested catalog."""

    def looks_so(path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        return b".cvmfscatalog" in directory.split(b"/") or (
            name == b".cvmfscatalog" and not stat.S_ISREG(tree[path].mode)
        )

    return {path: seen for path, seen in tree.items() if not looks_so(path)}


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.lists(ACTIONS, max_size=12), min_size=1, max_size=4), compare=st.booleans())
def test_whatever_happens_to_the_source_happens_to_the_repository(steps: list[list[Any]], compare: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-publish-") as name:
        source, published = Path(name) / "source", Published(Path(name))
        source.mkdir()
        for actions in steps:
            for action in actions:
                with contextlib.suppress(OSError):
                    act(source, *action)
            published.take(source, compare_contents=compare)
            assert published.see() == publishable(seen_on_disk(source))
            tops = {path.rpartition(b"/")[0] for path in published.see() if path.endswith(b"/.cvmfscatalog")}
            before = published.root_hash
            assert published.take(source).changed == 0
            assert published.root_hash == before
            assert set(published.catalogs()) == tops | {b""}
