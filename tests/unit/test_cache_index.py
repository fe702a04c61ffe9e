"""The index and its comparison with the files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cache.directory import DirectoryStore
from cache.index import Index, IndexBusyError, IndexDamagedError
from tests.contract.objects import content, make_ref, object_file, put


def block(number: int) -> bytes:
    return b"%d " % number * 20


def files_in(directory: Path) -> list[Path]:
    return [path for path in (directory / "objects").rglob("*") if path.is_file()]


def used_bytes_on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in files_in(directory))


def is_indexed(directory: Path) -> int:
    connection = sqlite3.connect(directory / "index.sqlite")
    try:
        return int(connection.execute("SELECT count(*) FROM objects").fetchone()[0])
    finally:
        connection.close()


def assert_agrees(store: DirectoryStore) -> None:
    """The index says what is there, and nothing else."""
    directory = Path(store.directory)
    files = {path.parent.name + path.name for path in files_in(directory)}
    status = store.status()
    assert {str(entry.content_hash) for entry in store.entries()} == files
    assert (status.objects, status.used_bytes) == (len(files), used_bytes_on_disk(directory))


def test_uses_are_written_at_the_end(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, block(number)) for number in range(5)]
        assert not (tmp_path / "index.sqlite").exists()
    assert is_indexed(tmp_path) == 5
    with DirectoryStore(str(tmp_path)) as store:
        content(store, refs[0])
    with DirectoryStore(str(tmp_path)) as store:
        assert [entry.content_hash for entry in store.entries()][:2] == [refs[0].content_hash, refs[4].content_hash]
        assert_agrees(store)
    assert os.listdir(tmp_path / "running") == []


def test_uses_alone_do_not_make_an_index(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        ref = put(store, block(1))
    os.unlink(tmp_path / "index.sqlite")
    with DirectoryStore(str(tmp_path)) as store:
        assert content(store, ref) == block(1)
    assert not (tmp_path / "index.sqlite").exists()


def test_many_insertions_are_written_meanwhile(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        for number in range(600):
            put(store, block(number))
        assert is_indexed(tmp_path) >= 300
        assert_agrees(store)


def test_many_uses_are_written_meanwhile(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, block(number)) for number in range(4100)]
        store.flush()
        for ref in refs:
            content(store, ref)
        with DirectoryStore(str(tmp_path)) as other:
            newest = [entry.content_hash for entry in other.entries()]
    assert newest[0] == refs[4095].content_hash


@pytest.mark.parametrize("damage", ["deleted", "empty", "garbage", "half", "page", "other schema", "no gauge"])
def test_a_lost_index_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, block(number)) for number in range(300)]
        store.pin("kept", "", [refs[7].content_hash])
    path = tmp_path / "index.sqlite"
    data = bytearray(path.read_bytes())
    if damage == "deleted":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(os.urandom(len(data)))
    elif damage == "half":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "page":
        data[8192:] = b"\x55" * (len(data) - 8192)
        path.write_bytes(data)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version=99" if damage == "other schema" else "DELETE FROM gauge")
        connection.commit()
        connection.close()
    with DirectoryStore(str(tmp_path), limit_bytes=1_000_000) as store:
        assert content(store, refs[3]) == block(3)
        new = put(store, b"after the damage")
        store.flush()
        assert_agrees(store)
        report = store.cleanup(100)
        assert report.removed_objects >= 295
        assert store.has(refs[7])
        assert store.has(new)
        assert_agrees(store)
    assert is_indexed(tmp_path) == len(files_in(tmp_path))


def test_an_index_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        put(store, block(1))
        store.flush()
        assert_agrees(store)
        (tmp_path / "index.sqlite").unlink()
        put(store, block(2))
        store.flush()
        assert_agrees(store)
        os.rename(tmp_path / "index.sqlite", tmp_path / "old")
        (tmp_path / "index.sqlite").write_bytes(b"not a database at all, but long enough to be read as one" * 100)
        put(store, block(3))
        store.flush()
        assert_agrees(store)
        os.unlink(tmp_path / "old")


def test_a_busy_index_delays_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path), limit_bytes=1_000_000) as store:
        put(store, block(0))
        store.flush()
        assert_agrees(store)
        blocker = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
        try:
            blocker.execute("BEGIN EXCLUSIVE")
            refs = [put(store, block(number)) for number in range(1, 200)]
            store.flush()
            assert all(content(store, ref) is not None for ref in refs)
            status = store.status()  # from the files themselves
            assert (status.objects, status.used_bytes) == (200, used_bytes_on_disk(tmp_path))
            assert len(list(store.entries())) == 200
            blocker.execute("ROLLBACK")
        finally:
            blocker.close()
        assert_agrees(store)
    assert is_indexed(tmp_path) == 200


def test_unwritten_entries_are_found_by_the_next_process(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    put(store, block(0))
    store.flush()
    blocker = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    try:
        blocker.execute("BEGIN EXCLUSIVE")
        put(store, block(1))
        store.close()
    finally:
        blocker.close()
    assert os.listdir(tmp_path / "running") == ["left-behind"]
    with DirectoryStore(str(tmp_path)) as store:
        assert_agrees(store)
    assert os.listdir(tmp_path / "running") == []


CRASH = """
import os, sys
from cache.directory import DirectoryStore
from tests.contract.objects import put
store = DirectoryStore(sys.argv[1])
for number in range(20):
    put(store, b"%d of the dead" % number)
