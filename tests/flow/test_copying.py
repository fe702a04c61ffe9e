"""Copies of a repository on the local disk: what they are like, where they go, how they are interrupted and go on."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from cache.address import Kind
from cvmfs_py.errors import FetchError, FsError
from cvmfs_py.mount.copying import CopyReport, CopyRequest, copy_out
from cvmfs_py.mount.destination import TEMPORARY_PREFIX
from tests.flow.opening import Nobody, opened
from tests.simulator.repository import Repository as Published
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File, Special, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.mount.copying import Observer

NOBODY = 65534
LONG = "n" * 255
BIG = bytes(range(256)) * 4000
PLAIN = {
    "a": File(b"A"),
    "b": File(b"B" * 400_000),
    "d": Directory({"c": File(b"C"), "e": Directory({"f": File(b"F")})}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    published = Published.create(tmp_path_factory.mktemp("published"))
    published.publish(
        Directory(
            {
                "plain": Directory(PLAIN, mode=0o750, mtime_ns=1_234_567_890_123_456_789),
                "big": File(BIG, chunk_sizes=50_000, mode=0o640, mtime_ns=-5_000_000_001),
                "tool": File(b"#!", mode=0o4755, uid=7, gid=8),
                "hard": Directory({**hard_links(File(b"same"), "x", "y", "z"), "alone": File(b"other")}, nested=True),
                "links": Directory(
                    {
                        "relative": Symlink("../plain/a", mtime_ns=1_111_111_111_000_000_000),
                        "absolute": Symlink("/etc/passwd"),
                        "variant": Symlink("$(HOW:-default)/x"),
                        "nowhere": Symlink("$(NOTHING_OF_THIS_NAME)"),
                    }
                ),
                "names": Directory({LONG: File(b"1"), b"\xff\n\x1b[2J": File(b"2"), LONG[:-1] + "d": Directory({})}),
                "xattrs": File(b"", xattrs={b"user.kept": b"1", b"trusted.not": b"2"}),
                "specials": Directory(
                    {"fifo": Special("fifo"), "socket": Special("socket"), "null": Special("char", 0x103)}
                ),
                "closed": Directory({"in": Directory({"f": File(b"f", mode=0)}, mode=0), "g": File(b"g")}, mode=0o111),
                "link to tree": Symlink("plain"),
            }
        )
    )
    return published


async def copied(
    published: Published,
    cache: Path,
    source: bytes,
    destination: Path | str,
    observer: Observer | None = None,
    *,
    recursive: bool = True,
    archive: bool = False,
    jobs: int = 4,
    **parameters: str,
) -> CopyReport:
    async with opened(published, cache, **parameters) as repository:
        request = CopyRequest(source, destination, recursive, archive, jobs)
        return await copy_out(repository, request, observer or Nobody())


def seen(top: Path) -> dict[str, bytes | str | None]:
    """What is below a directory: content, target of a link, or None for everything else."""
    found: dict[str, bytes | str | None] = {}
    for folder, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(folder, name)
            key = str(path.relative_to(top))
            found[key] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


PLAIN_SEEN = {"a": b"A", "b": b"B" * 400_000, "d": None, "d/c": b"C", "d/e": None, "d/e/f": b"F"}


# what a copy is like


async def test_content_modes_and_times(published: Published, tmp_path: Path) -> None:
    report = await copied(published, tmp_path / "cache", b"/plain", tmp_path / "out")
    assert report == CopyReport(files=4, directories=3, size_bytes=400_003)
    assert seen(tmp_path / "out") == PLAIN_SEEN
    status = (tmp_path / "out").stat()
    assert stat.S_IMODE(status.st_mode) == 0o750
    assert status.st_mtime_ns == 1_234_567_890_123_456_789  # although it was filled after it was made
    assert (tmp_path / "out" / "d").stat().st_mtime_ns == 1_600_000_000_000_000_000
    assert sorted(os.listdir(tmp_path)) == ["cache", "out"]  # no note stays


async def test_a_file_of_many_windows(published: Published, tmp_path: Path) -> None:
    report = await copied(published, tmp_path / "cache", b"/big", tmp_path / "big", recursive=False)
    assert (report.files, report.size_bytes) == (1, len(BIG))
    assert (tmp_path / "big").read_bytes() == BIG
    assert (tmp_path / "big").stat().st_mtime_ns == -5_000_000_001
    assert stat.S_IMODE((tmp_path / "big").stat().st_mode) == 0o640


async def test_hard_links(published: Published, tmp_path: Path) -> None:
    for jobs in (1, 8):
        out = tmp_path / str(jobs)
        report = await copied(published, tmp_path / "cache", b"/hard", out, jobs=jobs)
        assert report.files == 5  # and the marker of the catalog
        inodes = {(out / name).stat().st_ino for name in "xyz"}
        assert len(inodes) == 1
        assert [(out / name).stat().st_nlink for name in ("x", "alone")] == [3, 1]
        assert (out / "z").read_bytes() == b"same"


async def test_links_are_copied_as_links(published: Published, tmp_path: Path) -> None:
    report = await copied(published, tmp_path / "cache", b"/links", tmp_path / "out")
    assert report.links == 4
    assert seen(tmp_path / "out") == {
        "relative": "../plain/a",
        "absolute": "/etc/passwd",
        "variant": "default/x",
        "nowhere": "$(NOTHING_OF_THIS_NAME)",  # there is no link without a target
    }
    assert os.lstat(tmp_path / "out" / "relative").st_mtime_ns == 1_111_111_111_000_000_000


async def test_variant_links_follow_the_configuration(published: Published, tmp_path: Path) -> None:
    await copied(published, tmp_path / "cache", b"/links", tmp_path / "out", HOW="in/this/way")
    assert os.readlink(tmp_path / "out" / "variant") == "in/this/way/x"


async def test_names_as_long_and_strange_as_they_come(published: Published, tmp_path: Path) -> None:
    report = await copied(published, tmp_path / "cache", b"/names", tmp_path / "out")
    assert (report.files, report.failures) == (2, [])
    assert {os.fsencode(path) for path in os.listdir(tmp_path / "out")} == {
        LONG.encode(),
        (LONG[:-1] + "d").encode(),
        b"\xff\n\x1b[2J",
    }


async def test_user_attributes_are_kept_where_the_file_system_has_them(published: Published, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"")
        expected = ["user.kept"]
    except OSError:
        expected = []
    await copied(published, tmp_path / "cache", b"/xattrs", tmp_path / "file")
    assert [name for name in os.listxattr(tmp_path / "file") if not name.startswith("security.")] == expected


@pytest.mark.parametrize("archive", [False, True])
async def test_nobody_gets_the_rights_of_another_owner(published: Published, tmp_path: Path, archive: bool) -> None:
    await copied(published, tmp_path / "cache", b"/tool", tmp_path / "tool", archive=archive)
    status = (tmp_path / "tool").stat()
    keeps_owner = archive and os.geteuid() == 0
    assert stat.S_IMODE(status.st_mode) == (0o4755 if keeps_owner else 0o755)
    assert (status.st_uid, status.st_gid) == ((7, 8) if keeps_owner else (os.geteuid(), os.getegid()))


# as an ordinary user


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root is nobody for the length of the block; an ordinary user is one already."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the ordinary user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)


@pytest.fixture
def readable(published: Published) -> Iterator[Published]:
    """The same repository where everybody may read it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(published.document_root.parent, copy)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        again = Published(copy, published.fqrn, published.options, published.master, published.repository_key)
        again.revisions = published.revisions
        yield again


