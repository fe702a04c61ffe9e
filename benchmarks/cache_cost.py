"""What the cache adds to a small file: commits and opens, beside the same system calls without a cache."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from benchmarks.table import Row, timed
from cache.address import Algorithm, Kind, hash_bytes
from cache.directory import DirectoryStore
from cache.memory import MemoryStore
from cache.ref import ObjectRef

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workbench import Workbench
    from cache.store import Store

TITLE = "cache, objects of 1 KiB"
OBJECTS = 2_000
SIZE_BYTES = 1024
MEMORY_BYTES = 64 << 20


def run(bench: Workbench) -> list[Row]:
    refs = [
        ObjectRef(hash_bytes(Algorithm.SHA1, b"%d" % number), Kind.BULK, size_bytes=SIZE_BYTES)
        for number in range(OBJECTS)
    ]
    samples: dict[str, list[float]] = {}
    for _ in range(bench.repeat):
        plain = bench.fresh("plain")
        _note(samples, "plain write", _write_plainly, plain, refs)
        _note(samples, "plain open", _open_plainly, plain, refs)
        directory = bench.fresh("cache")
        with DirectoryStore(str(directory)) as store:
            _note(samples, "commit", _commit, store, refs)
            _note(samples, "open", _open, store, refs)
            start = time.perf_counter()
            store.flush()
            samples.setdefault("flush", []).append(time.perf_counter() - start)
        start = time.perf_counter()
        DirectoryStore(str(directory)).close()
        samples.setdefault("open and close the store", []).append(time.perf_counter() - start)
        with MemoryStore(MEMORY_BYTES) as memory:
            _note(samples, "commit in memory", _commit, memory, refs)
            _note(samples, "open in memory", _open, memory, refs)
    write_s, open_s = min(samples["plain write"]), min(samples["plain open"])
    best = "best / best of the plain files"
    return [
        _compared("plain files: create, write, rename", samples["plain write"], "", None),
        _compared("commit", samples["commit"], best, write_s),
        _compared("commit in memory", samples["commit in memory"], best, write_s),
        _compared("plain files: open, fstat, close", samples["plain open"], "", None),
        _compared("open and close a pin", samples["open"], best, open_s),
        _compared("open and close a pin in memory", samples["open in memory"], best, open_s),
        timed(f"write the index after that ({OBJECTS:,} uses)", samples["flush"]),
        timed("open and close the store", samples["open and close the store"]),
    ]


def _compared(name: str, samples_s: list[float], beside: str, limit_s: float | None) -> Row:
    row = timed(name, samples_s)
    ratio = None if limit_s is None else min(samples_s) / limit_s
    return Row(row.name, row.value, "s", beside, ratio, "", row.samples)


def _note(samples: dict[str, list[float]], name: str, work, where, refs: list[ObjectRef]) -> None:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    work(where, refs)
    samples.setdefault(name, []).append((time.perf_counter() - start) / len(refs))


def _commit(store: Store, refs: list[ObjectRef]) -> None:
    content = b"x" * SIZE_BYTES
    for ref in refs:
        with store.begin(ref) as transaction:
            transaction.write(content)
            transaction.commit().close()


def _open(store: Store, refs: list[ObjectRef]) -> None:
    for ref in refs:
        store.open(ref).close()


def _write_plainly(directory: Path, refs: list[ObjectRef]) -> None:
    content = b"x" * SIZE_BYTES
    (directory / "txn").mkdir(parents=True)
    for number in range(256):
        (directory / f"{number:02x}").mkdir()
    for ref in refs:
        text = str(ref.content_hash)
        temporary = f"{directory}/txn/{text}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, content)
        os.close(fd)
        os.rename(temporary, f"{directory}/{text[:2]}/{text[2:]}")


def _open_plainly(directory: Path, refs: list[ObjectRef]) -> None:
    for ref in refs:
        text = str(ref.content_hash)
        fd = os.open(f"{directory}/{text[:2]}/{text[2:]}", os.O_RDONLY)
        os.fstat(fd)
        os.close(fd)
