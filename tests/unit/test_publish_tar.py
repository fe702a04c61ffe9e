"""Archives become what unpacking them as root would give, whoever wrote them; layers of images hide what they say."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from cvmfs_py.errors import PublishError
from tests.unit.publish_sources import ACL, Published, Seen, make_zoo, put, seen_on_disk
from tests.unit.tar_archives import archive_of, directory, entry, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LARGE = bytes(range(256)) * 3000
ALL_XATTRS = ("--xattrs", "--xattrs-include=*")


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def gnu_tar(source: Path, archive: Path, *options: str) -> None:
    done = subprocess.run(
        ["tar", "-c", "-C", source, "-f", archive, *options, "."], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def contents(published: Published, at: bytes = b"") -> dict[bytes, bytes | None]:
    """Files with their contents; directories and the rest with None."""
    return {path: seen.content for path, seen in published.see(at).items() if path}


def as_packed(tree: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
    """What GNU tar takes of a tree: no sockets, and no hard links but of files and symlinks."""
    linked = (stat.S_IFREG, stat.S_IFLNK)
    return {
        path: seen if stat.S_IFMT(seen.mode) in linked else replace(seen, links=frozenset())
        for path, seen in tree.items()
        if not stat.S_ISSOCK(seen.mode)
    }


# --- what others have written


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("sparse", ["none", "0.0", "0.1", "1.0"])
def test_everything_that_gnu_tar_packs(tmp_path: Path, published: Published, processes: int, sparse: str) -> None:
    source = tmp_path / "source"
    make_zoo(source)
    options = [*ALL_XATTRS, "--format=pax"]
    if sparse != "none":
        options += ["--sparse", f"--sparse-version={sparse}"]
    gnu_tar(source, tmp_path / "zoo.tar", *options)
    expected = as_packed(seen_on_disk(source))
    tally = published.unpack(tmp_path / "zoo.tar", processes=processes)
    assert published.see() == expected
    assert published.warnings == []
    assert tally.entries == len(expected)
    assert tally.files == sum(seen.content is not None for seen in expected.values())
    again = published.unpack(tmp_path / "zoo.tar", processes=processes)
    assert again.new_objects == 0
    assert published.see() == expected


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix"])
def test_formats(tmp_path: Path, published: Published, form: str) -> None:
    """GNU's own have no fractions of seconds and no attributes."""
    source = tmp_path / "source"
    make_zoo(source)
    gnu_tar(source, tmp_path / "zoo.tar", f"--format={form}", "--sparse")
    published.unpack(tmp_path / "zoo.tar")

    def known(seen: Seen) -> Seen:
        mtime_ns = seen.mtime_ns if form == "posix" else seen.mtime_ns // 10**9 * 10**9
        return replace(seen, xattrs={}, mtime_ns=mtime_ns)

    assert published.see() == {path: known(seen) for path, seen in as_packed(seen_on_disk(source)).items()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_packs(published: Published, form: int) -> None:
    long = "d" * 90 + "/" + "f" * 90
    members = [entry(long, b"long"), entry("plain", b"plain", mode=0o4711, uid=12, gid=34), directory("empty")]
    if form != tarfile.USTAR_FORMAT:
        members += [entry("x/" * 200 + "deep", b"deep"), entry("old", b"old", mtime=-5, uid=1 << 30)]
    published.unpack(archive_of(*members, form=form))
    seen = published.see()
    assert {path: content for path, content in contents(published).items() if content} == {
        b"/" + os.fsencode(info.name): content for info, content in members if content
    }
    assert seen[b"/plain"] == Seen(stat.S_IFREG | 0o4711, 12, 34, 1_600_000_000 * 10**9, b"plain")
    if form != tarfile.USTAR_FORMAT:
        assert (seen[b"/old"].mtime_ns, seen[b"/old"].uid) == (-5 * 10**9, 1 << 30)


@pytest.mark.parametrize("program", ["cat", "gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("way", ["file", "stream", "standard input"])
def test_compressed_archives(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch, program: str, way: str
) -> None:
    plain = archive_of(entry("large", LARGE), *(entry(f"{number}", b"%d" % number) for number in range(100))).read()
    halves = plain[:100_000], plain[100_000:]
    packed = [subprocess.run([program], input=half, capture_output=True, check=True).stdout for half in halves]
    path = tmp_path / "archive"
    path.write_bytes(b"".join(packed))  # several streams one after the other are one
    if way == "file":
        published.unpack(path)
    elif way == "stream":
        with path.open("rb") as stream:
            published.unpack(stream)
            assert not stream.closed
    else:
        read, write = os.pipe()
        kept = os.dup(0)
        os.dup2(read, 0)
        os.close(read)
        with subprocess.Popen(["cat", path], stdout=write):
            os.close(write)
            published.unpack(cast("Path", "-"))
        os.dup2(kept, 0)
        os.close(kept)
    expected = {b"/large": LARGE} | {b"/%d" % number: b"%d" % number for number in range(100)}
    assert contents(published) == expected


@pytest.mark.needs("root")  # others may not be allowed such attributes
def test_lists_of_access_in_words(tmp_path: Path, published: Published) -> None:
    source = tmp_path / "source"
    os.setxattr(put(source, "file"), "system.posix_acl_access", ACL)
    os.setxattr(os.fsencode(source), "system.posix_acl_default", ACL)
    gnu_tar(source, tmp_path / "archive", "--acls", "--format=pax")
    published.unpack(tmp_path / "archive")
    assert published.see() == seen_on_disk(source)


def test_a_list_that_is_not_understood_is_left_out(published: Published) -> None:
    published.unpack(archive_of(entry("a", b"", pax_headers={"SCHILY.acl.access": "user:nobody knows:rwx"})))
    ((path, message),) = published.warnings
    assert path == b"/a"
    assert "nobody knows" in message
    assert published.see()[b"/a"].xattrs == {}


def test_attributes_as_libarchive_writes_them(published: Published) -> None:
    headers = {"LIBARCHIVE.xattr.user.a%20b": "AP8", "SCHILY.xattr.user.c": "d=e\nf"}
    published.unpack(archive_of(entry("a", b"", pax_headers=headers)))
    assert published.see()[b"/a"].xattrs == {b"user.a b": b"\0\xff", b"user.c": b"d=e\nf"}


# --- what an archive does to what is there


def test_an_archive_adds_and_replaces(published: Published) -> None:
    published.unpack(archive_of(entry("a/kept", b"kept"), entry("a/changed", b"old"), entry("b", b"other")), b"/at/it")
    tally = published.unpack(archive_of(entry("./a/changed", b"new"), entry("a/new", b"new too")), b"/at/it")
    assert contents(published, b"/at/it") == {
        b"/a": None,
        b"/a/kept": b"kept",
        b"/a/changed": b"new",
        b"/a/new": b"new too",
        b"/b": b"other",
    }
    assert (tally.changed, tally.removed, tally.packed_files) == (2, 0, 2)


def test_directories_that_nobody_describes_are_ordinary(published: Published) -> None:
    published.unpack(archive_of(entry("a/b/c", b"content")), b"/x/y")
    seen = published.see()
    for path in (b"/x", b"/x/y", b"/x/y/a", b"/x/y/a/b"):
        assert seen[path] == Seen(stat.S_IFDIR | 0o755, 0, 0, 1_600_000_000 * 10**9)


def test_the_top_has_the_attributes_of_the_archive(published: Published) -> None:
    published.unpack(archive_of(directory("./", uid=7), entry("./a", b"")), b"/x")
    assert published.see()[b"/x"].uid == 7
    published.unpack(archive_of(directory(".", uid=8)))
    assert published.see()[b""].uid == 8


def test_an_empty_archive_is_an_archive(published: Published) -> None:
    assert published.unpack(archive_of()).entries == 0


MEMBERS: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes | None]]]] = {
    "file": lambda: [entry("it", b"content")],
    "large file": lambda: [entry("it", LARGE)],
    "directory": lambda: [directory("it"), entry("it/inside/deep", b"deep")],
    "only below": lambda: [entry("it/inside/deep", b"deep")],
    "nested catalog": lambda: [directory("it"), entry("it/.cvmfscatalog", b""), entry("it/inside", b"inside")],
    "symlink": lambda: [symlink("it", "nowhere/at/all")],
    "fifo": lambda: [entry("it", type=tarfile.FIFOTYPE)],
    "hard link": lambda: [hard_link("it", "first")],
    "hard link to elsewhere": lambda: [hard_link("it", "other/second")],
}


