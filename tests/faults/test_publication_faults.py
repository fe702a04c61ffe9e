"""Publishers that died, storages that were changed behind the publisher's back, two publishers at once, power failures.

Deaths are also tested for real, at random moments, in test_publication_kill.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind, hash_bytes
from catalog.reflog import Reflog
from cvmfs_py.errors import CvmfsError, IntegrityError, PublishError, TrustError
from cvmfs_py.publish.from_directory import apply_directory
from cvmfs_py.publish.place import find_place
from cvmfs_py.publish.recovery import boot_id
from cvmfs_py.publish.sealing import seal
from cvmfs_py.publish.signing import format_manifest
from tests.simulator.publisher import FQRN, OwnRepository, seen_on_disk, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.trust.manifest import Manifest

FIRST = {"readme": b"one\n", "sw/.cvmfscatalog": b"", "sw/tool": b"#!/bin/sh\n"}
SECOND = {**FIRST, "readme": b"two!\n"}
HOLDER = """
import sys
from cvmfs_py.publish.publication import Publication
with Publication(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    made = OwnRepository(tmp_path)
    made.publish(FIRST, tag="v1")
    return made


def state_of(own: OwnRepository) -> tuple[dict[str, bytes], set[str]]:
    return own.documents(), own.objects()


def current_manifest(own: OwnRepository) -> Manifest:
    with own.open() as publication:
        return publication.manifest


# --- two publishers


@contextmanager
def other_publisher(own: OwnRepository) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(own.storage)]
    top = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


async def test_a_second_publisher_is_refused_by_name(own: OwnRepository) -> None:
    before = state_of(own)
    with other_publisher(own) as process:
        for _ in range(2):
            with pytest.raises(PublishError, match=rf"{FQRN} is being changed by process {process.pid} on .*try again"):
                own.publish(SECOND)
        assert await own.verify() == 2  # who only reads is not kept out
        process.kill()
        process.wait()
        own.publish(SECOND)
    assert before != state_of(own)
    assert await own.see() == seen_on_disk(own.directory / "source")


def test_two_in_one_process_exclude_each_other_too(own: OwnRepository) -> None:
    with own.open(), pytest.raises(PublishError, match=f"by process {os.getpid()} on"):
        own.open()
    own.open().close()


def test_processes_that_outlive_a_publisher_do_not_hold_its_lock(own: OwnRepository) -> None:
    with own.open():
        survivor = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False)
    with survivor:
        try:
            own.open().close()
        finally:
            survivor.kill()


# --- leftovers


async def test_leftovers_are_removed(own: OwnRepository) -> None:
    transactions = own.storage / "data" / "txn"
    (transactions / "4711-0").write_bytes(b"half an object")
    (transactions / "work-abc" / "deep").mkdir(parents=True)
    (transactions / "work-abc" / "deep" / "1.catalog").write_bytes(b"half a catalog")
    own.publish(SECOND)
    assert list(transactions.iterdir()) == []
    shutil.rmtree(transactions)
    own.publish(FIRST)
    assert await own.verify() == 4


def test_a_publication_that_fails_leaves_nothing(own: OwnRepository) -> None:
    before = own.documents()
    with pytest.raises(PublishError, match="cannot be read"):
        own.publish_directory(own.directory / "nowhere")
    assert own.documents() == before
    assert list((own.storage / "data" / "txn").iterdir()) == []
    assert not own.publish(FIRST).is_new


# --- a storage that was changed by others


def test_an_older_state_is_not_built_upon(own: OwnRepository) -> None:
    older = own.documents()
    newest = own.publish(SECOND)
    for name, content in older.items():
        (own.storage / name).write_bytes(content)
    message = r"is of revision 2 .*, but revision 3 .* was published last: .*restore it, or go on .* with --force"
    with pytest.raises(PublishError, match=message):
        own.open()
    assert own.documents() == older
    with own.open(accept_older=True) as publication:
        publication.open_tree().remove(b"/sw/tool")
        published = publication.commit()
    assert published.revision == 4  # beyond what clients may have seen
    assert published.timestamp_s >= newest.timestamp_s
    own.open().close()


async def test_clients_follow_beyond_an_older_state(own: OwnRepository) -> None:
    older = own.documents()
    own.publish(SECOND)
    assert (await own.see(fresh=False))[b"/readme"].content == b"two!\n"
    for name, content in older.items():
        (own.storage / name).write_bytes(content)
    with own.open(accept_older=True) as publication:
        publication.commit(force=True)
    assert (await own.see(fresh=False))[b"/readme"].content == b"one\n"


def test_another_state_of_the_same_revision_is_not_built_upon(own: OwnRepository) -> None:
    manifest = dataclasses.replace(current_manifest(own), root_hash=hash_bytes(own.algorithm, b"another"))
    with own.open() as publication:
        keys = publication.keys
    (own.storage / ".cvmfspublished").write_bytes(format_manifest(manifest, keys))
    with pytest.raises(PublishError, match="the storage was replaced by another state"):
        own.open()


