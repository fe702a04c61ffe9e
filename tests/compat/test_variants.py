"""Repositories of every kind that servers make, read to the last byte from an empty cache, and again offline."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Algorithm, Kind
from cvmfs_py.errors import ConfigError, ObjectGoneError
from tests.compat.whole_tree import describe, opened, read_whole
from tests.rights import why_not
from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.schema import NEWEST, Schema
from tests.simulator.signing import RepositoryKey
from tests.simulator.tree import Directory, File, Node, Special, Symlink, hard_links
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

FQRN = "variant.example.org"
RANDOM = random.Random(7)
NOISE = RANDOM.randbytes(300_000)  # what no compression makes smaller
TEXT = b"all work and no play\n" * 10_000


def ordinary_tree(**entries: Node) -> Directory:
    """One of everything that has no variants of its own."""
    sw = Directory(
        {
            "data": File(NOISE[:70_000], mode=0o600, uid=5, gid=6),
            "text": File(TEXT),
            "in": Directory({"deep": Directory({"file": File(b"deep down")}, nested=True)}),
            **hard_links(File(b"one of three", mtime_ns=-1_500_000_000), "a", "b", "c"),
        },
        nested=True,
        mode=0o750,
    )
    return Directory(
        {
            "empty": File(b""),
            "hello": File(b"Hello\n", mode=0o4755, mtime_ns=1_234_567_890_123_456_789, xattrs={b"user.x": b"\0y"}),
            "link": Symlink("sw/text"),
            "chunks": File(NOISE, chunk_sizes=(1, 99_999, 150_000, 50_000)),
            "fifo": Special("fifo"),
            "null": Special("char", os.makedev(1, 3), mode=0o666),
            "disk": Special("block", os.makedev(259, 70_000)),
            "future": File(b"x", mtime_ns=5_000_000_000_000_000_000),
            "sw": sw,
            **entries,
        },
        uid=1000,
        gid=1000,
        xattrs={b"user.root": b"yes"},
    )


@dataclass(frozen=True)
class Variant:
    """A repository, and the tree that is published."""

    options: dict[str, Any] = field(default_factory=dict)
    tree: Callable[[], Directory] = ordinary_tree
    key: str = "rsa"


def mixed_algorithms() -> Directory:
    files = {
        f"{algorithm.name} {compression}".lower(): File(
            NOISE[:1000] + TEXT, algorithm=algorithm, compression=compression, chunk_sizes=sizes
        )
        for algorithm in (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)
        for compression in ("zlib", "none", "zstd")
        for sizes in (None,)
    }
    chunked = {f"{name}, chunked": replace(file, chunk_sizes=60_000) for name, file in files.items()}
    return Directory({**files, "below": Directory(chunked, nested=True)})


def chunk_lists() -> Directory:
    return Directory(
        {
            "one": File(NOISE[:10], chunk_sizes=10),
            "bytes": File(NOISE[:100], chunk_sizes=1),
            "even": File(NOISE, chunk_sizes=100_000),
            "rest": File(NOISE, chunk_sizes=70_000),
            "by content": File(NOISE, chunk_sizes=(12_345, 1, 200_000, 87_654)),
            "bulk too": File(NOISE, chunk_sizes=150_000, bulk_too=True),
            "plain": File(NOISE, chunk_sizes=150_000, compression="none"),
            "zstd": File(TEXT, chunk_sizes=50_000, compression="zstd"),
            "the same chunk again and again": File(b"0123456789" * 1000, chunk_sizes=10),
            "many": File(NOISE[:2_000], chunk_sizes=2),
            **hard_links(File(NOISE[:1000], chunk_sizes=300), "linked", "linked too"),
        }
    )


ODD_NAMES = [
    b"n" * 255,
    b" ",
    b"  two spaces ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"\x01\x1b[31mred\x07",
    b"\xff\xfe not utf-8",
    "sch\u00f6n \u4f60\u597d \U0001f600".encode(),
    b"-rf",
    b"--json",
    b"...",
    b".hidden",
    b"~",
    b"$HOME",
    b"`id`",
    b'"double"',
    b"'single'",
    b"back\\slash",
    b"100%",
    b"%2e%2e%2f",
    b"question?mark#hash&and=equals",
    b"colon:at@",
    b"*",
    b"[ab]{c,d}",
    b".cvmfs-py-part.1.1",
    b"\xcc\x81combining",
]


def odd_names() -> Directory:
    files: dict[bytes, Node] = {name: File(b"content of " + name) for name in ODD_NAMES}
    links: dict[bytes, Node] = {b"link to " + name[:200]: Symlink(name) for name in ODD_NAMES}
    nested: dict[bytes, Node] = {
        name: Directory({name: File(name), b"in": Directory({name: File(name)}, nested=True)}, nested=True)
        for name in ODD_NAMES
    }
    return Directory({"files": Directory(files), "links": Directory(links), "nested": Directory(nested)})


def deep_nesting(levels: int = 120) -> Directory:
    """A catalog in a catalog in a catalog; and a path of 6,000 bytes."""
    deep = Directory({"bottom": File(b"reached")})
    for level in range(levels):
        deep = Directory({"d": deep, "file": File(b"%d" % level)}, nested=True)
    long = Directory({"end": File(b"of a long path")})
    for level in range(30):
        long = Directory({"l" * 200: long}, nested=level % 7 == 0)
    return Directory({"deep": deep, "long": long})


def mixed_schemas() -> Directory:
    """Nested catalogs of other versions than the root's."""
    versions = [Schema("1.2", None), Schema("2.4", None), Schema("2.5", 0), Schema("2.5", 4, upgraded=True)]
    below = {
        f"schema {schema.version} {schema.revision}": replace(
            plain_tree() if schema.is_old else early_tree(), nested=True, schema=schema
        )
        for schema in versions
    }
    return ordinary_tree(**below)


