"""The client killed in the middle of hundreds of parallel fetches, and several of them at once on one cache."""

from __future__ import annotations

import os
import random
import re
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import parse_hash
from cache.directory import DirectoryStore
from cache.reports import Verdict
from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FQRN = "test.example.org"
KILLS = 5
_OBJECT = re.compile(rf"/cvmfs/{re.escape(FQRN)}/data/([0-9a-f]{{2}})/([0-9a-f]{{38}})[PCXHM]?\Z")


def content_of(number: int) -> bytes:
    return random.Random(number).randbytes(random.Random(-number).choice([10, 3000, 3000, 20_000, 90_000]))


def contents() -> dict[str, bytes]:
    """600 files in 12 directories, some of them with the same content as another one."""
    return {f"dir{number % 12:02d}/file{number:03d}": content_of(number - number % 50 // 48) for number in range(600)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN, level=1)
    directories: dict[str, dict[str, File]] = {}
    for path, content in contents().items():
        directory, _, name = path.partition("/")
        directories.setdefault(directory, {})[name] = File(
            content, chunk_sizes=30_000 if len(content) > 50_000 else None
        )
    tree = {name: Directory(files, nested=int(name[-2:]) % 3 == 0) for name, files in directories.items()}
    repository.publish(Directory(tree))
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[SlowServer]:
    with SlowServer(repository.document_root, delay_s=0.01) as server:
        yield server


def committed_in(cache: Path) -> set[str]:
    return {path.parent.name + path.name for path in cache.glob("objects/??/*")}


def requested(server: SlowServer, since: int = 0) -> dict[str, int]:
    """How often each object was asked for."""
    counts: dict[str, int] = {}
    for path, count in server.counted(since).items():
        match = _OBJECT.match(path)
        if match is not None:
            text = match[1] + match[2]
            counts[text] = counts.get(text, 0) + count
    return counts


def stored_contents(repository: Repository) -> dict[str, bytes]:
    """The content of every object that the server has."""
    return {
        path.parent.name + path.name.rstrip("PCXHM"): zlib.decompress(path.read_bytes())
        for path in repository.server_root.glob("data/??/*")
    }


def assert_whole(cache: Path, right: dict[str, bytes]) -> set[str]:
    """Asserts that every visible object is what it should be; gives their names."""
    committed = committed_in(cache)
    for text in committed:
        assert (cache / "objects" / text[:2] / text[2:]).read_bytes() == right[text]
    return committed


def assert_copied(directory: Path) -> None:
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    expected = contents()
    assert found - {f"dir{number:02d}/.cvmfscatalog" for number in range(12)} == set(expected)
    for path, content in expected.items():
        assert (directory / path).read_bytes() == content


def test_killed_in_the_middle_of_parallel_fetches(tmp_path: Path, repository: Repository, server: SlowServer) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    moments = random.Random(seed)
    right = stored_contents(repository)
    client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
    committed: set[str] = set()
    was_interrupted = 0
    for _ in range(KILLS):
        seen = len(server.requests)
        running = client.start("cp", "-r", f"{FQRN}:/", "copy")
        server.wait_for_requests(seen + moments.randrange(2, 90), running.is_alive)
        time.sleep(moments.uniform(0, 0.03))  # anywhere between two requests
        assert running.kill().code == -9
        now_committed = assert_whole(client.cache, right)
        assert committed <= now_committed
        # What had been committed by then was not asked for again.
        assert not committed & requested(server, seen).keys()
        was_interrupted += bool(requested(server, seen).keys() - now_committed)
        committed = now_committed
        for path, content in contents().items():
            copy = tmp_path / "copy" / path
            assert not copy.exists() or copy.read_bytes() == content
    assert was_interrupted >= KILLS - 1  # something was under way

    seen = len(server.requests)
    done = client.run("cp", "-r", f"{FQRN}:/", "copy")
    assert done.code == 0, done
    assert len(done.error_lines) == 1, done
    assert int(done.error_lines[0].split(", ")[-1].split()[0]) > 0, "nothing was there already"
    asked = requested(server, seen)
    assert asked
    assert not committed & asked.keys()
    assert set(asked.values()) == {1}
    assert_copied(tmp_path / "copy")
    assert assert_whole(client.cache, right) == committed | asked.keys()
    # Nothing is left over, in the cache and in the copy.
    assert os.listdir(client.cache / "txn") == os.listdir(client.cache / "running") == []
    assert not list(tmp_path.rglob(".cvmfs-py-part*"))
    assert not (tmp_path / ".copy.cvmfs-py-copy").exists()
    with DirectoryStore(str(client.cache)) as store:
        assert {result.verdict for result in store.check()} == {Verdict.OK}
        assert store.status().objects == len(committed_in(client.cache))

    # The whole cache serves without any server.
    server.stop()
    done = client.run("cp", "-r", f"{FQRN}:/", "again")
    assert done.code == 0, done
    assert_copied(tmp_path / "again")


def test_killed_while_it_reads(tmp_path: Path, repository: Repository, server: SlowServer) -> None:
    """Readers that die leave the cache as it was, at whatever moment."""
    client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
    assert client.run("ls", "-R", FQRN).code == 0
    before = committed_in(client.cache)
    for moment in (0.05, 0.1, 0.15, 0.2, 0.25):
        running = client.start("ls", "-R", FQRN)
        time.sleep(moment)
        running.kill()
    done = client.run("ls", "-R", FQRN)
    assert (done.code, done.errors) == (0, "")
    assert committed_in(client.cache) == before
    assert os.listdir(client.cache / "txn") == []


def test_four_at_once_on_one_cache(tmp_path: Path, repository: Repository, server: SlowServer) -> None:
    client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
    together = [client.start("cp", "-r", f"{FQRN}:/", f"copy{number}") for number in range(4)]
    for number, running in enumerate(together):
        done = running.finish()
        assert done.code == 0, done
        assert len(done.error_lines) == 1, done
        assert_copied(tmp_path / f"copy{number}")
    # Within a process each object is asked for once; processes do not know of each other's downloads under way.
    asked = requested(server)
    right = stored_contents(repository)
    assert max(asked.values()) <= 4
    assert len(asked) < sum(asked.values()) < 4 * len(asked), "they shared nothing, or were not at work together"
    assert assert_whole(client.cache, right) == asked.keys()
    assert os.listdir(client.cache / "txn") == os.listdir(client.cache / "running") == []
    with DirectoryStore(str(client.cache)) as store:
        assert {result.verdict for result in store.check()} == {Verdict.OK}
        assert store.status().objects == len(asked)
    assert all(parse_hash(text) is not None for text in asked)


def test_four_at_once_on_a_cache_that_is_too_small(tmp_path: Path, repository: Repository, server: SlowServer) -> None:
    client = Client(tmp_path, FQRN, [server.url], repository.master_public_key, QUOTA_LIMIT="2")
    server.delay_s = 0
    together = [client.start("cp", "-r", f"{FQRN}:/", f"copy{number}") for number in range(4)]
    for number, running in enumerate(together):
        done = running.finish()
        assert done.code == 0, done
        assert len(done.error_lines) == 1, done
        assert_copied(tmp_path / f"copy{number}")
    right = stored_contents(repository)
    size = sum(len(right[text]) for text in assert_whole(client.cache, right))
    assert size < sum(map(len, right.values())) / 2
    assert os.listdir(client.cache / "txn") == os.listdir(client.cache / "running") == []
