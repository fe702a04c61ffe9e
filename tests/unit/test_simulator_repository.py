"""The repository builder, checked by reading what it wrote in the plainest way."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Algorithm, Kind, hash_bytes, parse_hash
from tests.simulator.reading import (
    assert_counters_consistent,
    read_content,
    read_revision,
    read_rows,
)
from tests.simulator.repository import Repository
from tests.simulator.schema import Schema
from tests.simulator.tree import (
    Directory,
    File,
    HardLink,
    Node,
    Special,
    Symlink,
    hard_links,
    iter_entries,
    tree_from_directory,
)

if TYPE_CHECKING:
    from pathlib import Path

XATTRS = {b"user.b": b"two", b"user.a": bytes(200)}
TREE = Directory(
    {
        "empty": File(),
        "hello": File(b"Hello\n", mode=0o4755, uid=12, gid=34, mtime_ns=-5_000_000_001, xattrs=XATTRS),
        "chunked": File(bytes(range(250)) * 4, chunk_sizes=(1, 998, 1)),
        "chunked-and-whole": File(b"c" * 700, chunk_sizes=300, bulk_too=True),
        "plain": File(b"plain", compression="none"),
        "external": File(b"external", external=True),
        "external-chunked": File(b"external" * 50, external=True, chunk_sizes=150),
        "direct": File(b"direct", direct_io=True),
        **{name.decode(): node for name, node in hard_links(File(b"linked"), "l1", "l2", "l3").items()},
        "link": Symlink("$(NOWHERE:-hello)"),
        "fifo": Special("fifo"),
        "null": Special("char", os.makedev(1, 3), mode=0o666),
        "nested": Directory(
            {
                "file": File(b"in a nested catalog"),
                "deeper": Directory({"x": File(b"x"), "link": HardLink("x")}, nested=True, marker=False),
            },
            nested=True,
        ),
        "dir": Directory({"sub": Directory(), "other": Directory({"f": File(b"f" * 5000)})}, mode=0o1777),
    }
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path)


def test_every_entry_is_as_described(repository: Repository) -> None:
    repository.publish(TREE)
    rows = read_rows(read_revision(repository))
    assert rows[b"/hello"]["mode"] == stat.S_IFREG | 0o4755
    assert (rows[b"/hello"]["uid"], rows[b"/hello"]["gid"]) == (12, 34)
    assert (rows[b"/hello"]["mtime"], rows[b"/hello"]["mtimens"]) == (-6, 999_999_999)
    assert rows[b"/hello"]["xattr"] == b"\x01\x02\x06\xc8user.a" + bytes(200) + b"\x06\x03user.btwo"
    expected_flags = {
        b"": 1,
        b"/empty": 4,
        b"/chunked": 68,
        b"/chunked-and-whole": 68,
        b"/plain": 2052,
        b"/external": 2180,
        b"/external-chunked": 2244,
        b"/direct": 0x10004,
        b"/link": 12,
        b"/fifo": 20,
        b"/null": 20,
        b"/nested": 3,
        b"/nested/deeper": 3,
        b"/dir": 1,
    }
    assert {path: rows[path]["flags"] for path in expected_flags} == expected_flags
    assert rows[b"/null"]["size"] == 0x103
    assert rows[b"/link"]["symlink"] == b"$(NOWHERE:-hello)"
    assert rows[b"/link"]["size"] == len(b"$(NOWHERE:-hello)")
    assert [rows[path]["hardlinks"] for path in (b"", b"/dir", b"/dir/sub")] == [4, 4, 2]
    assert [size for _, size, _ in rows[b"/chunked"].chunks] == [1, 998, 1]
    assert rows[b"/chunked"]["hash"] is None
    assert rows[b"/chunked-and-whole"]["hash"] is not None
    assert rows[b"/nested/.cvmfscatalog"]["size"] == 0
    assert b"/nested/deeper/.cvmfscatalog" not in rows


def test_content_is_stored_under_its_hash(repository: Repository) -> None:
    repository.publish(TREE)
    rows = read_rows(read_revision(repository))
    contents = {b"/hello": b"Hello\n", b"/chunked": bytes(range(250)) * 4, b"/plain": b"plain", b"/empty": b""}
    contents |= {b"/chunked-and-whole": b"c" * 700, b"/l2": b"linked", b"/nested/deeper/link": b"x"}
    for path, content in contents.items():
        assert read_content(repository.server_root, rows[path]) == content
    assert rows[b"/empty"]["hash"].hex() == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
    objects = [path for path in (repository.server_root / "data").rglob("*") if path.is_file()]
    assert len(objects) == 20
    for file in objects:
        assert hashlib.sha1(file.read_bytes()).hexdigest() == (file.parent.name + file.name)[:40]


def test_external_files_lie_under_their_path(repository: Repository) -> None:
    repository.publish(TREE)
    rows = read_rows(read_revision(repository))
    assert (repository.external_root / "external").read_bytes() == b"external"
    assert hashlib.sha1(b"external").digest() == rows[b"/external"]["hash"]
    chunks = rows[b"/external-chunked"].chunks
    assert [chunk[:2] for chunk in chunks] == [(0, 150), (150, 150), (300, 100)]
    assert hashlib.sha1((b"external" * 50)[150:300]).digest() == chunks[1][2]
    assert not repository.object_path(hash_bytes(Algorithm.SHA1, b"external")).exists()


def test_hard_links_share_a_group_of_their_catalog(repository: Repository) -> None:
    two = {**hard_links(File(b"a"), "a1", "a2"), **hard_links(File(b"b"), "b1", "b2", "b3")}
    repository.publish(Directory({"one": Directory(two), "two": Directory(two)}))
    rows = read_rows(read_revision(repository))
    counts = [rows[b"/one/" + name]["hardlinks"] & 0xFFFFFFFF for name in (b"a1", b"a2", b"b1", b"b2", b"b3")]
    assert counts == [2, 2, 3, 3, 3]
    groups = {path: row["hardlinks"] >> 32 for path, row in rows.items() if row.type == stat.S_IFREG}
    assert groups[b"/one/a1"] == groups[b"/one/a2"]
    assert sorted(set(groups.values())) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="no regular file"):
        repository.publish(Directory({"x": HardLink("gone")}))


def test_counters_of_everything(repository: Repository) -> None:
    repository.publish(TREE)
    catalogs = read_revision(repository)
    assert catalogs.keys() == {b"", b"/nested", b"/nested/deeper"}
    assert catalogs[b""].statistics["subtree_nested"] == 1
    assert catalogs[b""].statistics["self_special"] == 2
    assert catalogs[b""].statistics["self_external"] == 2
    assert_counters_consistent(catalogs)


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_algorithms(tmp_path: Path, algorithm: Algorithm) -> None:
    repository = Repository.create(tmp_path, algorithm=algorithm)
    other = Algorithm.SHAKE128 if algorithm is Algorithm.SHA1 else Algorithm.SHA1
    chunked = File(b"chunked" * 9, chunk_sizes=30)
    files: dict[str, Node] = {
        "file": File(b"file"),
        "other": File(b"other", algorithm=other),
        "chunked": chunked,
        "link": Symlink("x"),
    }
    head = repository.publish(Directory(files))
    assert head.root_hash.algorithm is algorithm
    rows = read_rows(read_revision(repository))
    code = {Algorithm.SHA1: 0, Algorithm.RMD160: 1, Algorithm.SHAKE128: 2}
    assert [rows[path]["flags"] >> 8 for path in (b"/file", b"/other", b"/chunked", b"/link")] == [
        code[algorithm],
        code[other],
        code[algorithm],
        0,
    ]
    for path, content in ((b"/file", b"file"), (b"/other", b"other"), (b"/chunked", b"chunked" * 9)):
        assert read_content(repository.server_root, rows[path]) == content
    for content_hash, kind in repository.find_objects(b"/chunked"):
        stored = repository.object_path(content_hash, kind).read_bytes()
        assert hash_bytes(algorithm, stored) == content_hash
        assert zlib.decompress(stored) in b"chunked" * 9
    letter = (repository.server_root / ".cvmfspublished").read_bytes()
    body, _, rest = letter.partition(b"--\n")
    assert parse_hash(rest.partition(b"\n")[0]) == hash_bytes(algorithm, body)


def test_zstd(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path, compression="zstd", catalog_compression="zstd")
    repository.publish(Directory({"file": File(b"file" * 1000), "n": Directory({"x": File(b"x")}, nested=True)}))
    rows = read_rows(read_revision(repository))
    assert rows[b"/file"]["flags"] == 4 | 2 << 11
    assert read_content(repository.server_root, rows[b"/file"]) == b"file" * 1000
    assert read_content(repository.server_root, rows[b"/n/x"]) == b"x"
    root = repository.object_path(repository.head.root_hash, Kind.CATALOG)
    assert root.read_bytes().startswith(b"\x28\xb5\x2f\xfd")


SCHEMAS = [
    *(Schema(revision=revision) for revision in range(9)),
    Schema(revision=7, upgraded=True),
    Schema("2.4", None),
    Schema("2.1", None),
    Schema("1.2", None),
    Schema("0.9", None),
    Schema("3.0", 0),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: f"{schema.version}-{schema.revision}-{schema.upgraded}")
def test_schemas(tmp_path: Path, schema: Schema) -> None:
    repository = Repository.create(tmp_path, schema=schema)
    tree = Directory({"file": File(b"f", uid=7, xattrs={b"user.a": b"b"}), "link": Symlink("file")})
    nested = Directory({"n": Directory({"x": File(b"x")}, nested=True), "d": tree})
    if schema.version == "0.9":
        repository.publish(Directory({"d": tree}))
    else:
        repository.publish(nested)
    catalogs = read_revision(repository)
    assert_counters_consistent(catalogs)
    catalog = catalogs[b""]
    columns = catalog.tables["catalog"]
    assert ("uid" in columns) == (schema.number >= 2.1) == ("statistics" in catalog.tables)
    assert ("inode" in columns) == (schema.number < 2.1)
    assert ("xattr" in columns) == (schema.step >= 2)
    assert ("mtimens" in columns) == (schema.step >= 7)
    assert ("bind_mountpoints" in catalog.tables) == (schema.step >= 4)
    assert ("size" in catalog.tables["nested_catalogs"]) == (schema.step >= 1)
    assert ("sha1" in catalog.tables["nested_catalogs"]) == (schema.version != "0.9")
    assert catalog.properties["schema"].decode() == ("1.0" if schema.version == "0.9" else schema.version)
    assert ("schema_revision" in catalog.properties) == (schema.revision is not None)
    assert catalog.rows[b"/d/link"]["symlink"] == b"file"
    if schema.upgraded:
        assert columns[-2:] == ["xattr", "mtimens"]


def test_mixed_schemas_in_one_tree(repository: Repository) -> None:
    old = Directory({"x": File(b"x")}, nested=True, schema=Schema("1.2", None))
    repository.publish(Directory({"old": old, "new": replace(old, schema=None)}))
    catalogs = read_revision(repository)
    assert [catalogs[path].properties["schema"] for path in (b"", b"/old", b"/new")] == [b"2.5", b"1.2", b"2.5"]


# local trees


def test_tree_from_directory(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    (source / "sw" / "deep").mkdir(parents=True)
    (source / "sw" / ".cvmfscatalog").touch()
    (source / "sw" / "big").write_bytes(b"0123456789" * 1000)
    (source / "sw" / "deep" / "a").write_bytes(b"linked")
    os.link(source / "sw" / "deep" / "a", source / "sw" / "deep" / "b")
    (source / "link").symlink_to("sw/big")
    os.mkfifo(source / "fifo", 0o600)
    (source / os.fsdecode(b"odd \xff\n")).write_bytes(b"odd")
    os.utime(source / "sw" / "big", ns=(0, 1_234_567_890_123_456_789))
    os.chmod(source / "sw" / "big", 0o640)
    tree = tree_from_directory(source, nested=lambda path: path == b"/sw/deep", chunk_above_bytes=4096)
    repository.publish(tree)
    assert read_revision(repository).keys() == {b"", b"/sw", b"/sw/deep"}
    rows = read_rows(read_revision(repository))
    found = {b"": os.lstat(source)}
    for local in source.rglob("*"):
        found[b"/" + os.fsencode(local.relative_to(source))] = os.lstat(local)
    assert found.keys() == rows.keys() - {b"/sw/deep/.cvmfscatalog"}
    for path, status in found.items():
        row = rows[path]
        assert row["mode"] == status.st_mode
        assert row["mtime"] * 10**9 + row["mtimens"] == status.st_mtime_ns
        if stat.S_ISREG(status.st_mode):
            local = source / os.fsdecode(path[1:])
            assert read_content(repository.server_root, row) == local.read_bytes()
    assert [size for _, size, _ in rows[b"/sw/big"].chunks] == [4096, 4096, 1808]
    assert rows[b"/sw/deep/a"]["hardlinks"] == rows[b"/sw/deep/b"]["hardlinks"] == 1 << 32 | 2
    assert_counters_consistent(read_revision(repository))


def test_large_local_files_are_streamed(tmp_path: Path, repository: Repository) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 5)
    repository.publish(Directory({"big": File(big)}))
    assert read_content(repository.server_root, read_rows(read_revision(repository))[b"/big"]) == big.read_bytes()


names = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
leaves = st.one_of(
    st.builds(File, st.binary(max_size=300)),
    st.builds(lambda content, size: File(content, chunk_sizes=size), st.binary(max_size=300), st.integers(1, 120)),
    st.builds(Symlink, st.binary(min_size=1, max_size=40).filter(lambda target: 0 not in target)),
)
trees = st.recursive(
    leaves,
    lambda nodes: st.builds(
        lambda entries, nested: Directory(entries, nested=nested, marker=False),
        st.dictionaries(names, nodes, max_size=5),
        st.booleans(),
    ),
    max_leaves=15,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(names, trees, max_size=5))
def test_any_tree_can_be_read_again(tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, Node]) -> None:
    repository = Repository.create(tmp_path_factory.mktemp("any"))
    repository.publish(Directory(entries))
    assert_counters_consistent(read_revision(repository))
    rows = read_rows(read_revision(repository))
    expected: dict[bytes, Node] = {}
    pending = [(b"", Directory(entries))]
    while pending:
        path, directory = pending.pop()
        expected[path] = directory
        for name, node in iter_entries(directory):
            expected[path + b"/" + name] = node
            if isinstance(node, Directory):
                pending.append((path + b"/" + name, node))
    assert rows.keys() == expected.keys()
    for path, node in expected.items():
        if isinstance(node, File) and node.content:
            assert read_content(repository.server_root, rows[path]) == node.content
        if isinstance(node, Symlink):
            assert rows[path]["symlink"] == node.target