os._exit(1)
"""


def test_objects_of_a_crashed_process_are_found(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        put(store, block(1))
    subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert len(os.listdir(tmp_path / "running")) == 1
    with DirectoryStore(str(tmp_path)) as store:
        # A crash costs nothing until somebody asks.
        assert is_indexed(tmp_path) == 1
        assert_agrees(store)
        assert store.status().objects == 21
    assert os.listdir(tmp_path / "running") == []
    assert is_indexed(tmp_path) == 21


def test_the_comparison_goes_on_between_commits(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        for number in range(5000):
            put(store, b"%d" % number)
    os.unlink(tmp_path / "index.sqlite")
    with DirectoryStore(str(tmp_path), limit_bytes=10_000_000) as store:
        store.flush()  # nothing to write, so no index is needed
        assert not (tmp_path / "index.sqlite").exists()
        known = []
        for number in range(10):
            put(store, b"commit %d" % number)
            store.flush()
            known.append(is_indexed(tmp_path))
        assert known[0] < 5000
        assert known[-1] == 5010
        assert_agrees(store)


def test_a_store_works_without_any_index(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite" / "in the way").mkdir(parents=True)
    (tmp_path / ".cvmfs-py-cache").write_text('{"version": 1}')
    with DirectoryStore(str(tmp_path), limit_bytes=1_000_000) as store:
        refs = [put(store, block(number)) for number in range(600)]
        store.flush()
        assert_agrees(store)
        assert store.cleanup(1000).freed_bytes >= used_bytes_on_disk(tmp_path)
        assert_agrees(store)
        assert content(store, refs[-1]) == block(599)


def test_files_that_vanish_leave_the_index_at_the_next_comparison(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, block(number)) for number in range(10)]
        assert_agrees(store)
    os.unlink(object_file(str(tmp_path), refs[4]))
    with DirectoryStore(str(tmp_path)) as store:
        assert content(store, refs[4]) is None
        assert store.status().objects == 10
        (tmp_path / "running" / "left-behind").touch()
        assert store.status().objects == 9
        assert_agrees(store)


def test_recency_of_found_objects_is_their_last_access(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path)) as store:
        refs = [put(store, block(number)) for number in range(4)]
    os.unlink(tmp_path / "index.sqlite")
    day_ns = 86_400 * 10**9
    # Years ahead, as after a clock that was wrong for a while: what is used from now on still counts as younger.
    for ref, day in zip(refs, (30_000, 10_000, 40_000, 20_000), strict=True):
        path = object_file(str(tmp_path), ref)
        os.utime(path, ns=(day * day_ns, os.stat(path).st_mtime_ns))
    with DirectoryStore(str(tmp_path)) as store:
        order = [refs.index(ref) for entry in store.entries() for ref in refs if ref.content_hash == entry.content_hash]
        assert order == [2, 0, 3, 1]
        entry = next(store.entries())
        assert (entry.kind, entry.label) == (None, "")
        content(store, make_ref(block(1), label="/found again"))
        entry = next(store.entries())
        assert (entry.content_hash, entry.label) == (refs[1].content_hash, "/found again")


def test_errors_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(IndexBusyError):
        Index(str(tmp_path / "absent"))
    (tmp_path / "text").write_bytes(b"no database " * 500)
    with pytest.raises(IndexDamagedError):
        Index(str(tmp_path / "text"))


def test_strange_directory_names(tmp_path: Path) -> None:
    directory = tmp_path / "100% sure? #1 ü"
    with DirectoryStore(str(directory)) as store:
        put(store, block(1))
        assert_agrees(store)
    assert sorted(path.name for path in tmp_path.iterdir()) == [directory.name]


def test_opening_is_cheap(tmp_path: Path) -> None:
    """Opening and reading import neither sqlite-utils nor anything of the network."""
    with DirectoryStore(str(tmp_path)) as store:
        put(store, block(1))
    script = (
        "import sys; from cache.directory import DirectoryStore; from tests.contract.objects import *\n"
        f"store = DirectoryStore({str(tmp_path)!r}); print(content(store, make_ref(b'1 ' * 20)) is not None)\n"
        "store.close(); print(sorted({'sqlite_utils', 'httpx', 'trio', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    assert done.stdout == "True\n[]\n"