@pytest.mark.parametrize("after", MEMBERS)
@pytest.mark.parametrize("before", MEMBERS)
def test_every_kind_replaces_every_other(tmp_path: Path, before: str, after: str) -> None:
    """In a later archive as in the same one, where the first is still under way."""
    ground = [entry("first", b"first"), entry("other/second", b"second")]
    seen = []
    for number, archives in enumerate(
        (
            [[*ground, *MEMBERS[before]()], MEMBERS[after]()],
            [[*ground, *MEMBERS[before](), *MEMBERS[after]()]],
        )
    ):
        (tmp_path / str(number)).mkdir()
        published = Published(tmp_path / str(number))
        for members in archives:
            published.unpack(archive_of(*members))
        seen.append(published.see())
    assert seen[0] == seen[1]
    if (before, after) != ("symlink", "only below"):  # which makes what the link leads to
        alone = {path: content for path, content in expected_alone(tmp_path, after).items() if path.startswith(b"/it")}
        found = {path: one.content for path, one in seen[0].items() if path.startswith(b"/it")}
        stays = {"directory", "only below", "nested catalog"}
        if before in stays and after in stays:
            assert alone.items() <= found.items()
        else:
            assert found == alone


def expected_alone(tmp_path: Path, kind: str) -> dict[bytes, bytes | None]:
    (tmp_path / "alone").mkdir()
    published = Published(tmp_path / "alone")
    published.unpack(archive_of(entry("first", b"first"), entry("other/second", b"second"), *MEMBERS[kind]()))
    return contents(published)


