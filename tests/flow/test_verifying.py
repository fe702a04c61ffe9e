"""Verification: nothing wrong is overlooked, nothing right is blamed, and one problem does not hide another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Kind
from cvmfs_py.errors import FetchError
from cvmfs_py.mount.verifying import VerifyReport, verify_snapshot
from tests.flow.opening import Nobody, opened
from tests.simulator.repository import Repository as Published
from tests.simulator.schema import Schema
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File, Node, Special, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNKED = File(bytes(range(200)), chunk_sizes=50)


def everything() -> Directory:
    """Whatever a catalog can count."""
    entries: dict[str, Node] = {
        "file": File(b"content", xattrs={b"user.x": b"1"}),
        "empty": File(b""),
        "chunked": CHUNKED,
        "external": File(b"external", external=True),
        "external chunked": File(b"abcdefgh", external=True, chunk_sizes=3),
        "verbatim": File(b"verbatim", compression="none"),
        "link": Symlink("file", xattrs={b"user.y": b"2"}),
        "fifo": Special("fifo"),
        **hard_links(File(b"hard"), "h1", "h2"),
        "dir": Directory({"deep": Directory({"f": File(b"f")}, xattrs={b"user.z": b"3"})}),
        "n": Directory(
            {"f": File(b"nf"), "m": Directory({"g": CHUNKED}, nested=True), "s": Special("socket")}, nested=True
        ),
        "o": Directory({"f": File(b"of")}, nested=True, xattrs={b"user.z": b"4"}, marker=False),
    }
    return Directory(entries)


async def verified(
    published: Published,
    cache: Path,
    path: bytes = b"",
    servers: list[str] | None = None,
    *,
    data: bool = True,
    fresh: bool = False,
) -> VerifyReport:
    async with opened(published, cache, servers, fresh=fresh) as repository:
        return await verify_snapshot(repository, path, Nobody(), data=data, jobs=3)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published.create(tmp_path / "published")
    published.publish(everything(), tag="v1")
    return published


async def test_everything_is_right(published: Published, tmp_path: Path) -> None:
    report = await verified(published, tmp_path / "cache")
    assert report.problems == []
    assert report.catalogs == 4
    assert report.entries == 22
    # Each file that is not empty, four chunks twice, three external ones.
    assert report.objects == 19


async def test_without_data_no_file_is_fetched(published: Published, tmp_path: Path) -> None:
    with SlowServer(published.document_root) as server:
        report = await verified(published, tmp_path / "cache", b"", [server.url], data=False)
        objects = {path.rpartition("/")[2][-1] for path in server.paths if "/data/" in path}
    assert (report.problems, report.objects) == ([], 0)
    assert objects <= {"C", "X"}


@pytest.mark.parametrize(
    ("path", "catalogs", "entries"), [(b"/n", 2, 6), (b"/dir", 0, 2), (b"/file", 0, 1), (b"/link", 0, 1)]
)
async def test_a_part(published: Published, tmp_path: Path, path: bytes, catalogs: int, entries: int) -> None:
    report = await verified(published, tmp_path / "cache", path)
    assert (report.problems, report.catalogs, report.entries) == ([], catalogs, entries)


@pytest.mark.parametrize(
    "schema",
    [Schema("1.2"), Schema("2.4"), *(Schema("2.5", revision) for revision in range(8))],
    ids=lambda schema: f"{schema.version}-{schema.revision}",
)
async def test_catalogs_of_every_version_are_counted_as_they_count(tmp_path: Path, schema: Schema) -> None:
    published = Published.create(tmp_path / "published", schema=schema)
    plain: dict[str, Node] = {"f": File(b"1"), "l": Symlink("f"), "d": Directory({"g": File(b"2")})}
    if schema.step >= 0:
        plain["fifo"] = Special("fifo")
    inside = Directory({**plain, "m": Directory(plain, nested=True)}, nested=True)
    published.publish(Directory({**plain, "n": inside}))
    assert (await verified(published, tmp_path / "cache")).problems == []


async def test_what_is_hidden_is_verified_too(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "published", snapshots=True)
    published.publish(Directory({"f": File(b"1")}), tag="v1")
    published.publish(Directory({"f": File(b"2")}), tag="v2")
    report = await verified(published, tmp_path / "cache")
    assert (report.problems, report.catalogs) == ([], 2)
    hidden = published.head.catalog(b"/.cvmfs")
    published.drop(hidden.content_hash, Kind.CATALOG)
    report = await verified(published, tmp_path / "other cache")
    assert len(report.problems) == 1
    assert "/.cvmfs cannot be listed" in report.problems[0]


# what is wrong with catalogs

COUNTERS = ("regular", "symlink", "special", "dir", "nested", "chunked", "chunks", "file_size", "chunked_size", "xattr")


@pytest.mark.parametrize("counter", [*COUNTERS, "external", "external_file_size"])
@pytest.mark.parametrize("scope", ["self", "subtree"])
@pytest.mark.parametrize("top", [b"", b"/n"])
async def test_wrong_counters(tmp_path: Path, counter: str, scope: str, top: bytes) -> None:
    published = Published.create(tmp_path / "published")
    statement = f"UPDATE statistics SET value = value + 7 WHERE counter = '{scope}_{counter}'"
    published.publish(everything(), catalog_sql={top: [statement]})
    problems = (await verified(published, tmp_path / "cache", data=False)).problems
    where = "/n" if top else "/"
    ours = [problem for problem in problems if problem.startswith(f"the catalog of {where} counts")]
    assert len(ours) == 1
    assert f" as {counter}" in ours[0]
    assert (" in those below" in ours[0]) == (scope == "subtree")
    # The one above says what the nested one said of itself before it was changed: that is its problem, too.
    assert len(problems) == (2 if top else 1)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE catalog SET mode = 0 WHERE name = 'file'", "is not the mode of any kind of file"),
        ("UPDATE catalog SET name = 'other' WHERE name = 'file'", "is not stored as /other"),
        ("UPDATE catalog SET hash = NULL WHERE name = 'file'", "no content for the file /file"),
        ("UPDATE catalog SET size = 9 WHERE name = 'chunked'", 'is damaged: entry "chunked"'),
        ("UPDATE nested_catalogs SET sha1 = '' WHERE path = '/n'", "does not tell its nested catalog"),
        ("DELETE FROM nested_catalogs WHERE path = '/n'", "nothing below /n can be reached"),
        ("DELETE FROM catalog WHERE name = 'deep'", "counts"),
    ],
)
async def test_bad_rows(tmp_path: Path, statement: str, words: str) -> None:
    published = Published.create(tmp_path / "published")
    published.publish(everything(), catalog_sql={b"": [statement]})
    report = await verified(published, tmp_path / "cache")
    assert words in "; ".join(report.problems)


async def test_one_problem_does_not_hide_another(published: Published, tmp_path: Path) -> None:
    """A lost catalog, a lost object, one that was changed, a wrong counter: all in one go, each told."""
    statement = "UPDATE statistics SET value = 99 WHERE counter = 'self_symlink'"
    head = published.publish(everything(), catalog_sql={b"": [statement]})
    published.drop(head.catalog(b"/n/m").content_hash, Kind.CATALOG)
    published.drop(*published.find_objects(b"/file")[0])
    published.tamper(*published.find_objects(b"/o/f")[0])
    problems = sorted((await verified(published, tmp_path / "cache")).problems)
    assert len(problems) == 4, problems
    assert "/n/m cannot be listed: catalog of /n/m does not exist on any server" in problems[0]
    assert "cannot fetch file /o/f" in problems[1]
    assert "file /file does not exist on any server" in problems[2]
    assert "the catalog of / counts 99 as symlink, but has 1" in problems[3]


async def test_a_lost_network_ends_it(published: Published, tmp_path: Path) -> None:
    files: dict[str, Node] = {f"f{number}": File(b"%d" % number) for number in range(100)}
    published.publish(Directory(files))
    with SlowServer(published.document_root) as server:
        async with opened(published, tmp_path / "cache", [server.url]) as repository:
            await repository.open_directory(b"")
            server.stop()
            with pytest.raises(FetchError, match="connection refused"):
                await verify_snapshot(repository, b"", Nobody(), data=True)


# local copies


def copy_of(cache: Path, text: str) -> Path:
    return cache / "objects" / text[:2] / text[2:]


def damage(path: Path, change: Callable[[bytearray], Any]) -> bytes:
    """As a failing disk does it: nothing but the content tells. The content before."""
    info = path.stat()
    good = path.read_bytes()
    data = bytearray(good)
    change(data)
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return good


def flip_last(data: bytearray) -> None:
    data[-1] ^= 1


async def test_damaged_copies_are_replaced(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert (await verified(published, cache)).problems == []
    texts = [str(published.find_objects(path)[0][0]) for path in (b"/file", b"/chunked", b"/verbatim")]
    # In a part of the catalog that no query reads.
    texts += [str(published.head.catalog(path).content_hash) for path in (b"", b"/n/m")]
    good = {text: damage(copy_of(cache, text), flip_last) for text in texts}
    assert (await verified(published, cache)).problems == []
    for text, content in good.items():
        assert copy_of(cache, text).read_bytes() == content


async def test_without_servers_a_damaged_copy_is_a_problem(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert (await verified(published, cache)).problems == []
    damage(copy_of(cache, str(published.find_objects(b"/file")[0][0])), flip_last)
    report = await verified(published, cache, b"", ["file:///nowhere"])
    assert len(report.problems) == 1
    assert "file /file" in report.problems[0]


async def test_fresh_means_that_the_cache_does_not_count(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert (await verified(published, cache)).problems == []
    published.drop(*published.find_objects(b"/file")[0])
    assert (await verified(published, cache)).problems == []
    with SlowServer(published.document_root) as server:
        problems = (await verified(published, cache, b"", [server.url], fresh=True)).problems
        assert (
            len([path for path in server.paths if "/data/" in path]) > 10
        )  # not even what is here is taken from there
    assert len(problems) == 1
    assert "file /file does not exist on any server" in problems[0]
