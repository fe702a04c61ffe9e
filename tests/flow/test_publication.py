"""Repositories as they are made and published here, seen by the client: histories, tags, dates, roll-backs."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm
from cvmfs_py.errors import ConfigError, PublishError, UsageError
from cvmfs_py.publish.consistency import check_repository
from cvmfs_py.publish.creation import create_repository
from cvmfs_py.publish.publication import Publication
from cvmfs_py.publish.settings import RepositorySettings
from tests.simulator.publisher import FQRN, OwnRepository, seen_on_disk, write_tree
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compat.whole_tree import Seen

FIRST = {"readme": b"one\n", "sw/.cvmfscatalog": b"", "sw/bin/tool": b"#!/bin/sh\n" * 50, "doc/a": b"a", "doc/b": b"b"}
SECOND = {**FIRST, "readme": b"two!\n", "sw/bin/other": b"new"}
THIRD = {"readme": b"three", "doc/c": b"c"}


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    return OwnRepository(tmp_path)


def check_everything(own: OwnRepository) -> None:
    """What the owner's own check says, of every tag and byte."""
    with own.open() as publication:
        key = publication.keys.master_public
    report = check_repository(publication.storage, FQRN, (key,), data=True, every_snapshot=True)
    assert report.problems == []


# --- making one


async def test_a_new_repository_is_empty_and_complete(own: OwnRepository) -> None:
    seen = await own.see()
    assert list(seen) == [b""]
    assert seen[b""].mode == stat.S_IFDIR | 0o755
    told = await own.told()
    assert told.revision == 1
    names = [tag.name for tag in told.tags]
    assert len(names) == 2
    assert "trunk" in names
    (generic,) = set(names) - {"trunk"}
    assert generic.startswith("generic-")
    assert {(str(tag.root_hash), tag.revision) for tag in told.tags} == {(told.root_hash, 1)}
    assert set(own.documents()) == {".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog", ".cvmfs_master_replica"}
    assert sorted(path.name for path in own.storage.iterdir() if path.is_dir()) == ["data"]
    assert len(list((own.storage / "data").iterdir())) == 257
    check_everything(own)


def test_nothing_private_is_below_the_web_root(own: OwnRepository) -> None:
    secrets = [path for path in own.directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(path.name for path in secrets) == [f"{FQRN}.key", f"{FQRN}.masterkey"]
    assert not any(path.is_relative_to(own.storage) for path in secrets)
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE(own.place.keys_directory.stat().st_mode) == 0o700


def test_keys_elsewhere_are_found_again(tmp_path: Path) -> None:
    storage, elsewhere = tmp_path / "repository", tmp_path / "safe" / "keys"
    create_repository(RepositorySettings(fqrn=FQRN), storage, keys_directory=elsewhere)
    assert os.readlink(tmp_path / "repository.keys") == str(elsewhere)
    served = tmp_path / "web"
    served.symlink_to(storage)
    for way in (storage, served):
        with Publication(way) as publication:
            assert publication.place.keys_directory == elsewhere


@pytest.mark.parametrize("place", ["storage", "storage/keys", "link/keys"])
def test_keys_below_the_web_root_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "storage")
    with pytest.raises(ConfigError, match="the keys must not be in"):
        create_repository(RepositorySettings(fqrn=FQRN), tmp_path / "storage", keys_directory=tmp_path / place)
    assert list((tmp_path / "storage").iterdir()) == []


def test_what_is_there_is_not_overwritten(own: OwnRepository) -> None:
    before = own.documents()
    with pytest.raises(PublishError, match="is not empty"):
        create_repository(RepositorySettings(fqrn=FQRN), own.storage)
    assert own.documents() == before
    other = own.directory / "other"
    with pytest.raises(ConfigError, match=rf"there is {FQRN}\.masterkey in .* already"):
        create_repository(RepositorySettings(fqrn=FQRN), other, keys_directory=own.place.keys_directory)
    assert not other.exists()