# --- hard links


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_hard_links(published: Published, processes: int, content: bytes) -> None:
    published.unpack(
        archive_of(
            entry("a/one", content),
            hard_link("a/two", "a/one"),
            hard_link("a/three", "./a/two"),
            hard_link("b/elsewhere", "a/one"),
            hard_link("b/too", "b/elsewhere"),
            symlink("link", "a/one"),
            hard_link("link too", "link"),
            hard_link("a/one", "a/one"),
        ),
        processes=processes,
    )
    seen = published.see()
    group = {b"/a/one", b"/a/two", b"/a/three"}
    assert all(seen[path].links == group - {path} for path in group)
    assert seen[b"/b/elsewhere"].links == {b"/b/too"}
    assert {path for path, one in seen.items() if one.content is not None} == group | {b"/b/elsewhere", b"/b/too"}
    assert {one.content for one in seen.values()} - {None} == {content}
    assert seen[b"/link too"].target == b"a/one"
    assert seen[b"/link too"].links == {b"/link"}
    assert published.warnings == []


def test_a_hard_link_may_lead_to_what_is_there_already(published: Published) -> None:
    published.unpack(archive_of(entry("lib/one", b"content", uid=5)), b"/at")
    published.unpack(archive_of(hard_link("lib/two", "lib/one"), hard_link("bin/one", "lib/one")), b"/at")
    seen = published.see(b"/at")
    assert seen[b"/lib/one"].links == {b"/lib/two"}
    assert seen[b"/bin/one"] == replace(seen[b"/lib/one"], links=frozenset())


@pytest.mark.parametrize("target", ["missing", "missing/file", "directory", "../outside", "/absolute", "."])
def test_bad_hard_links_are_refused(published: Published, target: str) -> None:
    with pytest.raises(PublishError, match="nothing was published"):
        published.unpack(archive_of(directory("directory"), hard_link("link", target)))
    assert published.root_hash is None


# --- nothing leaves the place


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/..", "..", "./../x", "//x", "a/b/../c"])
def test_members_that_lead_elsewhere_are_refused(published: Published, name: str) -> None:
    published.unpack(archive_of(entry("before", b"")))
    before = published.root_hash
    with pytest.raises(PublishError, match="nothing was published"):
        published.unpack(archive_of(entry("good", b"good"), entry(name, b"bad")), b"/at")
    assert published.root_hash == before


