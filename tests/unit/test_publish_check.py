"""The consistency check: silent on good repositories, and every planted defect is found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.errors import CvmfsError, TrustError
from cvmfs_py.publish.consistency import CheckReport, check_repository
from cvmfs_py.publish.storage import Storage
from cvmfs_py.trust.keys import parse_master_key
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Callable

ZOO = Path(__file__).parent.parent / "data" / "zoo"

TREE = Directory(
    {
        "hello": File(b"hello\n", xattrs={b"user.a": b"b"}),
        "big": File(bytes(range(256)) * 400, chunk_sizes=40_000),
        "empty": File(b""),
        "link": Symlink("hello"),
        "hard": Directory(hard_links(File(b"same"), "a", "b", "c")),
        "sw": Directory({"inside": File(b"inside"), "dir": Directory({"deep": File(b"deep")})}, nested=True),
    }
)


def check(repository: Repository, *, data: bool = False, every_snapshot: bool = False) -> CheckReport:
    key = parse_master_key(repository.master_public_key.read_bytes(), "key")
    storage = Storage(repository.server_root)
    return check_repository(storage, "test.example.org", (key,), data=data, every_snapshot=every_snapshot)


@pytest.mark.parametrize("data", [False, True])
def test_a_repository_of_the_reference_server_is_right(data: bool) -> None:
    key = parse_master_key((ZOO / "zoo.test.org.pub").read_bytes(), "key")
    report = check_repository(Storage(ZOO / "server"), "zoo.test.org", (key,), data=data, every_snapshot=True)
    assert report.problems == []
    assert (report.snapshots, report.remarks) == (9, [])


@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"compression": "zstd"}])
def test_a_good_repository_is_right(tmp_path: Path, options: dict[str, str]) -> None:
    repository = Repository.create(tmp_path, **options)
    repository.publish(TREE, "v1")
    repository.publish(Directory({"other": File(b"x")}), "v2")
    report = check(repository, data=True, every_snapshot=True)
    assert report.problems == []
    assert report.catalogs == 3


# Statements on the root catalog (b"") or the nested one, and words of the problem that must be found.
DEFECTS: dict[str, tuple[bytes, str, str]] = {
    "a counter is wrong": (b"", "UPDATE statistics SET value = 99 WHERE counter = 'self_regular'", "counts 99 as reg"),
    "a nested counter is wrong": (b"/sw", "UPDATE statistics SET value = 9 WHERE counter = 'self_dir'", "counts 9 as"),
    "a chunk is missing": (b"", "DELETE FROM chunks WHERE offset = 40000", "chunks"),
    "flags do not fit": (b"", "UPDATE catalog SET flags = 1 WHERE name = 'hello'", "flags 1 do not fit"),
    "a file without hash": (b"", "UPDATE catalog SET hash = NULL WHERE name = 'hello'", "no content for the file"),
    "a link without target": (b"", "UPDATE catalog SET symlink = '' WHERE name = 'link'", "have targets"),
    "a hard link is gone": (
        b"",
        "UPDATE catalog SET hardlinks = (hardlinks & ~4294967295) | 5 WHERE name IN ('a', 'b', 'c')",
        "5 hard links, and 3 are there",
    ),
    "hard links differ": (b"", "UPDATE catalog SET size = 5 WHERE name = 'b'", "differ"),
    "the two rows of a mountpoint differ": (
        b"/sw",
        "UPDATE catalog SET mode = 16832 WHERE flags & 32",
        "differ in mode",
    ),
    "a transition is lost": (b"", "DELETE FROM nested_catalogs", "none is recorded"),
    "a transition is too much": (
        b"",
        "INSERT INTO nested_catalogs SELECT '/hard', sha1, size FROM nested_catalogs",
        "no mountpoint",
    ),
    "a transition has no hash": (b"", "UPDATE nested_catalogs SET sha1 = ''", "without its hash"),
    "a transition has another size": (b"", "UPDATE nested_catalogs SET size = 77", "77 are recorded"),
    "the top is not marked": (b"/sw", "UPDATE catalog SET flags = 1 WHERE flags & 32", "not marked as such"),
    "a row is unreachable": (
        b"",
        "UPDATE catalog SET parent_1 = 1 WHERE name = 'empty'",
        "unreachable",
    ),
    "a row is under another path": (b"", "UPDATE catalog SET name = 'hellp' WHERE name = 'hello'", "/hellp"),
    "a directory has a hash": (
        b"",
        "UPDATE catalog SET hash = (SELECT hash FROM catalog WHERE name = 'hello') WHERE name = 'hard'",
        "no regular file and has a hash",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(tmp_path: Path, defect: str) -> None:
    path, statement, words = DEFECTS[defect]
    repository = Repository.create(tmp_path)
    repository.publish(TREE, catalog_sql={path: [statement]})
    problems = check(repository).problems
    assert any(words in problem for problem in problems), problems


def _drop(repository: Repository, path: bytes) -> None:
    repository.drop(*repository.find_objects(path)[0])


def _tamper(repository: Repository, path: bytes) -> None:
    repository.tamper(*repository.find_objects(path)[0])


OBJECT_DEFECTS: dict[str, tuple[Callable[[Repository], None], str]] = {
    "an object is missing": (lambda repository: _drop(repository, b"/hello"), "is missing"),
    "a chunk object is missing": (lambda repository: _drop(repository, b"/big"), "is missing"),
    "an object of an empty file is missing": (lambda repository: _drop(repository, b"/empty"), "is missing"),
    "an object is damaged": (lambda repository: _tamper(repository, b"/sw/dir/deep"), "/sw/dir/deep"),
    "a nested catalog is missing": (
        lambda repository: repository.drop(repository.head.catalog(b"/sw").content_hash, Kind.CATALOG),
        "catalog of /sw cannot be read",
    ),
    "a nested catalog is damaged": (
        lambda repository: repository.tamper(repository.head.catalog(b"/sw").content_hash, Kind.CATALOG),
        "catalog of /sw cannot be read",
    ),
    "the reflog is another": (
        lambda repository: (repository.server_root / ".cvmfsreflog").write_bytes(b"x") and None,
        "reflog",
    ),
    "the whitelist has expired": (
        lambda repository: repository.write_whitelist(expires=datetime(2020, 2, 1, tzinfo=UTC)),
        "has expired",
    ),
}


@pytest.mark.parametrize("defect", OBJECT_DEFECTS)
def test_a_defect_of_the_storage_is_found(tmp_path: Path, defect: str) -> None:
    damage, words = OBJECT_DEFECTS[defect]
    repository = Repository.create(tmp_path)
    repository.publish(TREE, "v1")
    damage(repository)
    problems = check(repository, data=True).problems
    assert any(words in problem for problem in problems), problems


def test_a_tag_whose_snapshot_was_collected_is_a_remark_only(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    old = repository.publish(TREE, "v1")
    repository.publish(Directory({}), "v2")
    repository.drop(old.root_hash, Kind.CATALOG)
    report = check(repository, every_snapshot=True)
    assert report.problems == []
    assert any("v1" in remark for remark in report.remarks)


def test_without_a_manifest_or_with_a_foreign_one_there_is_nothing_to_check(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    with pytest.raises(CvmfsError, match=r"\.cvmfspublished"):
        check(repository)
    repository.publish(TREE)
    manifest = (repository.server_root / ".cvmfspublished").read_bytes()
    repository.replace_manifest(manifest[:-1] + bytes([manifest[-1] ^ 1]))
    with pytest.raises(TrustError):
        check(repository)