@pytest.mark.parametrize("name", ["", "a/b.c", "../x.y", "x" * 61, "a b.c", ".hidden"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid repository name"):
        RepositorySettings(fqrn=name)


async def test_the_whitelist_lasts_as_long_as_was_wished(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    create_repository(RepositorySettings(fqrn=FQRN), storage, whitelist_days=3)
    expiry = (storage / ".cvmfswhitelist").read_bytes().split(b"\n")[1]
    assert expiry == time.strftime("E%Y%m%d", time.gmtime(time.time() + 3 * 86400)).encode() + expiry[9:]
    for days in (0, -1, 10**6):
        with pytest.raises(UsageError, match=f"a whitelist cannot be valid for {days} days"):
            create_repository(RepositorySettings(fqrn=FQRN), tmp_path / "x", whitelist_days=days)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
@pytest.mark.parametrize("compression", ["zlib", "none", "zstd"])
async def test_every_kind_of_repository_is_read_as_it_was_written(
    tmp_path: Path, algorithm: Algorithm, compression: str
) -> None:
    """Also over the network, and with what has two names."""
    own = OwnRepository(
        tmp_path,
        algorithm=algorithm,
        compression=compression,
        ttl_s=77,
        is_volatile=compression == "none",
        is_garbage_collectable=compression != "zstd",
        has_alternative_paths=algorithm is Algorithm.RMD160,
        chunk_min_bytes=1000,
        chunk_average_bytes=2000,
        chunk_max_bytes=4000,
        auto_catalog_entries=5,
    )
    tree = {**FIRST, "large": os.urandom(9000), "large-text": b"all work and no play\n" * 900}
    tree |= {f"many/{number}/{name}": b"%d" % number for number in range(4) for name in "abc"}
    own.publish(tree)
    await own.verify()
    expected = seen_on_disk(own.directory / "source")
    seen = await own.see()
    generated = {path for path in seen if path not in expected}
    assert generated
    assert all(path.endswith((b"/.cvmfscatalog", b"/.cvmfsautocatalog")) for path in generated)
    assert {path: one for path, one in seen.items() if path not in generated} == expected
    (tmp_path / "www" / "cvmfs").mkdir(parents=True)
    (tmp_path / "www" / "cvmfs" / FQRN).symlink_to(own.storage)
    with Nginx(tmp_path / "www") as web:
        assert await own.see(SERVER_URL=f"{web.url}/cvmfs/{FQRN}") == seen
        assert any(".cvmfsalt-" in line for line in web.log) is (algorithm is Algorithm.RMD160)
    async with own.client() as repository:
        trusted = repository.root.trusted
        assert trusted is not None
        manifest = trusted.manifest
        assert (manifest.ttl_s, manifest.root_hash.algorithm) == (77, algorithm)
        assert manifest.is_garbage_collectable is (compression != "zstd")
        properties = await repository.run(repository.tree.root_properties)
        assert (properties.ttl_s, properties.is_volatile) == (77, compression == "none")
    check_everything(own)


# --- histories


async def test_a_history_can_be_read_back_at_every_point(own: OwnRepository) -> None:
    expected: dict[str, dict[bytes, Seen]] = {}
    for number, tree in enumerate((FIRST, SECOND, THIRD, {}, FIRST), 1):
        published = own.publish(tree, tag=f"v{number}", description=f"state {number}")
        assert (published.revision, published.tags, published.is_new) == (number + 1, (f"v{number}",), True)
        expected[f"v{number}"] = seen_on_disk(own.directory / "source")
        assert await own.see() == expected[f"v{number}"]
        assert await own.verify() == number + 1
    for name, tree_then in expected.items():
        assert await own.see(REPOSITORY_TAG=name) == tree_then
    assert await own.see(REPOSITORY_TAG="trunk-previous") == expected["v4"]
    tags = {tag.name: tag for tag in (await own.told()).tags}
    assert tags["v2"].description == "state 2"
    assert (tags["trunk"].revision, tags["trunk"].description) == (6, "current HEAD")
    assert (tags["trunk-previous"].revision, tags["trunk-previous"].description) == (5, "default undo target")
    assert len([name for name in tags if name.startswith("generic-")]) == 1  # that of the beginning
    check_everything(own)


async def test_publications_without_a_name_get_one(own: OwnRepository) -> None:
    """Also several within one second."""
    names = [own.publish({"f": b"%d" % number}).tags[0] for number in range(3)]
    assert own.publish({"f": b"last"}, automatic_tag=False).tags == ()
    tags = {tag.name: tag for tag in (await own.told()).tags}
    assert len(set(names)) == 3
    for number, name in enumerate(names):
        moment = time.strftime("generic-%Y-%m-%dT%H:%M:%S", time.gmtime(tags[name].timestamp_s))
        assert name.startswith(moment)
        assert name.endswith("Z")
        seen = await own.see(REPOSITORY_TAG=name)
        assert seen[b"/f"].content == b"%d" % number
    assert len([name for name in tags if name.startswith("generic-")]) == 4


async def test_dates_lead_to_what_was_published_then(own: OwnRepository) -> None:
    own.publish({"f": b"first"})
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    assert (await own.see(REPOSITORY_DATE=date))[b"/f"].content == b"first"
    own.publish({"f": b"second"})
    assert (await own.see(REPOSITORY_DATE=date))[b"/f"].content == b"second"
    with pytest.raises(ConfigError, match="no tagged snapshot as early as"):
        await own.see(REPOSITORY_DATE="2001-01-01T00:00:00Z")


async def test_a_client_follows_from_revision_to_revision(own: OwnRepository) -> None:
    """With one cache all the time, which refuses whatever is older than what it has."""
    for tree in (FIRST, SECOND, THIRD):
        own.publish(tree)
        assert await own.see(fresh=False) == seen_on_disk(own.directory / "source")
    with own.open() as publication:
        publication.roll_back("trunk-previous")
    seen = await own.see(fresh=False)
    assert seen[b"/readme"].content == b"two!\n"


def test_one_changed_file_rewrites_the_catalogs_on_its_path_only(own: OwnRepository) -> None:
    tree = {f"{name}/{below}/.cvmfscatalog": b"" for name in "ab" for below in "cd"}
    tree |= {f"{name}/.cvmfscatalog": b"" for name in "ab"}
    tree |= {f"{name}/{below}/file": b"%b%b" % (name.encode(), below.encode()) for name in "ab" for below in "cd"}
    own.publish(tree)
    before = own.objects()
    own.publish({**tree, "a/c/file": b"changed"})
    new = sorted(name[-1] for name in own.objects() - before)
    assert new.count("C") == 3  # the root, /a and /a/c
    assert new.count("H") == 1
    assert len(new) == 5  # and the file


def test_the_same_content_is_stored_once(own: OwnRepository) -> None:
    own.publish({"a": b"same", "b/c": b"same"})
    before = own.objects()
    own.publish({"a": b"same", "b/c": b"same", "d": b"same"})
    assert {name[-1] for name in own.objects() - before} == {"C", "H"}


# --- nothing changed


def test_nothing_new_is_no_revision(own: OwnRepository) -> None:
    published = own.publish(FIRST)
    documents, objects = own.documents(), own.objects()
    again = own.publish(FIRST)
    assert not again.is_new
    assert (again.revision, again.root_hash) == (published.revision, published.root_hash)
    assert own.documents() == documents
    assert own.objects() == objects


async def test_nothing_new_can_be_published_all_the_same(own: OwnRepository) -> None:
    first = own.publish(FIRST)
    forced = own.publish(FIRST, force=True, tag="again")
    assert (forced.revision, forced.is_new) == (first.revision + 1, True)
    assert await own.see() == seen_on_disk(own.directory / "source")
    assert (await own.told()).revision == 3
    assert await own.verify() == 3


async def test_a_tag_for_nothing_new_names_what_is_there(own: OwnRepository) -> None:
    own.publish(FIRST)
    again = own.publish(FIRST, tag="v1", description="late")
    assert (again.is_new, again.tags, again.revision) == (False, ("v1",), 2)
    tags = {tag.name: tag for tag in (await own.told()).tags}
    assert (tags["v1"].revision, tags["v1"].description) == (2, "late")
    assert await own.see(REPOSITORY_TAG="v1") == await own.see()


def test_a_touched_directory_is_a_change(own: OwnRepository) -> None:
    own.publish(FIRST)
    os.utime(own.directory / "source" / "doc", ns=(5, 5))
    assert own.publish(FIRST).is_new


# --- tags


def test_a_tag_never_moves(own: OwnRepository) -> None:
    own.publish(FIRST, tag="v1")
    documents = own.documents()
    with pytest.raises(PublishError, match="there is a tag v1 already"):
        own.publish(SECOND, tag="v1")
    with own.open() as publication:
        for refuse in (publication.check_new_tag, publication.add_tag):
            with pytest.raises(PublishError, match="there is a tag v1 already"):
                refuse("v1")
            with pytest.raises(UsageError, match="is moved by every publication"):
                refuse("trunk")
            for bad in ("", "a b", "ä", "x" * 256, "a@b"):
                with pytest.raises(UsageError, match="cannot name a tag"):
                    refuse(bad)
    assert own.documents() == documents


async def test_tags_are_added_and_removed(own: OwnRepository) -> None:
    own.publish(FIRST, tag="v1")
    first = await own.see()
    own.publish(SECOND)
    with own.open() as publication:
        publication.add_tag("good", "the first one", like="v1")
        publication.add_tag("new")
        publication.remove_tags(["v1"])
    tags = {tag.name: tag for tag in (await own.told()).tags}
    assert "v1" not in tags
    assert (tags["good"].revision, tags["good"].description, tags["new"].revision) == (2, "the first one", 3)
    assert await own.see(REPOSITORY_TAG="good") == first
    assert await own.see(REPOSITORY_TAG="new") == await own.see()
    assert (await own.told()).revision == 3  # contents did not change
    check_everything(own)


async def test_tags_are_removed_all_or_none(own: OwnRepository) -> None:
    own.publish(FIRST, tag="v1")
    before = await own.told()
    with own.open() as publication:
        with pytest.raises(PublishError, match="there is no tag v2"):
            publication.remove_tags(["v1", "v2"])
        with pytest.raises(UsageError, match="trunk"):
            publication.remove_tags(["v1", "trunk"])
        with pytest.raises(PublishError, match="there is no tag v2"):
            publication.add_tag("v3", like="v2")
    assert await own.told() == before


# --- roll-backs


async def test_rolling_back_and_forth(own: OwnRepository) -> None:
    own.publish(FIRST)
    first = await own.see()
    own.publish(SECOND)
    second = await own.see()
    for expected, revision in ((first, 4), (second, 5), (first, 6)):
        with own.open() as publication:
            assert publication.roll_back().revision == revision
        assert await own.see() == expected
        assert await own.verify() == revision
    check_everything(own)


async def test_a_rollback_follows_what_it_takes_back(own: OwnRepository) -> None:
    """So that the last revisions are found one behind the other, as garbage collection looks for them."""
    roots = [own.publish(tree).root_hash for tree in (FIRST, SECOND)]
    with own.open() as publication:
        roots.append(publication.roll_back().root_hash)
    roots.append(own.publish(THIRD).root_hash)
    for root_hash, previous in zip(roots[1:], roots, strict=False):
        async with own.client(ROOT_HASH=str(root_hash)) as repository:
            properties = await repository.run(repository.tree.root_properties)
            assert properties.previous_revision == previous


async def test_rolling_back_to_a_tag_keeps_later_tags_or_drops_them(own: OwnRepository) -> None:
    for number, tree in enumerate((FIRST, SECOND, THIRD), 1):
        own.publish(tree, tag=f"v{number}")
    first = await own.see(REPOSITORY_TAG="v1")
    objects = own.objects()
    with own.open() as publication:
        published = publication.roll_back("v1")
    assert published.revision == 5
    assert {name[-1] for name in own.objects() - objects} == {"C", "H"}
    assert await own.see() == first
    assert {"v1", "v2", "v3"} <= {tag.name for tag in (await own.told()).tags}
    with own.open() as publication:
        assert publication.roll_back("v2", drop_later=True, automatic_tag=False).tags == ()
    tags = {tag.name: tag for tag in (await own.told()).tags}
    assert {name for name in tags if not name.startswith("generic-")} == {"v1", "v2", "trunk", "trunk-previous"}
    assert (tags["v2"].revision, tags["trunk"].revision, tags["trunk-previous"].revision) == (3, 6, 5)
    assert await own.see() == await own.see(REPOSITORY_TAG="v2")
    check_everything(own)


def test_there_must_be_something_to_go_back_to(own: OwnRepository) -> None:
    with own.open() as publication, pytest.raises(PublishError, match="there is no tag trunk-previous"):
        publication.roll_back()
    own.publish(FIRST, tag="v1")
    documents = own.documents()
    with own.open() as publication:
        with pytest.raises(PublishError, match="v1 is what is published now"):
            publication.roll_back("v1")
        with pytest.raises(PublishError, match="there is no tag v9"):
            publication.roll_back("v9")
    assert own.documents() == documents


async def test_publishing_goes_on_after_a_rollback(own: OwnRepository) -> None:
    own.publish(FIRST)
    own.publish(SECOND)
    with own.open() as publication:
        publication.roll_back()
    own.publish(THIRD, tag="v3")
    assert await own.see() == seen_on_disk(own.directory / "source")
    write_tree(own.directory / "source", FIRST)
    assert {path for path, one in (await own.see(REPOSITORY_TAG="trunk-previous")).items() if one.content} == {
        path for path, one in seen_on_disk(own.directory / "source").items() if one.content
    }
    check_everything(own)
