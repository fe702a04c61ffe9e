"""The consistency check: silent on good repositories, and every planted defect is found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind, parse_hash
from catalog.pathkey import path_key
from cvmfs_py.errors import CvmfsError, TrustError
from cvmfs_py.publish.consistency import CheckReport, check_repository
from cvmfs_py.publish.storage import Storage
from cvmfs_py.trust.keys import parse_master_key
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Special, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Callable

ZOO = Path(__file__).parent.parent / "data" / "zoo"

TREE = Directory(
    {
        "hello": File(b"hello\n", xattrs={b"user.a": b"b"}),
        "big": File(bytes(range(256)) * 400, chunk_sizes=40_000),
        "empty": File(b""),
        "link": Symlink("hello"),
        "fifo": Special("fifo"),
        "hard": Directory(hard_links(File(b"same"), "a", "b", "c")),
        "sw": Directory({"inside": File(b"inside"), "dir": Directory({"deep": File(b"deep")})}, nested=True),
    }
)


def check(repository: Repository, *, data: bool = False, every_snapshot: bool = False) -> CheckReport:
    key = parse_master_key(repository.master_public_key.read_bytes(), "key")
    storage = Storage(repository.server_root)
    return check_repository(storage, "test.example.org", (key,), data=data, every_snapshot=every_snapshot)


def check_zoo(tmp_path: Path, manifest: str, *, data: bool) -> CheckReport:
    """The reference repository at one of its revisions."""
    for item in (ZOO / "server").iterdir():
        if item.name != ".cvmfspublished":
            (tmp_path / item.name).symlink_to(item)
    (tmp_path / ".cvmfspublished").write_bytes((ZOO / "manifests" / manifest).read_bytes())
    key = parse_master_key((ZOO / "zoo.test.org.pub").read_bytes(), "key")
    return check_repository(Storage(tmp_path), "zoo.test.org", (key,), data=data, every_snapshot=True)


@pytest.mark.parametrize("data", [False, True])
def test_a_repository_of_the_reference_server_is_right(tmp_path: Path, data: bool) -> None:
    report = check_zoo(tmp_path, "r6.cvmfspublished", data=data)
    assert report.problems == []
    assert (report.snapshots, report.remarks) == (9, [])


def test_a_root_catalog_that_the_reflog_lacks(tmp_path: Path) -> None:
    """The last revision of the zoo was put behind the reference server's back."""
    report = check_zoo(tmp_path, "r7.cvmfspublished", data=False)
    assert report.problems == [
        "the reflog does not hold b9a6fa616aac46f9a1efe7a87090929213eaa35cC, which the manifest names"
    ]


@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"compression": "zstd"}])
def test_a_good_repository_is_right(tmp_path: Path, options: dict[str, str]) -> None:
    repository = Repository.create(tmp_path, **options)
    repository.publish(TREE, "v1")
    repository.publish(Directory({"other": File(b"x")}), "v2")
    report = check(repository, data=True, every_snapshot=True)
    assert report.problems == []
    assert report.catalogs == 3