def test_links_lead_as_in_a_container(published: Published) -> None:
    published.unpack(archive_of(entry("outside/file", b"outside")))
    published.unpack(
        archive_of(
            entry("usr/lib/file", b"1"),
            symlink("lib", "usr/lib"),
            symlink("root", "/"),
            symlink("up", "../../../../outside"),
            symlink("loop", "loop"),
            entry("lib/new", b"2"),
            entry("root/usr/lib/newer", b"3"),
            entry("up/file", b"4"),
            entry("loop/file", b"5"),
            hard_link("usr/lib/link", "lib/file"),
        ),
        b"/at",
    )
    found = {path: content for path, content in contents(published).items() if content is not None}
    assert found == {
        b"/outside/file": b"outside",
        b"/at/usr/lib/file": b"1",
        b"/at/usr/lib/link": b"1",
        b"/at/usr/lib/new": b"2",
        b"/at/usr/lib/newer": b"3",
        b"/at/outside/file": b"4",
        b"/at/loop/file": b"5",
    }
    assert published.see()[b"/at/lib"].target == b"usr/lib"


def test_the_reserved_name_is_left_out(published: Published) -> None:
    published.unpack(archive_of(entry(".cvmfs/snapshots", b"bad"), directory(".cvmfs"), entry("a/.cvmfs", b"good")))
    assert contents(published) == {b"/a": None, b"/a/.cvmfs": b"good"}
    assert {path for path, _ in published.warnings} == {b"/.cvmfs", b"/.cvmfs/snapshots"}


# --- layers of images


def base(published: Published) -> None:
    published.unpack(
        archive_of(
            *(
                entry(name, b"base")
                for name in ("a/one", "a/two", "a/b/three", "c/four", "c/d/five", "six", "e/f/seven")
            ),
            directory("g"),
            entry("g/.cvmfscatalog", b""),
            entry("g/eight", b"base"),
        ),
        b"/at",
    )


def unpack_layer(published: Published, *names: str | tuple[str, bytes]) -> dict[bytes, bytes | None]:
    members = [entry(name, b"") if isinstance(name, str) else entry(*name) for name in names]
    published.unpack(archive_of(*members), b"/at", is_layer=True)
    return {path: content for path, content in contents(published, b"/at").items() if content is not None}


BASE = {
    b"/a/one": b"base",
    b"/a/two": b"base",
    b"/a/b/three": b"base",
    b"/c/four": b"base",
    b"/c/d/five": b"base",
    b"/six": b"base",
    b"/e/f/seven": b"base",
    b"/g/.cvmfscatalog": b"",
    b"/g/eight": b"base",
}


def without(*tops: bytes) -> dict[bytes, bytes | None]:
    return {
        path: content for path, content in BASE.items() if not any((path + b"/").startswith(top + b"/") for top in tops)
    }


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["a/.wh.one"], without(b"/a/one")),
        (["a/.wh.b", ".wh.six"], without(b"/a/b", b"/six")),
        ([".wh.a", ".wh.g"], without(b"/a", b"/g")),
        (["a/.wh.missing", "missing/.wh.x"], BASE),
        (["a/.wh..wh..opq"], without(b"/a")),
        (["a/.wh..wh..opq", ("a/new", b"layer")], without(b"/a") | {b"/a/new": b"layer"}),
        (
            [("a/new", b"layer"), ("a/b/new", b"layer"), "a/.wh..wh..opq"],
            without(b"/a") | {b"/a/new": b"layer", b"/a/b/new": b"layer"},
        ),
        ([("a/one", b"layer"), "a/.wh.one"], BASE | {b"/a/one": b"layer"}),
        (["a/.wh.one", ("a/one", b"layer")], BASE | {b"/a/one": b"layer"}),
        ([".wh.a", ("a/new", b"layer")], without(b"/a") | {b"/a/new": b"layer"}),
        ([("a/new", b"layer"), ".wh.a"], without(b"/a") | {b"/a/new": b"layer"}),
        ([("a", b"layer"), ".wh.a"], without(b"/a") | {b"/a": b"layer"}),
        ([".wh..wh..opq", ("new", b"layer")], {b"/new": b"layer"}),
        (["g/.wh..wh..opq"], without(b"/g")),
        ([("g/new", b"layer"), "g/.wh..wh..opq"], without(b"/g") | {b"/g/new": b"layer"}),
        ([".wh..wh.plnk", ".wh..wh.aufs"], BASE),
    ],
)
def test_whiteouts(
    published: Published, members: list[str | tuple[str, bytes]], expected: dict[bytes, bytes | None]
) -> None:
    base(published)
    assert unpack_layer(published, *members) == expected
    assert (b"/at/g" in published.catalogs()) is (b"/g/.cvmfscatalog" in expected)