def test_what_others_signed_is_not_built_upon(own: OwnRepository, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = OwnRepository(tmp_path / "other")
    for number in range(5):
        other.publish({"f": b"%d" % number})
    shutil.copytree(other.storage / "data", own.storage / "data", dirs_exist_ok=True)
    original = own.documents()
    for names in ([".cvmfspublished"], [".cvmfspublished", ".cvmfswhitelist"]):
        for name in names:
            shutil.copy(other.storage / name, own.storage)
        with pytest.raises(TrustError):
            own.open()
    for name, content in original.items():
        (own.storage / name).write_bytes(content)
    manifest = bytearray(original[".cvmfspublished"])
    manifest[1] ^= 1
    (own.storage / ".cvmfspublished").write_bytes(manifest)
    with pytest.raises(CvmfsError):
        own.open()


@pytest.mark.parametrize("field", ["C", "X", "H"])
def test_damaged_objects_are_not_built_upon(own: OwnRepository, field: str) -> None:
    manifest = current_manifest(own)
    content_hash, kind = {
        "C": (manifest.root_hash, Kind.CATALOG),
        "X": (manifest.certificate_hash, Kind.CERTIFICATE),
        "H": (manifest.history_hash, Kind.HISTORY),
    }[field]
    assert content_hash is not None
    with own.open() as publication:
        path = publication.storage.path(content_hash, kind)
    whole = path.read_bytes()
    documents = own.documents()
    for damaged in (whole[: len(whole) // 2], bytes([*whole[:-1], whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            own.publish(SECOND)
    path.unlink()
    with pytest.raises(PublishError, match="is missing"):
        own.publish(SECOND)
    assert own.documents() == documents
    path.write_bytes(whole)
    own.publish(SECOND)


def test_a_place_without_keys_is_told(own: OwnRepository, tmp_path: Path) -> None:
    copied = shutil.copytree(own.storage, tmp_path / "elsewhere")
    with pytest.raises(CvmfsError, match=r"the keys of own\.test\.org are not here: there is no .*elsewhere\.keys"):
        find_place(copied)
    (tmp_path / "elsewhere.keys").symlink_to(copied)
    with pytest.raises(CvmfsError, match="the keys must not be in"):
        find_place(copied)
    with pytest.raises(PublishError, match="holds no repository"):
        find_place(tmp_path / "nowhere")


async def test_a_clock_that_was_set_back_does_not_matter(own: OwnRepository) -> None:
    """Clients refuse what is older than what they have; so a time never goes back."""
    future_s = int(time.time()) + 100_000
    with own.open() as publication:
        following = dataclasses.replace(publication.manifest, timestamp_s=future_s)
        workdir = str(own.directory)
        seal(
            publication.place,
            publication.storage,
            publication.keys,
            workdir,
            publication.manifest,
            following,
            warn=pytest.fail,
        )
    await own.see(fresh=False)
    own.publish(SECOND)
    assert current_manifest(own).timestamp_s == future_s
    assert (await own.see(fresh=False))[b"/readme"].content == b"two!\n"


# --- the reflog


def logged(own: OwnRepository, tmp_path: Path) -> dict[str, Kind]:
    file = tmp_path / "copy-of-reflog"
    shutil.copy(own.storage / ".cvmfsreflog", file)
    with Reflog.open(file) as reflog:
        return {str(one.content_hash): one.kind for one in reflog.refs()}


def assert_reflog_is_named(own: OwnRepository) -> None:
    """By the manifest as it is on the disk: opening would repair it."""
    manifest = (own.storage / ".cvmfspublished").read_bytes().partition(b"\n--\n")[0]
    (line,) = [line for line in manifest.split(b"\n") if line.startswith(b"Y")]
    assert line[1:].decode() == str(hash_bytes(own.algorithm, (own.storage / ".cvmfsreflog").read_bytes()))


def test_the_reflog_lists_everything_that_was_ever_named(own: OwnRepository, tmp_path: Path) -> None:
    expected = dict(logged(own, tmp_path))
    for tree in (SECOND, FIRST):
        published = own.publish(tree)
        assert_reflog_is_named(own)
        history = current_manifest(own).history_hash
        expected |= {str(published.root_hash): Kind.CATALOG, str(history): Kind.HISTORY}
    with own.open() as publication:
        expected[str(publication.set_metainfo(b"{}"))] = Kind.METAINFO
        publication.add_tag("v2")
        expected[str(publication.manifest.history_hash)] = Kind.HISTORY
    assert_reflog_is_named(own)
    assert logged(own, tmp_path) == expected
    assert list(expected.values()).count(Kind.CERTIFICATE) == 1
    for content_hash, kind in expected.items():
        assert (own.storage / "data" / content_hash[:2] / (content_hash[2:] + kind.value)).exists()


def test_what_is_forgotten_leaves_the_reflog(own: OwnRepository, tmp_path: Path) -> None:
    old = current_manifest(own)
    own.publish(SECOND)
    with own.open() as publication:
        publication.forget([old.root_hash])
    assert str(old.root_hash) not in logged(own, tmp_path)
    assert_reflog_is_named(own)


async def test_a_death_between_the_last_two_renames_is_repaired(own: OwnRepository, tmp_path: Path) -> None:
    """The reflog is new and the manifest is old. The next publisher makes them agree, even if it changes nothing."""
    old = own.documents()[".cvmfspublished"]
    record = own.place.record_file.read_bytes()
    own.publish(SECOND)
    (own.storage / ".cvmfspublished").write_bytes(old)
    own.place.record_file.write_bytes(record)
    entries = logged(own, tmp_path)
    assert await own.verify() == 2
    with own.open() as publication:
        assert publication.warnings == []
    assert_reflog_is_named(own)
    assert await own.verify() == 2
    assert logged(own, tmp_path) == entries
    own.publish(SECOND)
    assert await own.verify() == 3


@pytest.mark.parametrize("damage", ["gone", "empty", "no database", "foreign"])
async def test_a_lost_reflog_is_made_anew(own: OwnRepository, tmp_path: Path, damage: str) -> None:
    own.publish(SECOND)
    entries = logged(own, tmp_path)
    file = own.storage / ".cvmfsreflog"
    if damage == "gone":
        file.unlink()
    elif damage == "foreign":
        (tmp_path / "foreign").unlink(missing_ok=True)
        with Reflog.create(tmp_path / "foreign", "other.test.org") as reflog:
            reflog.finish()
        shutil.copy(tmp_path / "foreign", file)
    else:
        file.write_bytes(b"" if damage == "empty" else b"SQLite format 4")
    with own.open() as publication:
        (warning,) = publication.warnings
        assert "the reflog was damaged" in warning
    assert_reflog_is_named(own)
    again = logged(own, tmp_path)
    assert again.items() <= entries.items()
    lost = entries.keys() - again.keys()
    assert {entries[one] for one in lost} <= {Kind.HISTORY}  # older tag databases; all contents are tagged
    own.publish(FIRST)
    assert await own.verify() == 4


# --- power failures


def unpublished_object(own: OwnRepository, content: bytes) -> Path:
    """One that a publisher stored before it died."""
    before = own.objects()
    write_tree(own.directory / "source", {**FIRST, "new": content})
    with own.open() as publication:
        tree, storage, settings = publication.open_tree(), publication.storage, publication.settings
        apply_directory(tree, storage, settings, own.directory / "source")
    (name,) = own.objects() - before
    return own.storage / "data" / name


async def test_objects_that_a_power_failure_emptied_are_not_taken_for_good(own: OwnRepository) -> None:
    """They were written under a mark from before the restart; the same content is stored again."""
    content = b"new and not yet published"
    path = unpublished_object(own, content)
    mark = own.place.mark_file
    assert mark.exists()  # nothing was published
    whole = path.read_bytes()
    path.write_bytes(b"\0" * len(whole))
    mark.write_text(f"00000000-another-boot {int(time.time()) - 60}")
    with own.open() as publication:
        (warning,) = publication.warnings
        assert warning.endswith("power failure left of an earlier publication: 1 damaged object")
    assert not path.exists()
    own.publish({**FIRST, "new": content})
    assert path.read_bytes() == whole
    assert not mark.exists()
    assert await own.see() == seen_on_disk(own.directory / "source")


def test_a_mark_of_the_same_boot_verifies_nothing(own: OwnRepository) -> None:
    """A publisher that was only killed has left whole objects: the pages are the kernel's."""
    path = unpublished_object(own, b"x")
    text = own.place.mark_file.read_text()
    assert text.split()[0] == boot_id()
    path.write_bytes(b"damaged")
    own.open().close()
    assert path.exists()
    assert own.place.mark_file.read_text() == text  # the earliest beginning counts


def test_objects_from_before_the_mark_are_not_read_again(own: OwnRepository) -> None:
    path = unpublished_object(own, b"x")
    os.utime(path, (1, 1))
    path_2 = unpublished_object(own, b"y")
    path_2.write_bytes(b"damaged")
    os.utime(path_2, (1, 1))
    own.place.mark_file.write_text(f"00000000-another-boot {int(time.time()) - 60}")
    with own.open() as publication:
        assert publication.warnings == []
    assert path_2.exists()


def test_the_mark_is_there_before_the_first_object(own: OwnRepository) -> None:
    assert not own.place.mark_file.exists()
    with own.open() as publication:
        assert own.place.mark_file.exists()
        publication.open_tree().remove(b"/sw")
        publication.commit()
        assert not own.place.mark_file.exists()
