"""The cache when things go wrong: killed writers, crowds, full and read-only disks, damaged and vanished files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cache.address import parse_hash
from cache.directory import DirectoryStore
from cache.errors import CacheError
from cache.reports import Verdict
from tests.contract.objects import commit, content, make_ref, object_file, put
from tests.faults.cache_worker import LINK_CALLS, block, size_of
from tests.rights import require, unshare_command

ROOT = Path(__file__).parents[2]


def start(command: str, directory: Path, number: int = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-W", "error", "-m", "tests.faults.cache_worker", command, str(directory), str(number)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_mount_namespace(command: str, directory: Path) -> None:
    """Run a worker that mounts: as root in a mount namespace, otherwise in a user namespace as well."""
    require("mount namespaces")
    arguments = [sys.executable, "-W", "error", "-m", "tests.faults.cache_worker", command, str(directory)]
    done = subprocess.run([*unshare_command(), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not os.path.ismount(directory)


def test_a_killed_writer_leaves_nothing_half(tmp_path: Path) -> None:
    moments = random.Random(20)
    committed: set[int] = set()
    first = 0
    for _ in range(4):
        worker = start("write", tmp_path, first)
        assert worker.stdout is not None
        for _ in range(moments.randrange(100, 300)):
            line = worker.stdout.readline()
            assert line, worker.stderr and worker.stderr.read()
            committed.add(int(line))
        worker.send_signal(signal.SIGKILL)
        rest, _errors = worker.communicate()
        committed |= {int(line) for line in rest.splitlines()}
        assert worker.returncode == -signal.SIGKILL
        first = max(committed) + 100

        leftovers = os.listdir(tmp_path / "txn")
        assert leftovers  # it always had transactions under way
        with DirectoryStore(str(tmp_path)) as store:
            for number in committed:
                data = block(number, size_of(number))
                assert content(store, make_ref(data)) == data
            assert {result.verdict for result in store.check()} == {Verdict.OK}
            files = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
            status = store.status()
            assert status.objects == len(files)
            assert status.used_bytes == sum(path.stat().st_size for path in files)
            put(store, b"cleans up after the dead")
            assert os.listdir(tmp_path / "txn") == []
    assert os.listdir(tmp_path / "running") == []


def test_what_a_living_writer_has_under_way_stays(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        ref = make_ref(b"under way")
        with store.begin(ref) as transaction:
            transaction.write(b"under ")
            (tmp_path / "txn" / "object-1-1-dead").write_bytes(b"left")
            worker = start("share", tmp_path, 1)  # cleans up when it starts to write
            _, errors = worker.communicate()
            assert worker.returncode == 0, errors
            assert len(os.listdir(tmp_path / "txn")) == 1
            transaction.write(b"way")
            transaction.commit().close()
        assert content(store, ref) == b"under way"
    assert os.listdir(tmp_path / "txn") == []


def test_several_processes_share_a_directory(tmp_path: Path) -> None:
    workers = [start("share", tmp_path, seed) for seed in range(4)]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    assert os.listdir(tmp_path / "txn") == os.listdir(tmp_path / "running") == []
    with DirectoryStore(str(tmp_path), limit_bytes=200_000) as store:
        results = list(store.check())
        assert {result.verdict for result in results} == {Verdict.OK}
        before = store.status()
        # Each of them may be ahead of the index by a 64th of the limit, by one object, and by what it has pinned.
        assert sum(result.size_bytes for result in results) < 200_000 + 4 * (3125 + 4000 + 11 * 4000)
        assert before.objects == len(results)
        (tmp_path / "running" / "left-behind").touch()  # forces a comparison
        after = store.status()
        assert (after.objects, after.used_bytes) == (len(results), sum(result.size_bytes for result in results))
        put(store, b"x")
        store.cleanup(0)
        assert store.status().objects == 0


@pytest.mark.parametrize("command", ["full", "filled", "inodes", "read-only"])
def test_a_disk_that_refuses(tmp_path: Path, command: str) -> None:
    in_mount_namespace(command, tmp_path / "disk")


@pytest.mark.needs("loop devices")
def test_a_file_system_of_whole_seconds(tmp_path: Path) -> None:
    in_mount_namespace("seconds", tmp_path / "disk")


@pytest.mark.skipif(os.uname().machine not in LINK_CALLS, reason="needs to know the number of link(2)")
def test_a_file_system_without_hard_links(tmp_path: Path) -> None:
    worker = start("no-links", tmp_path / "cache")
    assert (worker.communicate()[1], worker.returncode) == ("", 0)


def test_what_is_used_by_its_name_stays(tmp_path: Path) -> None:
    """A catalog is opened by its name: another process that fetches it as well must not take the file away."""
    ref = make_ref(b"fetched by two")
    with DirectoryStore(str(tmp_path)) as one, DirectoryStore(str(tmp_path)) as other:
        with one.begin(ref) as early, other.begin(ref) as late:
            early.write(b"fetched by two")
            late.write(b"fetched by two")
            with early.commit() as first, late.commit() as second:
                assert first.path == second.path == object_file(str(tmp_path), ref)
                for pin in (first, second):
                    assert os.path.samestat(os.stat(pin.path), os.fstat(pin.fd))
        assert os.listdir(tmp_path / "txn") == []
        Path(object_file(str(tmp_path), ref)).write_bytes(b"damaged by one")  # of the same size
        with other.begin(ref) as again:
            again.write(b"fetched by two")
            with again.commit() as pin:
                assert pin.read() == b"fetched by two"
        assert content(one, ref) == b"fetched by two"


@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "overwritten", "swapped", "foreign", "touched"])
def test_a_changed_object_is_absent(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        ref, other = put(store, b"the right content"), put(store, b"of another object")
        path = Path(object_file(str(tmp_path), ref))
        if damage == "truncated":
            os.truncate(path, 5)
        elif damage == "empty":
            os.truncate(path, 0)
        elif damage == "longer":
            with path.open("ab") as file:
                file.write(b"!")
        elif damage == "overwritten":
            with path.open("r+b") as file:
                file.write(b"THE")
        elif damage == "swapped":
            shutil.copy2(object_file(str(tmp_path), other), path)
        elif damage == "foreign":
            path.unlink()
            path.write_bytes(b"the right content")
        else:
            path.touch()
        unknown_size = make_ref(b"the right content", size_bytes=None)
        assert not store.has(unknown_size)
        assert content(store, unknown_size) is None
        assert "damaged" in caplog.text
        assert not path.exists()
        assert store.status().objects == 1
        put(store, b"the right content")
        assert content(store, ref) == b"the right content"


def test_a_check_finds_what_open_cannot_see(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, b"content number %d" % number) for number in range(5)]
        rotten = Path(object_file(str(tmp_path), refs[1]))
        before = rotten.stat()
        rotten.write_bytes(b"CONTENT number 1")
        os.utime(rotten, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk does
        truncated = Path(object_file(str(tmp_path), refs[2]))
        os.truncate(truncated, 3)
        foreign = truncated.parent / "notes.txt"
        foreign.write_bytes(b"mine")
        results = {result.where: result for result in store.check()}
        corrupt = {where for where, result in results.items() if result.verdict is Verdict.CORRUPT}
        assert corrupt == {str(rotten), str(truncated)}
        assert all(results[where].removed for where in corrupt)
        assert results[str(rotten)].content_hash == refs[1].content_hash
        assert results[str(foreign)].verdict is Verdict.FOREIGN
        assert foreign.exists()
        assert [store.has(ref) for ref in refs] == [True, False, False, True, True]
        assert store.status().objects == 3


def test_a_truncation_under_an_open_pin_is_an_error(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store, commit(store, make_ref(b"0123456789"), b"0123456789") as pin:
        assert pin.path is not None
        os.truncate(pin.path, 4)
        assert pin.read(4) == b"0123"
        with pytest.raises(CacheError, match="truncated"):
            pin.read()


def test_a_directory_that_vanishes_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    with DirectoryStore(str(directory), limit_bytes=1000) as store:
        ref = put(store, b"x" * 100)
        store.flush()
        pin = store.open(ref)
        shutil.rmtree(directory)
        assert pin.read() == b"x" * 100
        pin.close()
        assert not store.has(ref)
        assert content(store, ref) is None
        assert store.read_state("crumb") is None
        assert store.named_pins() == ()
        for number in range(20):
            again = put(store, b"%d" % number * 100)
            assert content(store, again) == b"%d" % number * 100
        store.write_state("crumb", b"x")
        assert store.status().objects == sum(path.is_file() for path in (directory / "objects").rglob("*"))
    with DirectoryStore(str(directory)) as store:
        assert content(store, again) == b"19" * 100


def test_a_directory_that_vanishes_below_a_transaction_fails_clearly(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    with DirectoryStore(str(directory)) as store:
        transaction = store.begin(make_ref(b"lost"))
        transaction.write(b"lost")
        shutil.rmtree(directory)
        with pytest.raises(CacheError, match=f"cannot write to the cache directory {directory}"):
            transaction.commit()
        with pytest.raises(CacheError, match="No such file"):
            store.cleanup(0)
        assert store.status().objects == 0
        store.flush()
        ref = put(store, b"found")
        assert content(store, ref) == b"found"


def test_a_damaged_pin_file_pins_what_can_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        kept, gone = put(store, b"kept"), put(store, b"gone")
        text = f"\xff damaged\n{kept.content_hash}\n{str(gone.content_hash)[:30]}"
        (tmp_path / "pins" / "name").write_bytes(text.encode("latin-1"))
        (tmp_path / "pins" / ".nfs0001").write_bytes(b"")
        store.cleanup(0)
        assert (store.has(kept), store.has(gone)) == (True, False)
        assert "no hashes" in caplog.text
        (tmp_path / "pins" / "name").write_bytes(b"")
        assert store.named_pins() == ()


def test_order_of_use_does_not_depend_on_clocks(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, b"%d" % number * 100) for number in range(6)]
        store.flush()
        for number, ref in enumerate(refs):
            path = object_file(str(tmp_path), ref)
            os.utime(path, ns=((6 - number) * 10**18, os.stat(path).st_mtime_ns))
        store.cleanup(300)
        assert [store.has(ref) for ref in refs] == [False] * 3 + [True] * 3


def test_file_names_are_hashes() -> None:
    ref = make_ref(b"x")
    path = object_file("/cache", ref)
    assert parse_hash("".join(path.split("/")[-2:])) == ref.content_hash