async def test_directories_that_are_closed_to_their_owner(readable: Published, home: Path) -> None:
    """Filled first and closed then; and opened again when a copy goes on."""
    ((lost, kind),) = readable.find_objects(b"/closed/in/f")
    stored = readable.object_path(lost, kind).read_bytes()
    readable.drop(lost, kind)
    with ordinary_user():
        report = await copied(readable, home / "cache", b"/closed", home / "out")
    assert (report.files, len(report.failures)) == (1, 1)
    assert stat.S_IMODE((home / "out").stat().st_mode) == 0o111
    assert stat.S_IMODE((home / "out" / "in").stat().st_mode) == 0
    readable.object_path(lost, kind).write_bytes(stored)
    with ordinary_user():
        report = await copied(readable, home / "cache", b"/closed", home / "out")
    assert (report.files, report.resumed_files, report.failures) == (1, 1, [])
    assert stat.S_IMODE((home / "out" / "in").stat().st_mode) == 0
    assert stat.S_IMODE((home / "out" / "in" / "f").stat().st_mode) == 0


async def test_special_files(readable: Published, home: Path) -> None:
    with ordinary_user():
        report = await copied(readable, home / "cache", b"/specials", home / "out")
    assert report.failures == ["cannot write the copy of /specials/null: only root can make device files"]
    assert stat.S_ISFIFO((home / "out" / "fifo").stat().st_mode)
    assert stat.S_ISSOCK((home / "out" / "socket").stat().st_mode)
    assert not (home / "out" / "null").exists()
    assert report.files == 2


