"""Comparing snapshots, and collecting what no kept snapshot reaches."""

from __future__ import annotations

import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash, Kind, hash_bytes
from catalog.hash_set import HashSet
from catalog.transitions import catalog_ref
from catalog.tree import CatalogTree
from cvmfs_py.errors import IntegrityError, PublishError
from cvmfs_py.publish.collecting import Collection, collect_garbage
from cvmfs_py.publish.comparing import compare_trees
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.stored_objects import StoredObjects
from tests.simulator.repository import Repository, Revision
from tests.simulator.tree import Directory, File, Node, Symlink, hard_links

if TYPE_CHECKING:
    from pathlib import Path


def changes(repository: Repository, old: Revision, new: Revision) -> list[str]:
    with StoredObjects(Storage(repository.server_root)) as stored:
        refs = (catalog_ref(each.root_hash, None, "root catalog") for each in (old, new))
        before, after = (CatalogTree(ref) for ref in refs)
        with closing(before), closing(after):
            found = compare_trees(before, after, stored.open)
            return [f"{change.kind.value} {change.path.decode() or '/'}" for change in found]


def test_every_kind_of_change_is_told(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    same: dict[str, Node] = {"x": File(b"x"), "y": Directory({"z": File(b"z")})}
    old = repository.publish(
        Directory(
            {
                "content": File(b"1"),
                "mode": File(b"m"),
                "gone": Directory({"a": File(b"a")}),
                "kind": Directory({"b": File(b"b")}),
                "link": Symlink("a"),
                "chunked": File(b"abcdefgh", chunk_sizes=4),
                "same": Directory(same, nested=True),
                "nested": Directory({"n": File(b"n"), "o": File(b"o")}, nested=True),
            }
        )
    )
    new = repository.publish(
        Directory(
            {
                "content": File(b"2"),
                "mode": File(b"m", mode=0o600),
                "kind": File(b"k"),
                "link": Symlink("b"),
                "chunked": File(b"abcdefgX", chunk_sizes=4),
                "new": Directory({"c": File(b"c")}),
                "same": Directory(same, nested=True),
                "nested": Directory({"n": File(b"N"), "p": File(b"p")}, nested=True),
            }
        )
    )
    assert sorted(changes(repository, old, new)) == [
        "A /nested/p",
        "A /new",
        "A /new/c",
        "D /gone",
        "D /gone/a",
        "D /kind/b",
        "D /nested/o",
        "M /chunked",
        "M /content",
        "M /kind",
        "M /link",
        "M /nested/n",
        "m /mode",
    ]
    assert changes(repository, new, new) == []


def test_hard_links_that_move_to_another_catalog_are_what_they_were(tmp_path: Path) -> None:
    """Their group may have another number there."""
    repository = Repository.create(tmp_path)
    pairs = [hard_links(File(content), "x", "y") for content in (b"1", b"2")]
    old = repository.publish(Directory({"a": Directory(pairs[0]), "b": Directory(pairs[1])}))
    new = repository.publish(Directory({"a": Directory(pairs[0]), "b": Directory(pairs[1], nested=True)}))
    assert old.catalog(b"").content_hash != new.catalog(b"").content_hash
    assert changes(repository, old, new) == ["A /b/.cvmfscatalog"]
    three = Directory(hard_links(File(b"1"), "x", "y", "z"))
    more = repository.publish(Directory({"a": three, "b": Directory(pairs[1], nested=True)}))
    assert changes(repository, new, more) == ["m /a/x", "m /a/y", "A /a/z"]


def test_content_that_comes_from_elsewhere_is_told(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path, compression="none")
    old = repository.publish(Directory({"a": File(b"a"), "b": File(b"b")}))
    new = repository.publish(Directory({"a": File(b"a", external=True), "b": File(b"b", direct_io=True)}))
    assert changes(repository, old, new) == ["m /a", "m /b"]


def test_catalogs_that_did_not_change_are_not_read(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    same = Directory({"x": File(b"x")}, nested=True)
    old = repository.publish(Directory({"same": same, "a": File(b"1")}))
    new = repository.publish(Directory({"same": same, "a": File(b"2")}))
    repository.drop(old.catalog(b"/same").content_hash, Kind.CATALOG)
    assert changes(repository, old, new) == ["M /a"]


names = st.sampled_from(["a", "b", "c", "d"])
contents = st.sampled_from([b"", b"1", b"22"])
flat = st.dictionaries(names, contents, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, flat, max_size=3), st.dictionaries(names, flat, max_size=3), st.booleans())
def test_changes_are_the_difference_of_the_trees(
    tmp_path_factory: pytest.TempPathFactory,
    old: dict[str, dict[str, bytes]],
    new: dict[str, dict[str, bytes]],
    nested: bool,
) -> None:
    repository = Repository.create(tmp_path_factory.mktemp("repository"))

    def publish(tree: dict[str, dict[str, bytes]]) -> Revision:
        entries: dict[str, Node] = {
            name: Directory({each: File(content) for each, content in files.items()}, nested=nested, marker=False)
            for name, files in tree.items()
        }
        return repository.publish(Directory(entries))

    def paths(tree: dict[str, dict[str, bytes]]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {f"/{name}": None for name in tree}
        found.update({f"/{name}/{each}": data for name, files in tree.items() for each, data in files.items()})
        return found

    before, after = paths(old), paths(new)
    expected = {f"A {path}" for path in after.keys() - before.keys()}
    expected |= {f"D {path}" for path in before.keys() - after.keys()}
    expected |= {f"M {path}" for path in before.keys() & after.keys() if before[path] != after[path]}
    assert set(changes(repository, publish(old), publish(new))) == expected


def collect(
    repository: Repository, *kept: Revision, named: tuple[ContentHash, ...] = (), dry_run: bool = False
) -> Collection:
    roots = [revision.root_hash for revision in kept]
    return collect_garbage(Storage(repository.server_root), roots, lambda: named, dry_run=dry_run)


def objects(repository: Repository) -> set[str]:
    return {f"{content_hash}{kind.value}" for content_hash, kind, _ in Storage(repository.server_root).objects()}


def names_of(repository: Repository, revision: Revision, *paths: bytes) -> set[str]:
    found = (repository.find_objects(path, revision) for path in paths)
    return {f"{content_hash}{kind.value}" for each in found for content_hash, kind in each}


def test_only_what_no_kept_snapshot_reaches_is_removed(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    shared = File(b"shared")
    nested = Directory({"x": File(b"012345678", chunk_sizes=3)}, nested=True, marker=False)
    old = repository.publish(Directory({"s": shared, "only": File(b"old"), "n": nested}))
    new = repository.publish(Directory({"s": shared, "only": File(b"new")}))
    documents = (Kind.HISTORY, Kind.CERTIFICATE, Kind.METAINFO)
    named = tuple(each for each, kind, _ in Storage(repository.server_root).objects() if kind in documents)
    everything = objects(repository)
    only_old = names_of(repository, old, b"/only", b"/n/x")
    only_old |= {f"{catalog.content_hash}C" for catalog in old.catalogs.values()}

    both = collect(repository, old, new, named=named)
    assert (both.removed_objects, objects(repository)) == (0, everything)
    planned = collect(repository, new, named=named, dry_run=True)
    assert objects(repository) == everything
    done = collect(repository, new, named=named)
    assert (done.removed_objects, done.removed_bytes) == (planned.removed_objects, planned.removed_bytes)
    assert everything - objects(repository) == only_old
    assert names_of(repository, new, b"/s", b"/only") <= objects(repository)
    assert f"{new.root_hash}C" in objects(repository)
    assert set(done.removed_hashes) == {catalog.content_hash for catalog in old.catalogs.values()}


def test_a_catalog_that_was_published_as_a_file_too_is_followed(tmp_path: Path) -> None:
    """The file's object has the hash of the catalog: that it is needed must not hide what the catalog needs."""
    repository = Repository.create(tmp_path)
    nested = Directory({"x": File(b"x")}, nested=True)
    first = repository.publish(Directory({"n": nested}))
    catalog = first.catalog(b"/n")
    stored = repository.object_path(catalog.content_hash, Kind.CATALOG).read_bytes()
    copy = File(zlib.decompress(stored), stored=stored)
    second = repository.publish(Directory({"copy": copy, "n": nested}))
    assert second.catalog(b"/n").content_hash == catalog.content_hash
    collect(repository, second)
    assert names_of(repository, second, b"/copy", b"/n/x") <= objects(repository)


def test_a_kept_root_that_is_gone_is_told_and_without_any_root_nothing_is_removed(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    old = repository.publish(Directory({"a": File(b"a")}))
    new = repository.publish(Directory({"a": File(b"b")}))
    repository.drop(old.root_hash, Kind.CATALOG)
    assert collect(repository, old, new).missing_roots == [old.root_hash]
    before = objects(repository)
    with pytest.raises(PublishError, match="nothing is removed"):
        collect(repository, old)
    assert objects(repository) == before


def test_a_damaged_catalog_stops_a_collection_before_anything_is_removed(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    repository.publish(Directory({"a": File(b"a")}))
    new = repository.publish(Directory({"n": Directory({"x": File(b"x")}, nested=True)}))
    repository.tamper(new.catalog(b"/n").content_hash, Kind.CATALOG)
    before = objects(repository)
    with pytest.raises(IntegrityError):
        collect(repository, new)
    assert objects(repository) == before


@given(st.lists(st.binary(max_size=3)))
def test_a_hash_set_is_a_set(tmp_path_factory: pytest.TempPathFactory, items: list[bytes]) -> None:
    hashes = [hash_bytes(Algorithm.SHA1, item) for item in items]
    with HashSet(tmp_path_factory.mktemp("set") / "hashes") as found:
        assert [found.add(each) for each in hashes] == [each not in hashes[:i] for i, each in enumerate(hashes)]
        found.update(hashes)
        assert all(each in found for each in hashes)
        assert hash_bytes(Algorithm.RMD160, b"other") not in found
        assert ContentHash(Algorithm.SHAKE128, hash_bytes(Algorithm.SHA1, b"x").digest) not in found
