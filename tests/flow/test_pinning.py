"""Pinned trees: they survive collection and the loss of the index, and can be used without a network."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cache.directory import DirectoryStore
from cache.errors import CacheError
from cache.reports import HeldPart
from cvmfs_py.errors import FetchError
from cvmfs_py.mount.copying import CopyRequest, copy_out
from cvmfs_py.mount.pinning import PinnedTree, fetch_tree, list_tree, pin_label, pin_name
from tests.flow.opening import Nobody, opened
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOWHERE = ["file:///nowhere"]


def tree(number: int) -> Directory:
    inside = Directory({"leaf": File(b"leaf %d" % number), "big": File(b"0123456789" * 9, chunk_sizes=17)}, nested=True)
    return Directory(
        {
            "a": Directory({"b": Directory({"c": inside, "link": Symlink("c")}, nested=True)}),
            "shortcut": Symlink("a/b/c"),
            "other": Directory({"f": File(b"other %d" % number)}, nested=True),
        }
    )


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published.create(tmp_path / "published")
    published.publish(tree(1), tag="v1")
    return published


async def pinned(
    published: Published, cache: Path, path: bytes, failures: Sequence[str] = (), **parameters: str
) -> PinnedTree:
    async with opened(published, cache, **parameters) as repository:
        tree = await list_tree(repository, path, Nobody())
        report = await fetch_tree(repository, tree, Nobody(), jobs=3)
        assert [" ".join(failure.split()[:2]) for failure in report.failures] == list(failures)
        return tree


def collect(cache: Path) -> None:
    """As `cache gc --to 0`."""
    with closing(DirectoryStore(str(cache))) as store:
        assert isinstance(store, DirectoryStore)
        store.cleanup(0)


def lose_index(cache: Path) -> None:
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (cache / name).unlink(missing_ok=True)


async def copied(published: Published, cache: Path, path: bytes, to: Path, **parameters: str) -> list[str]:
    """The failures of a copy without any server."""
    async with opened(published, cache, NOWHERE, **parameters) as repository:
        return (await copy_out(repository, CopyRequest(path, to, recursive=True), Nobody())).failures


@pytest.mark.parametrize("is_index_lost", [False, True])
async def test_it_survives_collection_and_serves_offline(
    published: Published, tmp_path: Path, is_index_lost: bool
) -> None:
    cache = tmp_path / "cache"
    tree_pinned = await pinned(published, cache, b"/a/b")
    assert tree_pinned.label == "test.example.org:/a/b"
    assert (tree_pinned.objects, tree_pinned.catalogs) == (3 + 1 + 6, 3)  # catalogs, a file, chunks
    with closing(DirectoryStore(str(cache))) as store:
        assert store.held(store.named_pins()[0].hashes) == HeldPart(3 + 1 + 6, tree_pinned.size_bytes)
    async with opened(published, cache) as repository:
        await repository.open_directory(b"/other")  # more than what is pinned
    if is_index_lost:
        lose_index(cache)
    collect(cache)
    assert await copied(published, cache, b"/a/b", tmp_path / "out") == []
    assert (tmp_path / "out" / "c" / "leaf").read_bytes() == b"leaf 1"
    assert (tmp_path / "out" / "c" / "big").read_bytes() == b"0123456789" * 9
    async with opened(published, cache, NOWHERE) as repository:
        with pytest.raises(FetchError):
            await repository.open_directory(b"/other")


async def test_unpinned_it_goes(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    label = (await pinned(published, cache, b"/a")).label
    with closing(DirectoryStore(str(cache))) as store:
        assert [pin.label for pin in store.named_pins()] == [label]
        assert store.unpin(pin_name(label))
        store.cleanup(0)
        assert store.status().objects == 0


@pytest.mark.parametrize("path", [b"/shortcut", b"/a/b/c/leaf", b""])
async def test_files_links_and_everything(published: Published, tmp_path: Path, path: bytes) -> None:
    cache = tmp_path / "cache"
    await pinned(published, cache, path)
    collect(cache)
    assert await copied(published, cache, path, tmp_path / "out") == []


async def test_a_tag_stays_usable_although_the_repository_has_moved_on(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    label = (await pinned(published, cache, b"/a", CVMFS_REPOSITORY_TAG="v1")).label
    assert label == "test.example.org@v1:/a"
    published.publish(tree(2), tag="v2")
    for parameters in ({}, {"CVMFS_REPOSITORY_TAG": "v2"}):
        async with opened(published, cache, **parameters) as repository:
            await repository.resolve(b"/a/b/c/leaf")
    collect(cache)
    # The tags of the newest manifest are gone; those that were pinned with the tree still know it.
    assert await copied(published, cache, b"/a", tmp_path / "out", CVMFS_REPOSITORY_TAG="v1") == []
    assert (tmp_path / "out" / "b" / "c" / "leaf").read_bytes() == b"leaf 1"


async def test_pins_of_several_snapshots_live_together(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = published.head.root_hash
    labels = [(await pinned(published, cache, b"/a", CVMFS_ROOT_HASH=str(first))).label]
    published.publish(tree(2))
    labels.append((await pinned(published, cache, b"/a")).label)
    assert labels == [f"test.example.org@{first}:/a", "test.example.org:/a"]
    collect(cache)
    for number, parameters in ((1, {"CVMFS_ROOT_HASH": str(first)}), (2, {})):
        out = tmp_path / str(number)
        assert await copied(published, cache, b"/a", out, **parameters) == []
        assert (out / "b" / "c" / "leaf").read_bytes() == b"leaf %d" % number


async def test_what_cannot_be_fetched_is_told_and_the_rest_can_be_tried_again(
    published: Published, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    ((lost, kind),) = published.find_objects(b"/a/b/c/leaf")
    stored = published.object_path(lost, kind).read_bytes()
    published.drop(lost, kind)
    await pinned(published, cache, b"/a", ["file /a/b/c/leaf"])
    with closing(DirectoryStore(str(cache))) as store:
        (pin,) = store.named_pins()
        assert (pin.is_complete, len(pin.hashes), store.held(pin.hashes).objects) == (False, 10, 9)
    published.object_path(lost, kind).write_bytes(stored)
    await pinned(published, cache, b"/a")
    collect(cache)
    assert await copied(published, cache, b"/a", tmp_path / "out") == []


async def test_pinning_goes_beyond_the_limit_of_the_cache(published: Published, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    files = {f"f{number}": File(bytes([number]) * 300_000) for number in range(8)}
    published.publish(Directory({"d": Directory(files)}))  # type: ignore[arg-type]
    await pinned(published, cache, b"/d", CVMFS_QUOTA_LIMIT="1")
    assert await copied(published, cache, b"/d", tmp_path / "out", CVMFS_QUOTA_LIMIT="1") == []


@pytest.mark.parametrize(
    ("snapshot", "path", "label"),
    [
        (None, b"", "a.b:/"),
        ("v1", b"/x", "a.b@v1:/x"),
        (None, b"/caf\xe9\n\x1b", "a.b:/caf\\xe9\\n\\x1b"),
    ],
)
def test_labels_are_for_people_and_names_for_files(snapshot: str | None, path: bytes, label: str) -> None:
    assert pin_label("a.b", snapshot, path) == label
    assert pin_name(label) == pin_name(label)
    assert pin_name(label).isalnum()
    assert pin_name(label) != pin_name(label + "x")


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with closing(DirectoryStore(str(tmp_path / "cache"))) as store, pytest.raises(CacheError, match="cannot be used"):
        store.pin("../../escape", "label", [])