# what is in the way


async def test_links_that_are_in_the_way_are_replaced_and_never_followed(published: Published, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out" / "plain"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    (out / "d").mkdir(parents=True)
    (out / "a").symlink_to(outside / "precious")
    (out / "b").symlink_to(outside / "new")
    (out / "d" / "e").symlink_to(outside)
    report = await copied(published, tmp_path / "cache", b"/plain", tmp_path / "out")
    assert report.failures == [
        "cannot write the copy of /plain/d/e: there is something else in its place (Not a directory)"
    ]
    assert seen(outside) == {"precious": b"precious"}
    assert seen(out) == {"a": b"A", "b": b"B" * 400_000, "d": None, "d/c": b"C", "d/e": str(outside)}


async def test_something_else_of_the_same_name_is_left_alone_and_told(published: Published, tmp_path: Path) -> None:
    out = tmp_path / "out" / "plain"
    (out / "a" / "inside").mkdir(parents=True)
    (out / "d").write_bytes(b"a file")
    report = await copied(published, tmp_path / "cache", b"/plain", tmp_path / "out")
    assert sorted(report.failures) == [
        "cannot write the copy of /plain/a: there is something else in its place (Is a directory)",
        "cannot write the copy of /plain/d: there is something else in its place (Not a directory)",
    ]
    assert seen(out) == {"a": None, "a/inside": None, "b": b"B" * 400_000, "d": b"a file"}


async def test_a_hard_link_does_not_remove_a_directory(published: Published, tmp_path: Path) -> None:
    (tmp_path / "out" / "hard" / "y" / "inside").mkdir(parents=True)
    report = await copied(published, tmp_path / "cache", b"/hard", tmp_path / "out")
    assert report.failures == [
        "cannot write the copy of /hard/y: there is something else in its place (Is a directory)"
    ]
    assert (tmp_path / "out" / "hard" / "z").stat().st_nlink == 2
    assert not [
        name for name in os.listdir(tmp_path / "out" / "hard") if os.fsencode(name).startswith(TEMPORARY_PREFIX)
    ]


async def test_existing_hard_links_are_made_anew(published: Published, tmp_path: Path) -> None:
    """To rename one name of a file over another does nothing: the temporary name must go all the same."""
    for _ in range(2):
        report = await copied(published, tmp_path / "cache", b"/hard", tmp_path)
        assert report.failures == []
    assert sorted(os.listdir(tmp_path / "hard")) == [".cvmfscatalog", "alone", "x", "y", "z"]
    assert (tmp_path / "hard" / "x").stat().st_nlink == 3


# interruptions


class StopAfter:
    """Cancels a copy after so many objects."""

    def __init__(self, scope: trio.CancelScope, objects: int) -> None:
        self._scope = scope
        self._left = objects

    def skip(self, size_bytes: int = 0, objects: int = 1) -> None:
        self.advance(size_bytes, objects)

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None:
        self._left -= objects
        if self._left <= 0:
            self._scope.cancel()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Published:
    published = Published.create(tmp_path_factory.mktemp("many"))
    folders = {
        f"d{folder}": Directory({f"f{each}": File(b"%d %d" % (folder, each)) for each in range(10)})
        for folder in range(6)
    }
    published.publish(Directory({"tree": Directory(folders)}))
    return published


def whole(top: Path) -> None:
    found = seen(top)
    assert len(found) == 66
    for folder in range(6):
        for each in range(10):
            assert found[f"d{folder}/f{each}"] == b"%d %d" % (folder, each)


async def interrupted(published: Published, cache: Path, destination: Path, objects: int) -> None:
    with trio.CancelScope() as scope:
        await copied(published, cache, b"/tree", destination, StopAfter(scope, objects), jobs=2)
    assert scope.cancelled_caught


@pytest.mark.parametrize("is_inside", [False, True])
async def test_the_same_command_goes_on_where_it_was_stopped(many: Published, tmp_path: Path, is_inside: bool) -> None:
    destination = tmp_path / "to"
    out = destination
    if is_inside:
        destination.mkdir()
        out = destination / "tree"
    await interrupted(many, tmp_path / "cache", destination, 25)
    there = {name: content for name, content in seen(out).items() if content is not None}
    assert 20 <= len(there) < 60
    assert not [name for name in there if Path(name).name.startswith(os.fsdecode(TEMPORARY_PREFIX))]
    left = out / "d0" / os.fsdecode(TEMPORARY_PREFIX + b"4194305.1")  # of a process that was killed: no such number
    left.write_bytes(b"half")
    report = await copied(many, tmp_path / "cache", b"/tree", destination)
    assert (report.resumed_files, report.files) == (len(there), 60 - len(there))
    whole(out)
    assert [name for name in os.listdir(out.parent) if name.endswith("-copy")] == []
    # Complete, it is a directory like any other: the next copy goes inside.
    await copied(many, tmp_path / "cache", b"/tree", out)
    assert (out / "tree" / "d0").is_dir()


async def test_what_was_changed_meanwhile_is_copied_again(many: Published, tmp_path: Path) -> None:
    await interrupted(many, tmp_path / "cache", tmp_path / "to", 25)
    (tmp_path / "to" / "d0" / "f0").write_bytes(b"x y")  # of the same size
    (tmp_path / "to" / "d0" / "f1").unlink()
    await copied(many, tmp_path / "cache", b"/tree", tmp_path / "to")
    whole(tmp_path / "to")


async def test_what_another_process_writes_is_left_to_it(many: Published, tmp_path: Path) -> None:
    await interrupted(many, tmp_path / "cache", tmp_path / "to", 25)
    file = tmp_path / "to" / "d0" / (os.fsdecode(TEMPORARY_PREFIX) + f"{os.getppid()}.1")  # one that is alive
    file.write_bytes(b"half")
    await copied(many, tmp_path / "cache", b"/tree", tmp_path / "to")
    assert file.read_bytes() == b"half"


async def test_two_snapshots_are_not_mixed(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    files = {f"f{each}": File(b"%d" % each) for each in range(40)}
    first = published.publish(Directory({"tree": Directory(files)}), tag="v1")
    await interrupted(published, tmp_path / "cache", tmp_path / "to", 10)
    published.publish(Directory({"tree": Directory({"new": File(b"")})}))
    with pytest.raises(FsError, match=f"holds an interrupted copy of another snapshot.*--root-hash {first.root_hash}"):
        await copied(published, tmp_path / "cache", b"/tree", tmp_path / "to")
    report = await copied(
        published, tmp_path / "cache", b"/tree", tmp_path / "to", CVMFS_ROOT_HASH=str(first.root_hash)
    )
    assert report.resumed_files + report.files == 40
    assert report.resumed_files > 5


# losses


async def test_one_lost_object_does_not_stop_the_others(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    bad = Directory({"x": File(b"x")}, nested=True)
    revision = published.publish(
        Directory({**{f"f{each}": File(b"content %d" % each) for each in range(50)}, "bad": bad, "good": Directory({})})
    )
    published.drop(*published.find_objects(b"/f7")[0])
    published.tamper(*published.find_objects(b"/f8")[0])
    published.drop(revision.catalog(b"/bad").content_hash, Kind.CATALOG)
    report = await copied(published, tmp_path / "cache", b"", tmp_path / "out")
    assert report.files == 48
    assert sorted(failure.partition(" cannot be copied: ")[0] for failure in report.failures) == ["/bad", "/f7", "/f8"]
    assert (tmp_path / "out" / "good").is_dir()
    note = tmp_path / ".out.cvmfs-py-copy"  # so that the same command tries the rest again
    written = note.stat()
    report = await copied(published, tmp_path / "cache", b"", tmp_path / "out")
    assert (report.resumed_files, report.files) == (48, 0)
    # At no moment is there no whole note: a copy that is killed again can go on again.
    assert (note.stat().st_ino, note.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


async def test_a_lost_network_ends_it_soon(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published")
    published.publish(Directory({f"f{each:03}": File(b"content %d" % each) for each in range(300)}))
    with SlowServer(published.document_root) as server:
        async with opened(published, tmp_path / "cache", [server.url]) as repository:
            await repository.open_directory(b"")
            server.stop()
            request = CopyRequest(b"", tmp_path / "out", recursive=True, jobs=4)
            with pytest.raises(FetchError, match="connection refused"):
                await copy_out(repository, request, Nobody())
    assert os.listdir(tmp_path / "out") == []


async def test_what_a_volatile_repository_has_is_evicted_first(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published", volatile=True)
    published.publish(Directory({"f": File(b"content"), "c": File(b"chunks", chunk_sizes=3)}))
    async with opened(published, tmp_path / "cache") as repository:
        await copy_out(repository, CopyRequest(b"", tmp_path / "out", recursive=True), Nobody())
        found = {entry.volatile for entry in repository.store.entries() if entry.kind in (Kind.BULK, Kind.CHUNK)}
    assert found == {True}
