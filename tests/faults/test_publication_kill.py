"""A publisher that is killed at any moment leaves what was served, or what it published; and the next one goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.mount.verifying import verify_snapshot
from cvmfs_py.publish.consistency import check_repository
from tests.compat.whole_tree import Seen, read_whole
from tests.simulator.publisher import Nobody, OwnRepository, seen_on_disk, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 50
CHUNK = 1 << 14
MEMORY_DISK = Path("/dev/shm")  # what is written through to the disk is waited for, and that is nothing to be killed in
END_S = 20.0


@pytest.fixture
def own() -> Iterator[OwnRepository]:
    place = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-kill-", dir=place) as directory:
        yield OwnRepository(
            Path(directory),
            chunk_min_bytes=CHUNK // 2,
            chunk_average_bytes=CHUNK,
            chunk_max_bytes=2 * CHUNK,
            auto_catalog_entries=40,
        )


def tree_of(number: int) -> dict[str, bytes]:
    """A tree that differs from the one before in files, directories, nested catalogs and, at times, a large file."""
    chance = random.Random(number)
    tree = {f"stay/{name}": b"always the same %d" % name for name in range(10)}
    tree |= {f"change/{name}": chance.randbytes(chance.randrange(3000)) for name in range(10)}
    tree[f"new-{number % 3}/.cvmfscatalog"] = b""
    tree |= {f"new-{number % 3}/{name}/file": b"%d in %d" % (name, number) for name in range(10)}
    if number % 2:
        tree |= {f"many/{name}": b"%d" % name for name in range(60)}
        tree["stay/.cvmfscatalog"] = b""
    tree["large"] = random.Random(number // 3).randbytes(5 * CHUNK)
    return tree


class Worker:
    """A publisher's process that waits for its turn."""

    def __init__(self, own: OwnRepository) -> None:
        command = [sys.executable, "-m", "tests.faults.publish_worker", str(own.storage), str(own.directory / "source")]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, kill_after_s: float) -> float | None:
        """Lets it publish, and kills it after a time. How long it took; None: it was killed."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        start = time.monotonic()
        process.stdin.write(b"\n")
        process.stdin.flush()
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        elapsed_s = time.monotonic() - start
        with process:
            _, errors = process.communicate(
                timeout=END_S
            )  # until the packing processes, which share it, have ended, too
        assert errors == b""
        assert process.returncode in (0, -signal.SIGKILL)
        return elapsed_s if process.returncode == 0 else None

    def stop(self) -> None:
        with self._process as process:
            process.kill()


async def look(own: OwnRepository) -> tuple[int, dict[bytes, Seen]]:
    """The revision and the whole tree as a new client sees them, with everything verified."""
    async with own.client() as repository:
        report = await verify_snapshot(repository, b"", Nobody(), data=True)
        assert report.problems == []
        trusted = repository.root.trusted
        assert trusted is not None
        return trusted.manifest.revision, without_markers(await read_whole(repository))


def without_markers(tree: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Automatic nested catalogs have markers that the source has not."""
    return {path: seen for path, seen in tree.items() if not path.endswith((b"/.cvmfscatalog", b"/.cvmfsautocatalog"))}


async def test_killing_publishers_breaks_nothing(own: OwnRepository) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    source = own.directory / "source"
    write_tree(source, tree_of(0))
    worker = Worker(own)
    workers = [worker]
    longest_s = worker.run(kill_after_s=END_S)
    assert longest_s is not None
    served = 2, without_markers(seen_on_disk(source))
    assert await look(own) == served
    killed = 0
    worker = Worker(own)
    workers.append(worker)
    try:
        for number in range(1, ROUNDS + 1):
            write_tree(source, tree_of(number))
            wanted = served[0] + 1, without_markers(seen_on_disk(source))
            moment_s = moments.uniform(0, longest_s)
            elapsed_s = worker.run(moment_s)
            if elapsed_s is None:
                killed += 1
            else:  # the machine has become faster than it was: the moments have to follow
                longest_s = min(longest_s, elapsed_s)
            worker = Worker(own)  # it starts while we look
            workers.append(worker)
            found = await look(own)
            print(f"round {number}: killed after {moment_s:.3f} s, found revision {found[0]}")
            assert found == wanted or (found == served and elapsed_s is None)
            published = own.publish_directory(source)
            assert (published.revision, published.is_new) == (wanted[0], found == served)
            served = wanted
    finally:
        for worker in workers:
            worker.stop()
    assert await look(own) == served
    assert killed > ROUNDS // 2
    with own.open() as publication:
        key = publication.keys.master_public
    report = check_repository(publication.storage, own.fqrn, (key,), data=True, every_snapshot=True)
    assert report.problems == []
    assert list((own.storage / "data" / "txn").iterdir()) == []
