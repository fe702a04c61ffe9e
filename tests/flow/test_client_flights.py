"""One process with many readers: what they want at the same time is asked for once, over a few connections."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from cache.address import Algorithm, hash_bytes
from cache.errors import CacheFullError
from cache.pins import Pin
from cache.ref import ObjectRef
from cvmfs_py.errors import FetchError
from cvmfs_py.mount.assemble import Wanted, open_repository
from cvmfs_py.mount.prefetch import read_ahead
from tests.simulator.fault_server import SeenRequest, Silence, Steps, answer
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from pathlib import Path

    from cache.address import ContentHash
    from cvmfs_py.mount.repository import Repository as OpenRepository

FQRN = "test.example.org"
MOST_CONNECTIONS = 16
WANTED = random.Random(1).randbytes(100_000)
MANY = {f"file{number:03d}": b"content %d" % number for number in range(200)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    many = {name: File(content) for name, content in MANY.items()}
    tree = {"wanted": File(WANTED, chunk_sizes=30_000), "many": Directory(many, nested=True)}
    repository.publish(Directory(tree))
    return repository


def wanted(tmp_path: Path, repository: Repository, server: SlowServer, **parameters: str) -> Wanted:
    configuration = tmp_path / "client.conf"
    values = {
        "SERVER_URL": f"{server.url}/cvmfs/{FQRN}",
        "HTTP_PROXY": "DIRECT",
        "PUBLIC_KEY": str(repository.master_public_key),
        "PY_CACHE_DIR": str(tmp_path / "cache"),
        **parameters,
    }
    configuration.write_text("".join(f"CVMFS_{name}='{value}'\n" for name, value in values.items()))
    return Wanted(FQRN, config_files=(configuration,))


async def content_of(repository: OpenRepository, path: bytes) -> bytes:
    located = await repository.resolve(path)
    pieces = []
    async with repository.read_windows(await repository.content_windows(located)) as ready:
        async for pins in ready:
            for pin in pins:
                with pin:
                    pieces.append(pin.read())
    return b"".join(pieces)


async def test_fifty_readers_of_one_file_are_one_request(tmp_path: Path, repository: Repository) -> None:
    with SlowServer(repository.document_root, delay_s=0.05) as server:
        async with open_repository(wanted(tmp_path, repository, server)) as opened:
            before = len(server.requests)
            read: list[bytes] = []

            async def reader() -> None:
                read.append(await content_of(opened, b"/wanted"))

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(reader)
            assert read == [WANTED] * 50
            assert sorted(server.counted(before).values()) == [1, 1, 1, 1]  # its four chunks
        assert set(server.counted().values()) == {1}


async def test_never_more_than_sixteen_connections(tmp_path: Path, repository: Repository) -> None:
    with SlowServer(repository.document_root, delay_s=0.005) as server:
        async with open_repository(wanted(tmp_path, repository, server)) as opened:
            read: dict[str, bytes] = {}

            async def reader(name: str) -> None:
                read[name] = await content_of(opened, b"/many/" + name.encode())

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for name in MANY:
                        nursery.start_soon(reader, name)
            assert read == MANY
        assert server.most_connections == MOST_CONNECTIONS
        assert set(server.counted().values()) == {1}


async def test_readers_of_what_is_missing_share_the_answer(tmp_path: Path, repository: Repository) -> None:
    class Lacking(SlowServer):
        """Has no chunks."""

        def _serve_file(self, request: SeenRequest) -> Steps:
            return answer(404) if request.path.endswith("P") else super()._serve_file(request)

    with Lacking(repository.document_root, delay_s=0.02) as server:
        async with open_repository(wanted(tmp_path, repository, server)) as opened:
            messages: Counter[str] = Counter()

            async def reader() -> None:
                try:
                    await content_of(opened, b"/wanted")
                except FetchError as error:
                    messages[str(error)] += 1

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(reader)
            assert sum(messages.values()) == 50
            assert all("HTTP 404" in message for message in messages)
        assert max(server.counted().values()) == 1


async def test_a_reader_that_leaves_does_not_take_the_download_along(tmp_path: Path, repository: Repository) -> None:
    with SlowServer(repository.document_root, delay_s=0.1) as server:
        async with open_repository(wanted(tmp_path, repository, server)) as opened:
            located = await opened.resolve(b"/wanted")
            before = len(server.requests)
            with trio.move_on_after(0.03):
                await content_of(opened, b"/wanted")
            with trio.fail_after(10):
                assert await content_of(opened, b"/wanted") == WANTED
            assert located.entry.size == len(WANTED)
            assert set(server.counted(before).values()) == {1}


async def test_leaving_does_not_wait_for_a_silent_server(tmp_path: Path, repository: Repository) -> None:
    class Falling(SlowServer):
        """Falls silent when it is asked for a chunk."""

        def _serve_file(self, request: SeenRequest) -> Steps:
            return Silence() if request.path.endswith("P") else super()._serve_file(request)

    with Falling(repository.document_root) as server, trio.fail_after(5):
        async with open_repository(wanted(tmp_path, repository, server, TIMEOUT_DIRECT="1000")) as opened:
            with trio.move_on_after(0.2) as scope:
                await content_of(opened, b"/wanted")
            assert scope.cancelled_caught
    assert not list((tmp_path / "cache" / "txn").iterdir())


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_an_error_ahead_of_the_reader_is_never_lost(position: int) -> None:
    """Whatever order the tasks run in, which is random within one turn of the event loop."""
    ref = ObjectRef(hash_bytes(Algorithm.SHA1, b"x"))
    windows: list[tuple[ObjectRef, ...]] = [()] * position + [(ref,)]

    async def pin(refs: tuple[ObjectRef, ...]) -> list[Pin]:
        await trio.lowlevel.checkpoint()
        if refs:
            raise FetchError("lost")
        return []

    async def read() -> None:
        async with read_ahead(windows, pin) as ready:
            async for pins in ready:
                assert pins == []

    for _ in range(60):
        with pytest.raises(FetchError, match="lost"), trio.fail_after(5):
            await read()


async def test_what_does_not_fit_at_once_comes_one_by_one() -> None:
    refs = [ObjectRef(hash_bytes(Algorithm.SHA1, b"%d" % number)) for number in range(5)]
    windows = [tuple(refs[:2]), tuple(refs[2:4]), tuple(refs[4:])]
    room = 1

    async def pin(wanted: tuple[ObjectRef, ...]) -> list[Pin]:
        nonlocal room
        await trio.lowlevel.checkpoint()
        if len(wanted) > room:
            raise CacheFullError("no room")
        room -= len(wanted)
        return [Pin(os.open(os.devnull, os.O_RDONLY), 0, ref.content_hash, None, let_go) for ref in wanted]

    def let_go() -> None:
        nonlocal room
        room += 1

    got: list[ContentHash] = []
    with trio.fail_after(10):
        async with read_ahead(windows, pin) as ready:
            async for pins in ready:
                await trio.sleep(0.01)
                for each in pins:
                    got.append(each.content_hash)
                    each.close()
    assert got == [ref.content_hash for ref in refs]
    assert room == 1