def test_an_opaque_directory_itself_stays(published: Published) -> None:
    base(published)
    unpack_layer(published, "a/.wh..wh..opq")
    assert published.see(b"/at")[b"/a"].mode == stat.S_IFDIR | 0o755


def test_whiteouts_are_names_elsewhere(published: Published) -> None:
    base(published)
    published.unpack(archive_of(entry("a/.wh.one", b"")), b"/at")
    found = contents(published, b"/at")
    assert found[b"/a/one"] == b"base"
    assert found[b"/a/.wh.one"] == b""


@pytest.mark.parametrize("name", [".wh.", "a/.wh..", "a/.wh..."])
def test_bad_whiteouts_are_refused(published: Published, name: str) -> None:
    base(published)
    with pytest.raises(PublishError, match="whiteout"):
        unpack_layer(published, name)


# --- what is no archive


def refused(published: Published, data: bytes, reason: str) -> None:
    before = published.root_hash
    with pytest.raises(PublishError, match=reason):
        published.unpack(io.BytesIO(data))
    assert published.root_hash == before


@pytest.mark.parametrize("program", ["cat", "gzip", "bzip2", "xz", "zstd"])
def test_an_archive_that_is_cut_off_is_refused(published: Published, program: str) -> None:
    members = [entry("small", b"small"), entry("large", os.urandom(50_000)), entry("last", b"last")]
    whole = archive_of(*members).read()
    whole = whole[: whole.rindex(b"last") + 512 + 1024]  # without what fills it up
    stored = subprocess.run([program], input=whole, capture_output=True, check=True).stdout
    last = len(stored) - (1100 if program == "cat" else 20)  # it is complete when the first empty block is there
    for size in (0, 1, 100, 511, 513, 1024, 1536, 2000, 20_000, len(stored) // 2, last):
        refused(published, stored[:size], "no complete tar archive|damaged or cut off")


def test_what_is_no_archive_is_refused(published: Published, tmp_path: Path) -> None:
    refused(published, b"", "ends too early")
    refused(published, b"some text\n" * 1000, "no header")
    refused(published, b"\x1f\x8b" + bytes(3000), "damaged")
    with pytest.raises(PublishError, match="No such file"):
        published.unpack(tmp_path / "missing")
    with pytest.raises(PublishError, match="Is a directory"):
        published.unpack(tmp_path)


def test_a_large_sparse_file_costs_only_its_data(published: Published, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for offset in range(0, 4_000_000, 40_000):
            file.seek(offset + 20_000)
            file.write(b"%d" % offset)
        file.truncate(5_000_000)
    gnu_tar(source, tmp_path / "archive", "--sparse", "--format=gnu")  # its map needs several blocks
    published.unpack(tmp_path / "archive")
    assert published.see()[b"/sparse"].content == (source / "sparse").read_bytes()


@pytest.mark.parametrize("first", ["a/one", "b/other"])
def test_hard_links_stay_together_whichever_name_the_archive_has_first(published: Published, first: str) -> None:
    others = [name for name in ("b/other", "a/two", "a/one") if name != first]
    published.unpack(archive_of(entry(first, b"data"), *(hard_link(name, first) for name in others)))
    seen = published.see()
    assert (seen[b"/a/one"].links, seen[b"/a/two"].links) == (frozenset({b"/a/two"}), frozenset({b"/a/one"}))
    assert seen[b"/b/other"].links == frozenset()
    assert {seen[path].content for path in (b"/a/one", b"/a/two", b"/b/other")} == {b"data"}
