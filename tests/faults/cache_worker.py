"""Processes for the fault tests of the cache: they write until they are killed, share a directory, or meet a disk that
is full or read-only. Run as `python -m tests.faults.cache_worker COMMAND DIRECTORY [NUMBER]`.

What mounts something runs in a mount namespace of its own, so that nothing stays behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cache.directory import DirectoryStore
from cache.errors import CacheError, CacheFullError, CacheReadOnlyError
from cache.ref import NotLocal
from cache.reports import Verdict
from tests.contract.objects import commit, content, make_ref, object_file, put

if TYPE_CHECKING:
    from collections.abc import Callable


def block(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


def size_of(number: int) -> int:
    return random.Random(-number).choice([0, 1, 100, 5000, 5000, 70_000])


def write_until_killed(directory: str, first: int) -> None:
    """Keep several transactions open, end them in any order, and say what was committed."""
    store = DirectoryStore(directory, limit_bytes=None)
    order = random.Random(first)
    under_way = []
    number = first
    while True:
        data = block(number, size_of(number))
        transaction = store.begin(make_ref(data))
        transaction.write(data[: len(data) // 2])
        under_way.append((number, transaction, data))
        number += 1
        if len(under_way) > 8:
            done, transaction, data = under_way.pop(order.randrange(len(under_way)))
            for start in range(len(data) // 2, len(data), 8192):
                transaction.write(data[start : min(start + 8192, len(data))])
            if done % 7 == 0:
                transaction.abort()
            else:
                transaction.commit().close()
                print(done, flush=True)


def share(directory: str, seed: int) -> None:
    """Commit, read and evict in a directory that other processes use as well; every byte that is read must be right."""
    order = random.Random(seed)
    pins = []
    with DirectoryStore(directory, limit_bytes=200_000) as store:
        for _ in range(400):
            number = order.randrange(150)
            data = block(number, 1000 + number * 20)
            try:
                pin = store.open(make_ref(data))
            except NotLocal:
                pin = commit(store, make_ref(data), data)
            pins.append((pin, data))
            if len(pins) > 10:
                pin, data = pins.pop(order.randrange(len(pins)))
                assert pin.read() == data
                pin.close()
            if order.random() < 0.02:
                store.status()
        for pin, data in pins:
            assert pin.read() == data
            pin.close()


def assert_refused(error: type[CacheError], words: str, attempt: Callable[[], object]) -> None:
    with pytest.raises(error, match=words) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def mount_tmpfs(directory: str, options: str) -> None:
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)


def full_disk(directory: str, _: int) -> None:
    mount_tmpfs(directory, "size=2m")
    with DirectoryStore(directory) as store:
        # More than the disk holds, without any limit: older objects make room.
        for number in range(100):
            ref = put(store, block(number, 64 * 1024))
            assert content(store, ref) == block(number, 64 * 1024)
        assert 0 < store.status().objects < 32
        assert {result.verdict for result in store.check()} == {Verdict.OK}
        # What is open is not evicted, not even then.
        pins = []
        message = ""
        for number in range(200, 300):
            try:
                pins.append((number, commit(store, make_ref(block(number, 64 * 1024)), block(number, 64 * 1024))))
            except CacheFullError as error:
                message = str(error)
                break
        assert 20 <= len(pins) < 32, len(pins)
        assert directory in message
        assert "full" in message
        assert "\n" not in message
        for number, pin in pins:
            assert pin.read() == block(number, 64 * 1024)
            pin.close()
        # Reading works on the full disk, and writing again as soon as something can go.
        assert content(store, make_ref(block(200, 64 * 1024))) == block(200, 64 * 1024)
        put(store, block(400, 64 * 1024))
        # An object above the size of the disk fails, and nothing of it stays.
        assert_refused(CacheFullError, directory, lambda: put(store, block(401, 3 * 2**20)))
        assert os.listdir(os.path.join(directory, "txn")) == []
        with store.begin(make_ref(block(402, 1024 * 1024))) as transaction, ThreadPoolExecutor(1) as pool:
            for start in range(0, 1024 * 1024, 65536):  # room is made in the thread that writes, too
                pool.submit(transaction.write, block(402, 1024 * 1024)[start : start + 65536]).result()
            transaction.commit().close()
        assert content(store, make_ref(block(402, 1024 * 1024))) == block(402, 1024 * 1024)
        store.write_state("crumb", b"x")
    with DirectoryStore(directory) as store:
        assert store.status().objects == len(list(store.entries())) == len(list(store.check()))


def filled_by_others(directory: str, _: int) -> None:
    mount_tmpfs(directory, "size=2m")
    with DirectoryStore(directory + "/cache") as store:
        ref = put(store, block(1, 100_000))
        pin = store.open(ref)
        with open(directory + "/ballast", "wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                pass
        many = [make_ref(b"%d" % number).content_hash for number in range(1000)]
        assert_refused(CacheFullError, directory, lambda: put(store, block(2, 5000)))
        assert_refused(CacheFullError, directory, lambda: store.write_state("crumb", bytes(100_000)))
        assert_refused(CacheFullError, directory, lambda: store.pin("name", "", many))
        assert pin.read() == block(1, 100_000)
        assert store.status().objects == 1
        pin.close()
        put(store, block(3, 50_000))  # the unpinned object goes
        assert content(store, make_ref(block(3, 50_000))) == block(3, 50_000)
        assert not store.has(ref)


def out_of_inodes(directory: str, _: int) -> None:
    mount_tmpfs(directory, "size=64m,nr_inodes=400")
    with DirectoryStore(directory) as store:
        for number in range(1000):
            ref = put(store, b"%d" % number)
            assert content(store, ref) == b"%d" % number
        status = store.status()
        assert 0 < status.objects < 400


def read_only(directory: str, _: int) -> None:
    mount_tmpfs(directory, "size=8m")
    with DirectoryStore(directory + "/cache") as store:
        refs = [put(store, block(number, 1000)) for number in range(50)]
        store.write_state("crumb", b"x")
        store.pin("name", "", [refs[0].content_hash])
        store.status()
    os.mkdir(directory + "/empty")
    subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
    with DirectoryStore(directory + "/cache", limit_bytes=10_000) as store:
        for number, ref in enumerate(refs):
            assert store.has(ref)
            assert content(store, ref) == block(number, 1000)
        store.flush()
        status = store.status()
        assert (status.objects, status.used_bytes, status.read_only) == (50, 50_000, True)
        assert len(list(store.entries())) == 50
        assert {result.verdict for result in store.check()} == {Verdict.OK}
        assert store.read_state("crumb") == b"x"
        assert [pin.name for pin in store.named_pins()] == ["name"]
        assert not store.discard(refs[1].content_hash)
        assert_refused(CacheReadOnlyError, directory, lambda: put(store, b"new"))
        assert_refused(CacheReadOnlyError, directory, lambda: store.cleanup(0))
        assert_refused(CacheReadOnlyError, directory, lambda: store.write_state("crumb", b"y"))
        assert_refused(CacheReadOnlyError, directory, lambda: store.pin("other", "", []))
        assert_refused(CacheReadOnlyError, directory, lambda: store.unpin("name"))
    assert_refused(CacheReadOnlyError, "empty", lambda: DirectoryStore(directory + "/empty"))
    assert_refused(CacheReadOnlyError, "absent", lambda: DirectoryStore(directory + "/absent"))


def whole_seconds(directory: str, _: int) -> None:
    """A file system of small inodes keeps whole seconds only."""
    image = directory + ".image"
    subprocess.run(["truncate", "-s", "8M", image], check=True)
    subprocess.run(["mkfs.ext2", "-q", "-I", "128", image], check=True, capture_output=True)
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    with DirectoryStore(directory) as store:
        refs = [put(store, block(number, 1000)) for number in range(20)]
        put(store, b"")
        subprocess.run(["mount", "-o", "remount", directory], check=True)
        assert all(content(store, ref) == block(number, 1000) for number, ref in enumerate(refs))
        assert {result.verdict for result in store.check()} == {Verdict.OK}


LINK_CALLS = {"x86_64": (86, 265), "aarch64": (37,)}  # by machine: the numbers of link(2) and linkat(2)
_LOAD, _SKIP_IF, _RETURN = 0x20, 0x15, 0x06  # of a filter
_ALLOW, _REFUSE = 0x7FFF0000, 0x50000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_FILTER_MODE = 2


def forbid_links() -> None:
    """From now on the kernel refuses this process every hard link, as some file systems do."""
    numbers = LINK_CALLS[os.uname().machine]
    steps = [(_LOAD, 0, 0, 0)]  # the number of the call
    steps += [(_SKIP_IF, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE | errno.EPERM)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER_MODE, program, 0, 0)):
        assert libc.prctl(*words) == 0, os.strerror(ctypes.get_errno())


def no_links(directory: str, _: int) -> None:
    with DirectoryStore(directory) as store:
        put(store, b"linked")
        forbid_links()
        with pytest.raises(PermissionError):
            os.link(object_file(directory, make_ref(b"linked")), directory + "/link")
        for _ in range(2):
            refs = [put(store, block(number, 1000)) for number in range(300)]
        assert all(content(store, ref) == block(number, 1000) for number, ref in enumerate(refs))
        assert os.listdir(directory + "/txn") == []
        assert {result.verdict for result in store.check()} == {Verdict.OK}


COMMANDS = {
    "no-links": no_links,
    "write": write_until_killed,
    "share": share,
    "full": full_disk,
    "filled": filled_by_others,
    "inodes": out_of_inodes,
    "read-only": read_only,
    "seconds": whole_seconds,
}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    except CacheError as error:
        raise SystemExit(f"unexpected: {error!r}") from error
