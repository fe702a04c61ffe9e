"""Where a copy goes: as with cp, for every kind of source and every kind of destination."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.errors import FsError
from cvmfs_py.mount.copying import CopyRequest, copy_out
from tests.flow.opening import Nobody, opened
from tests.rights import why_not
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = {
    "file": File(b"content"),
    "tree": Directory({"inside": File(b"1"), "deep": Directory({"x": File(b"2")})}),
    "other": Directory({"tree": Directory({})}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    published = Published.create(tmp_path_factory.mktemp("published"))
    published.publish(Directory({**TREE, "to file": Symlink("file"), "to tree": Symlink("other/../tree")}))
    return published


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "cache"


def make_source(top: Path) -> None:
    """The same tree on the disk, for cp."""
    (top / "tree" / "deep").mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    (top / "tree" / "inside").write_bytes(b"1")
    (top / "tree" / "deep" / "x").write_bytes(b"2")


def nothing(place: Path) -> None:
    """An empty place."""


def a_file(place: Path) -> None:
    (place / "dest").write_bytes(b"before")


def a_directory(place: Path) -> None:
    (place / "dest").mkdir()
    (place / "dest" / "there").write_bytes(b"there")


def a_directory_with_the_name_inside(place: Path) -> None:
    (place / "dest" / "tree" / "deep").mkdir(parents=True)
    (place / "dest" / "tree" / "there").write_bytes(b"there")
    (place / "dest" / "file").write_bytes(b"before")


def a_link_to_a_directory(place: Path) -> None:
    (place / "real").mkdir()
    (place / "dest").symlink_to("real")


def a_directory_with_the_wrong_thing_inside(place: Path) -> None:
    (place / "dest" / "file").mkdir(parents=True)
    (place / "dest" / "tree").write_bytes(b"a file")


SCENES = (
    nothing,
    a_file,
    a_directory,
    a_directory_with_the_name_inside,
    a_link_to_a_directory,
    a_directory_with_the_wrong_thing_inside,
)
DESTINATIONS = ("dest", "dest/", "dest/.", "dest/new", "dest/new/", "missing/new", "./dest", "dest/../dest", ".")


def seen(place: Path) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    for folder, directories, files in os.walk(place):
        for name in (*directories, *files):
            path = Path(folder, name)
            key = str(path.relative_to(place))
            found[key] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("source", ["file", "tree"])
async def test_as_cp(
    published: Published,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    scene: Callable[[Path], None],
    destination: str,
) -> None:
    make_source(tmp_path / "source")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for place in (ours, theirs):
        place.mkdir()
        scene(place)
    command = ["cp", "-r", str(tmp_path / "source" / source), destination]
    done = subprocess.run(command, cwd=theirs, capture_output=True, check=False)  # noqa: ASYNC221  # what it is about
    monkeypatch.chdir(ours)
    failed = ""
    async with opened(published, cache) as repository:
        try:
            request = CopyRequest(b"/" + source.encode(), destination, recursive=True)
            report = await copy_out(repository, request, Nobody())
            failed = "; ".join(report.failures)
        except FsError as error:
            failed = str(error)
    assert bool(failed) == bool(done.returncode), (failed, done.stderr)
    if done.returncode == 0:
        assert seen(ours) == seen(theirs)
    else:
        before = tmp_path / "before"
        before.mkdir()
        scene(before)
        assert seen(ours) == seen(before)  # nothing was spoilt, and no note was left
        assert "\n" not in failed
        assert "Traceback" not in failed


async def copy(published: Published, cache: Path, source: bytes, destination: Path, *, recursive: bool = True) -> None:
    async with opened(published, cache) as repository:
        report = await copy_out(repository, CopyRequest(source, destination, recursive), Nobody())
        assert report.failures == []


async def test_the_whole_repository_is_called_by_its_name(published: Published, cache: Path, tmp_path: Path) -> None:
    await copy(published, cache, b"", tmp_path)
    assert (tmp_path / published.fqrn / "tree" / "inside").read_bytes() == b"1"
    await copy(published, cache, b"", tmp_path / "new")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("source", [b"/to file", b"/to tree"])
async def test_what_a_link_leads_to_is_copied_under_the_name_that_was_asked_for(
    published: Published, cache: Path, tmp_path: Path, source: bytes
) -> None:
    await copy(published, cache, source, tmp_path)
    copied = tmp_path / os.fsdecode(source[1:])
    assert not copied.is_symlink()
    assert copied.is_dir() == (source == b"/to tree")


async def test_dots_at_the_end_are_no_name(published: Published, cache: Path, tmp_path: Path) -> None:
    await copy(published, cache, b"/other/..", tmp_path)
    assert (tmp_path / published.fqrn / "file").exists()
    await copy(published, cache, b"/tree/deep/..", tmp_path)
    assert (tmp_path / "tree" / "inside").exists()


async def test_a_directory_needs_to_be_asked_for(published: Published, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FsError, match=r"^/tree is a directory; add -r to copy it with all below$"):
        await copy(published, cache, b"/tree", tmp_path / "out", recursive=False)


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("missing/new", r"cannot copy to .*/missing/new: .*/missing: No such file or directory"),
        ("file/new", r"cannot copy to .*/file/new: .*/file: Not a directory"),
        ("file", r"cannot copy a directory to .*/file: there is something else of this name"),
        ("link", r"cannot copy a directory to .*/link: there is something else of this name"),
    ],
)
async def test_what_is_wrong_with_a_destination_is_told(
    published: Published, cache: Path, tmp_path: Path, destination: str, message: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FsError, match=message):
        await copy(published, cache, b"/tree", tmp_path / destination)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


async def test_the_destination_may_be_reached_through_links(published: Published, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    await copy(published, cache, b"/tree", tmp_path / "link" / ".." / "new")  # beside b, wherever the link is
    assert (tmp_path / "a" / "new" / "inside").exists()
    shutil.rmtree(tmp_path / "a" / "new")


async def test_devices_and_pipes_are_not_replaced(published: Published, cache: Path, tmp_path: Path) -> None:
    """Above all not /dev/null or /dev/stdout, which root could."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    if not why_not("device files"):
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in os.listdir(tmp_path):
        (tmp_path / f"link to {name}").symlink_to(name)
    before = {name: os.lstat(tmp_path / name).st_ino for name in os.listdir(tmp_path)}
    for name in before:
        with pytest.raises(
            FsError, match=rf"/{name} is a device, pipe or socket, .*; to write into it, use cvmfs-py cat$"
        ):
            await copy(published, cache, b"/file", tmp_path / name)
    assert {name: os.lstat(tmp_path / name).st_ino for name in os.listdir(tmp_path)} == before


@pytest.mark.needs("device files")
async def test_a_tree_does_not_replace_devices(published: Published, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mknod(tmp_path / "tree" / "inside", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    async with opened(published, cache) as repository:
        report = await copy_out(repository, CopyRequest(b"/tree", tmp_path, recursive=True), Nobody())
    assert report.failures == ["cannot write the copy of /tree/inside: there is something else in its place (a device)"]
    assert stat.S_ISCHR(os.lstat(tmp_path / "tree" / "inside").st_mode)
    assert sorted(os.listdir(tmp_path / "tree")) == ["deep", "inside"]