# What the reference server writes when it unpacks archives and takes over lists of files, without looking at each.
_NOTHING = "x'da39a3ee5e6b4b0d3255bfef95601890afd80709'"
ODDITIES: dict[str, tuple[bytes, str]] = {
    "links from an archive have no size": (b"", "UPDATE catalog SET size = 0 WHERE name = 'link'"),
    "a marker names no object": (b"/sw", f"UPDATE catalog SET hash = {_NOTHING} WHERE name = '.cvmfscatalog'"),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_oddity_of_the_reference_server_is_right(tmp_path: Path, oddity: str) -> None:
    path, statement = ODDITIES[oddity]
    repository = Repository.create(tmp_path)
    repository.publish(TREE, catalog_sql={path: [statement]})
    assert check(repository, data=True).problems == []


@pytest.mark.parametrize("reflog", [None, b"another one"])
def test_a_replica_has_a_reflog_of_its_own_or_none(tmp_path: Path, reflog: bytes | None) -> None:
    repository = Repository.create(tmp_path)
    repository.publish(TREE)
    (repository.server_root / ".cvmfsreflog").unlink()
    if reflog is not None:
        (repository.server_root / ".cvmfsreflog").write_bytes(reflog)
    assert any("reflog" in problem for problem in check(repository).problems)
    (repository.server_root / ".cvmfs_last_snapshot").write_text("Tue Dec  1 04:00:00 UTC 2026\n")
    report = check(repository)
    assert report.problems == []
    assert report.remarks == ["this is a replica: its reflog, of its own making, is left out"]


# The file `a` of /hard is called `.cvmfscatalog`.
_KEY, _OLD = path_key(b"/hard/.cvmfscatalog"), path_key(b"/hard/a")
MOVED_MARKER = (
    f"UPDATE catalog SET name = '.cvmfscatalog', md5path_1 = {_KEY[0]}, md5path_2 = {_KEY[1]} "
    f"WHERE md5path_1 = {_OLD[0]} AND md5path_2 = {_OLD[1]}"
)

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
    "a subtree counter is wrong": (
        b"",
        "UPDATE statistics SET value = 77 WHERE counter = 'subtree_file_size'",
        "counts 77 as file_size in the catalogs below",
    ),
    "extended attributes are not counted": (
        b"",
        "UPDATE statistics SET value = 0 WHERE counter = 'self_xattr'",
        "counts 0 as xattr",
    ),
    "a counter is missing": (b"/sw", "DELETE FROM statistics WHERE counter = 'self_regular'", "counts 0 as regular"),
    "a directory has another link count": (
        b"",
        "UPDATE catalog SET hardlinks = 7 WHERE name = 'hard'",
        "/hard says that it has 7 links, and has 2",
    ),
    "the root directory has another link count": (
        b"",
        "UPDATE catalog SET hardlinks = 2 WHERE name = ''",
        "/ says that it has 2 links, and has 4",
    ),
    "the two rows of a mountpoint have other link counts": (
        b"",
        "UPDATE catalog SET hardlinks = 2 WHERE name = 'sw'",
        "differ in hardlinks",
    ),
    "a file has no links": (b"", "UPDATE catalog SET hardlinks = 0 WHERE name = 'hello'", "/hello says that it has no"),
    "a file has links and no group": (
        b"",
        "UPDATE catalog SET hardlinks = 2 WHERE name = 'hello'",
        "2 hard links, and is in no group",
    ),
    "a directory is hard-linked": (
        b"",
        f"UPDATE catalog SET hardlinks = {(9 << 32) | 2} WHERE name = 'hard'",
        "a directory in a group of hard links",
    ),
    "times of hard links differ": (b"", "UPDATE catalog SET mtime = 5 WHERE name = 'b'", "differ in mtime_s"),
    "a link has another size": (b"", "UPDATE catalog SET size = 9 WHERE name = 'link'", "target of 5 bytes, and 9 are"),
    "a fifo has a size": (b"", "UPDATE catalog SET size = 9 WHERE name = 'fifo'", "/fifo is no file and has a size"),
    "a link is for direct I/O": (b"", "UPDATE catalog SET flags = flags | 65536 WHERE name = 'link'", "direct I/O"),
    "a nested catalog has no marker": (
        b"/sw",
        "DELETE FROM catalog WHERE name = '.cvmfscatalog'",
        "the nested catalog of /sw has no .cvmfscatalog",
    ),
    "a marker is abandoned": (b"", MOVED_MARKER, "/hard has a .cvmfscatalog, and no nested catalog"),
    "the root is marked as nested": (b"", "UPDATE catalog SET flags = 33 WHERE name = ''", "that of a nested one"),
    "a catalog was made for another place": (
        b"/sw",
        "UPDATE properties SET value = '/ws' WHERE key = 'root_prefix'",
        "/sw",
    ),
    "a root catalog is of another revision": (
        b"",
        "UPDATE properties SET value = '5' WHERE key = 'revision'",
        "is of revision 5, but 1 is recorded for it",
    ),
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


def test_a_damaged_description_is_found(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path, metainfo=b"{}")
    repository.publish(TREE, "v1")
    assert check(repository).problems == []
    fields = dict(repository.head.fields)
    metainfo = parse_hash(fields["M"])
    assert metainfo is not None
    repository.tamper(metainfo, Kind.METAINFO)
    assert any("description" in problem for problem in check(repository).problems)


@pytest.mark.parametrize("field", ["C", "X"])
def test_a_missing_alternative_name_is_found(tmp_path: Path, field: str) -> None:
    repository = Repository.create(tmp_path, alternative_paths=True)
    repository.publish(TREE, "v1")
    assert check(repository).problems == []
    name = f".cvmfsalt-{dict(repository.head.fields)[field]}{field}"
    (repository.server_root / name).unlink()
    assert check(repository).problems == [f"the alternative name {name} is missing"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE branches SET initial_revision = 9", "tag trunk is of revision 1, which its branch '' has not"),
        ("UPDATE tags SET branch = 'dev'", "tag trunk is of revision 1, which its branch 'dev' has not"),
        ("INSERT INTO branches VALUES ('dev', '', 1)", "a branch 'dev' without tags"),
    ],
)
def test_a_defect_of_the_tags_is_found(tmp_path: Path, statement: str, words: str) -> None:
    repository = Repository.create(tmp_path)
    repository.publish(TREE, "v1", history_sql=[statement])
    problems = check(repository).problems
    assert any(words in problem for problem in problems), problems


def test_a_tag_that_tells_another_revision_is_found(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    repository.publish(TREE, "v1")
    repository.publish(Directory({}), "v2", history_sql=["UPDATE tags SET revision = 2, size = 7 WHERE name = 'v1'"])
    problems = check(repository, every_snapshot=True).problems
    assert any("is of revision 1, but 2 is recorded for it" in problem for problem in problems), problems
    assert any("but 7 are recorded for it" in problem for problem in problems), problems


def test_one_catalog_at_two_places_is_found(tmp_path: Path) -> None:
    """Its rows are those of the first place only."""
    repository = Repository.create(tmp_path)
    tree = Directory({name: Directory({"f": File(b"x")}, nested=True) for name in ("one", "two")})
    moved = "UPDATE nested_catalogs SET sha1 = (SELECT sha1 FROM nested_catalogs WHERE path = '/one')"
    repository.publish(tree, catalog_sql={b"": [moved]})
    problems = check(repository).problems
    assert any("/two" in problem for problem in problems), problems


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