def plain_tree() -> Directory:
    """What the oldest servers knew."""
    sw = Directory({"text": File(TEXT), "in": Directory({"file": File(b"deep")}, nested=True, marker=False)})
    entries: dict[str, Node] = {
        "empty": File(b""),
        "hello": File(b"Hello\n", mode=0o755, mtime_ns=1_234_567_890_000_000_000),
        "link": Symlink("sw/text"),
        "noise": File(NOISE),
        "sw": replace(sw, nested=True, marker=False),
    }
    return Directory(entries)


def early_tree() -> Directory:
    """What servers knew before special files, uncompressed and external ones."""
    more = Directory({**hard_links(File(b"linked"), "a", "b"), "chunks": File(NOISE, chunk_sizes=100_000)}, uid=7)
    return Directory({**dict(plain_tree().entries), "more": more})  # type: ignore[call-overload]


def schema_variants() -> dict[str, Variant]:
    variants = {"schema 1.0": Variant({"schema": Schema("1.0", None)}, plain_tree)}
    variants["schema 1.2"] = Variant({"schema": Schema("1.2", None)}, plain_tree)
    variants["schema 2.4"] = Variant({"schema": Schema("2.4", None)}, early_tree)
    for revision in range(8):
        tree = ordinary_tree if revision >= 5 else early_tree
        variants[f"schema 2.5 r{revision}"] = Variant({"schema": Schema("2.5", revision)}, tree)
        variants[f"schema 2.5 r{revision}, upgraded"] = Variant({"schema": Schema("2.5", revision, True)}, tree)
    return variants


VARIANTS = {
    "ordinary": Variant(),
    "ripemd-160": Variant({"algorithm": Algorithm.RMD160}),
    "shake-128": Variant({"algorithm": Algorithm.SHAKE128}),
    "shake-128, uncompressed": Variant({"algorithm": Algorithm.SHAKE128, "compression": "none"}),
    "mixed algorithms": Variant(tree=mixed_algorithms),
    "uncompressed": Variant({"compression": "none"}),
    "zstd": Variant({"compression": "zstd", "catalog_compression": "zstd"}),
    "volatile": Variant({"volatile": True}),
    "no history": Variant({"history_revision": None}),
    "no metainfo, no reflog": Variant({"metainfo": None, "reflog": False}),
    "ec key": Variant(key="ec"),
    "dsa key": Variant(key="dsa"),
    "alternative paths": Variant({"alternative_paths": True, "algorithm": Algorithm.RMD160}),
    "garbage-collectable": Variant({"garbage_collectable": True}),
    "snapshots": Variant({"snapshots": True}),
    "chunk lists": Variant(tree=chunk_lists),
    "odd names": Variant(tree=odd_names),
    "deep nesting": Variant(tree=deep_nesting),
    "empty": Variant(tree=Directory),
    "mixed schemas": Variant(tree=mixed_schemas),
    **schema_variants(),
}


def make(tmp_path: Path, variant: Variant) -> Repository:
    return Repository.create(tmp_path, FQRN, repository_key=RepositoryKey.generate(variant.key), **variant.options)


def make_client(tmp_path: Path, repository: Repository, *servers: str, **parameters: str) -> Client:
    return Client(tmp_path / "client", FQRN, servers, repository.master_public_key, **parameters)


def requested(web: Nginx) -> list[str]:
    """Every path below the repository that was asked for; the server ends before, so that no line is on its way."""
    web.kill()
    return [line.split(" ")[2].removeprefix(f"/cvmfs/{FQRN}/") for line in web.log]


@pytest.mark.parametrize("name", VARIANTS)
async def test_a_variant_is_read_completely_from_an_empty_cache_and_offline(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    repository = make(tmp_path, variant)
    tree = variant.tree()
    repository.publish(tree, tag="v1")
    expected = describe(tree, variant.options.get("schema", NEWEST))
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        async with opened(client) as mounted:
            assert await read_whole(mounted) == expected
            assert mounted.warnings == ()
        paths = requested(web)
    assert len(paths) == len(set(paths))  # what is used twice is fetched once
    async with opened(client) as mounted:
        assert await read_whole(mounted) == expected
        assert len(mounted.warnings) == 1
    async with opened(client, ROOT_HASH=str(repository.head.root_hash)) as mounted:
        assert await read_whole(mounted) == expected
        assert mounted.warnings == ()


@pytest.mark.parametrize("name", ["ordinary", "shake-128", "odd names", "deep nesting", "alternative paths"])
def test_the_command_line_agrees(name: str, tmp_path: Path) -> None:
    """Listing, copying and verifying the same trees."""
    variant = VARIANTS[name]
    repository = make(tmp_path, variant)
    tree = variant.tree()
    repository.publish(tree)
    expected = describe(tree, NEWEST)
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        copied = client.run("cp", "-r", FQRN, "copy")
        if not why_not("device files"):
            assert copied.code == 0, copied
        verified = client.run("verify", "--data", FQRN)
        assert (verified.code, verified.errors) == (0, ""), verified
    top = os.open(client.directory / "copy", os.O_RDONLY)  # paths are longer than the kernel takes at a time
    try:
        for path, seen in expected.items():
            if seen.content is not None:
                assert read_below(top, path) == seen.content
    finally:
        os.close(top)


def read_below(top: int, path: bytes) -> bytes:
    fd = os.dup(top)
    for part in path.split(b"/")[1:]:
        above, fd = fd, os.open(part, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(above)
    with open(fd, "rb") as file:
        return file.read()


async def test_alternative_paths_are_used_for_the_root_catalog_and_the_certificate(tmp_path: Path) -> None:
    repository = make(tmp_path, VARIANTS["alternative paths"])
    revision = repository.publish(ordinary_tree())
    with Nginx(repository.document_root) as web:
        async with opened(make_client(tmp_path, repository, web.url)) as mounted:
            await read_whole(mounted)
        paths = requested(web)
    root = f"{revision.root_hash}C"
    assert f".cvmfsalt-{root}" in paths
    assert f"data/{root[:2]}/{root[2:]}" not in paths
    assert [path for path in paths if path.startswith(".cvmfsalt-") and path.endswith("X")]
    assert [path for path in paths if path.startswith("data/") and path.endswith("C")]  # nested ones are ordinary


async def test_an_algorithm_that_was_changed_leaves_the_old_objects_in_use(tmp_path: Path) -> None:
    """A new revision in SHAKE-128 with nested catalogs and files that are older, and in SHA-1."""
    old = Directory({"file": File(TEXT, algorithm=Algorithm.SHA1)}, nested=True, marker=False)
    repository = make(tmp_path, Variant())
    repository.publish(Directory({"old": old}))
    repository.options = replace(repository.options, algorithm=Algorithm.SHAKE128)
    changed = Repository(tmp_path, FQRN, repository.options, repository.master, repository.repository_key)
    changed.revisions, changed.tags = repository.revisions, repository.tags
    changed.write_whitelist()
    second = Directory({"old": old, "new": Directory({"file": File(b"new")}, nested=True)})
    revision = changed.publish(second)
    algorithms = {path: catalog.content_hash.algorithm for path, catalog in revision.catalogs.items()}
    assert algorithms == {b"": Algorithm.SHAKE128, b"/new": Algorithm.SHAKE128, b"/old": Algorithm.SHA1}
    with Nginx(changed.document_root) as web:
        client = make_client(tmp_path, changed, web.url)
        async with opened(client) as mounted:
            assert await read_whole(mounted) == describe(second, NEWEST)


# garbage collection


@pytest.fixture
def collected(tmp_path: Path) -> Repository:
    """Three tagged revisions, of which the server has removed the root catalogs of the first two."""
    repository = make(tmp_path, Variant({"garbage_collectable": True}))
    for number in (1, 2, 3):
        repository.publish(Directory({"file": File(b"revision %d" % number)}), tag=f"v{number}")
    for revision in repository.revisions[:2]:
        for catalog in revision.catalogs.values():
            repository.object_path(catalog.content_hash, Kind.CATALOG).unlink()
    return repository


@pytest.mark.parametrize("option", [("--tag", "v1"), ("--date", "2023-11-14T22:13:30Z")])
def test_a_collected_snapshot_is_a_clear_error(option: tuple[str, str], collected: Repository, tmp_path: Path) -> None:
    with Nginx(collected.document_root) as web:
        client = make_client(tmp_path, collected, web.url)
        done = client.run("ls", *option, FQRN)
        assert (done.code, done.output, len(done.error_lines)) == (5, b"", 1), done
        assert "has the tag 'v1' still, but no server has its root catalog" in done.errors
        assert "garbage-collected" in done.errors
        assert web.url in done.errors
        by_hash = client.run("ls", "--root-hash", str(collected.revisions[0].root_hash), FQRN)
        assert (by_hash.code, len(by_hash.error_lines)) == (5, 1), by_hash
        listed = client.run("tags", FQRN)  # the tags are still there, and so is the newest revision
        assert (listed.code, listed.errors) == (0, ""), listed
        assert b"v1" in listed.output
        shown = client.run("cat", f"{FQRN}@v3:/file", f"{FQRN}:/file")
        assert (shown.code, shown.output) == (0, b"revision 3" * 2), shown


async def test_a_snapshot_that_was_used_before_its_collection_stays_usable(tmp_path: Path) -> None:
    repository = make(tmp_path, Variant({"garbage_collectable": True}))
    tree = ordinary_tree()
    old = repository.publish(tree, tag="v1")
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        async with opened(client, REPOSITORY_TAG="v1") as mounted:
            await read_whole(mounted)
        repository.publish(Directory({"other": File(b"tree")}))
        for catalog in old.catalogs.values():
            repository.drop(catalog.content_hash, Kind.CATALOG)
        async with opened(client, REPOSITORY_TAG="v1") as mounted:
            assert await read_whole(mounted) == describe(tree, NEWEST)
        with pytest.raises(ObjectGoneError):
            async with opened(client.changed(PY_CACHE_DIR=str(tmp_path / "other")), REPOSITORY_TAG="v1"):
                pass


async def test_data_that_was_collected_is_an_error_of_its_files_alone(tmp_path: Path) -> None:
    repository = make(tmp_path, Variant())
    repository.publish(ordinary_tree())
    for content_hash, kind in repository.find_objects(b"/sw/text"):
        repository.drop(content_hash, kind)
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        done = client.run("cat", f"{FQRN}:/sw/text")
        assert (done.code, done.output, len(done.error_lines)) == (5, b"", 1), done
        assert "cvmfs-py cat: file /sw/text does not exist on any server" in done.errors
        copied = client.run("cp", "-r", "-q", f"{FQRN}:/sw", "copy")
        assert copied.code == 5, copied
        assert (client.directory / "copy" / "in" / "deep" / "file").read_bytes() == b"deep down"
        assert not (client.directory / "copy" / "text").exists()
        verified = client.run("verify", "--data", FQRN)
        assert verified.code == 5, verified


# tags


async def test_a_repository_without_history_cannot_be_pinned_by_name(tmp_path: Path) -> None:
    repository = make(tmp_path, VARIANTS["no history"])
    repository.publish(Directory({"file": File(b"x")}))
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        with pytest.raises(ConfigError, match="has no tags"):
            async with opened(client, REPOSITORY_TAG="v1"):
                pass
        done = client.run("ls", "--date", "2024-01-01", FQRN)
        assert (done.code, len(done.error_lines)) == (2, 1), done
        listed = client.run("tags", "--json", FQRN)
        assert (listed.code, listed.output.split()) == (0, [b"[]"]), listed


@pytest.mark.parametrize("history_revision", range(4))
async def test_every_kind_of_history_pins(history_revision: int, tmp_path: Path) -> None:
    repository = make(tmp_path, Variant({"history_revision": history_revision}))
    trees = [Directory({"file": File(b"revision %d" % number)}) for number in range(3)]
    for number, tree in enumerate(trees):
        repository.publish(tree, tag=f"v{number}", timestamp_s=1_700_000_000 + number)
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        for number, tree in enumerate(trees):
            expected = describe(tree, NEWEST)
            async with opened(client, REPOSITORY_TAG=f"v{number}") as mounted:
                assert await read_whole(mounted) == expected
            async with opened(client, REPOSITORY_DATE=f"2023-11-14T22:13:2{number}Z") as mounted:
                assert await read_whole(mounted) == expected


async def test_tags_that_were_read_serve_offline_also_when_a_newer_root_was_used_since(tmp_path: Path) -> None:
    repository = make(tmp_path, Variant())
    first, second = Directory({"file": File(b"first")}), Directory({"file": File(b"second")})
    repository.publish(first, tag="v1")
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        async with opened(client, REPOSITORY_TAG="v1") as mounted:
            await read_whole(mounted)
        repository.publish(second, tag="v2")
        async with opened(client) as mounted:  # reads no tags
            await read_whole(mounted)
    async with opened(client, REPOSITORY_TAG="v1") as mounted:
        assert await read_whole(mounted) == describe(first, NEWEST)
        assert len(mounted.warnings) == 1
    async with opened(client) as mounted:
        assert await read_whole(mounted) == describe(second, NEWEST)
    with pytest.raises(ConfigError, match="has no tag 'v2'"):
        async with opened(client, REPOSITORY_TAG="v2"):
            pass


# hidden and bound


async def test_snapshots_below_the_hidden_directory_show_the_past(tmp_path: Path) -> None:
    repository = make(tmp_path, VARIANTS["snapshots"])
    past = ordinary_tree()
    present = Directory({"only": File(b"now")})
    repository.publish(past, tag="v1")
    repository.publish(present, tag="v2")
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        async with opened(client) as mounted:
            assert await read_whole(mounted) == describe(present, NEWEST)  # neither hidden nor bound entries
            bound = await read_whole(mounted, b"/.cvmfs/snapshots/v1")
            assert {path: seen.content for path, seen in bound.items()} == {
                path: seen.content for path, seen in describe(past, NEWEST).items()
            }
        listed = client.run("ls", FQRN)
        assert listed.output == b"only\n", listed
        everything = client.run("ls", "-a", FQRN)
        assert everything.output == b".cvmfs\nonly\n", everything
        shown = client.run("cat", f"{FQRN}:/.cvmfs/snapshots/v1/sw/in/deep/file")
        assert (shown.code, shown.output) == (0, b"deep down"), shown


# external data


def external_tree() -> Directory:
    return Directory(
        {
            "whole": File(NOISE, external=True),
            "chunked": File(NOISE, external=True, chunk_sizes=70_000),
            "compressed": File(TEXT, external=True, compression="zlib"),
            "ordinary": File(b"from the repository's own server"),
            "below": Directory(
                {
                    b"a b%20c?d#e\xff": File(b"percent", external=True),
                    "sch\u00f6n": File(TEXT, external=True, chunk_sizes=100_000),
                },
                nested=True,
            ),
        }
    )


async def test_external_files_come_from_their_own_servers(tmp_path: Path) -> None:
    repository = make(tmp_path, Variant())
    tree = external_tree()
    repository.publish(tree)
    expected = describe(tree, NEWEST)
    with Nginx(repository.document_root) as web, Nginx(repository.external_root) as external:
        client = make_client(tmp_path, repository, web.url, EXTERNAL_URL=external.url)
        async with opened(client) as mounted:
            assert await read_whole(mounted) == expected
        external.kill()
        assert sum("/chunked" in line for line in external.log) == 5
        assert all(line.startswith("206 ") == ("/chunked" in line or "/sch%C3%B6n" in line) for line in external.log)
        async with opened(client) as mounted:
            assert await read_whole(mounted) == expected
        assert not any("below" in path or path in ("whole", "chunked", "compressed") for path in requested(web))


def test_external_data_without_a_server_is_an_error_that_says_so(tmp_path: Path) -> None:
    repository = make(tmp_path, Variant())
    repository.publish(external_tree())
    with Nginx(repository.document_root) as web:
        client = make_client(tmp_path, repository, web.url)
        done = client.run("cat", f"{FQRN}:/whole")
        assert (done.code, done.output, len(done.error_lines)) == (2, b"", 1), done
        assert "its data is on external servers; set CVMFS_EXTERNAL_URL" in done.errors
        shown = client.run("cat", f"{FQRN}:/ordinary")
        assert (shown.code, shown.output) == (0, b"from the repository's own server")
