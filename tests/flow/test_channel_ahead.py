"""What the kernel channel does before it is asked: for walks through directories, and for files read one by one.

Whatever it guesses, nothing else is ever read or listed than without, and nothing of it is left behind.
"""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from cvmfs_py.fuse.wire import Opcode
from tests.flow.channel_world import ENTRY_INO, talking
from tests.flow.test_channel import READDIR, records
from tests.flow.test_channel_waiting import Gate, until
from tests.simulator.fault_server import FaultServer
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flow.channel_world import Kernel
    from tests.simulator.tree import Node

ROOT = 1
DIRECTORIES = 6
FILES = 30


def content_of(directory: int, number: int) -> bytes:
    return b"%d in %d;" % (number, directory) * (number + 1)


def tree() -> Directory:
    def directory(number: int) -> Directory:
        entries: dict[str, Node] = {f"f{n:02}": File(content_of(number, n)) for n in range(FILES)}
        entries |= {"empty": File(b""), "link": Symlink("f00"), "chunked": File(b"0123456789", chunk_sizes=4)}
        below = Directory({f"g{n}": File(b"g%d" % n) for n in range(3)})
        return Directory(entries | {"below": below}, nested=number % 2 == 1)

    return Directory({f"d{number}": directory(number) for number in range(DIRECTORIES)})


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published.create(tmp_path / "published")
    published.publish(tree())
    return published


async def list_directory(kernel: Kernel, ino: int, room_bytes: int = 32768) -> dict[bytes, int]:
    """The names in a directory, with their inodes."""
    found: dict[bytes, int] = {}
    offset = 0
    while True:
        body = READDIR.pack(0, offset, room_bytes, 0, 0, 0, 0)
        reply = await kernel.ask(Opcode.READDIRPLUS, ino, body)
        assert reply.error == 0
        if not reply.body:
            return found
        part = records(reply.body, plus=True)
        offset = part[-1][2]
        for name, child, _ in part:
            if name not in (b".", b".."):
                assert name not in found
                found[name] = child


async def walk(kernel: Kernel, room_bytes: int, order: random.Random | None = None) -> dict[bytes, int]:
    """Every path with its inode."""
    found = {}
    pending = [(ROOT, b"")]
    while pending:
        if order is not None:
            order.shuffle(pending)
        ino, path = pending.pop()
        for name, child in (await list_directory(kernel, ino, room_bytes)).items():
            found[path + b"/" + name] = child
            if name == b"below" or name.startswith(b"d"):
                pending.append((child, path + b"/" + name))
    return found


@pytest.mark.parametrize("room_bytes", [700, 32768, 1 << 20])
async def test_walks_see_the_same_in_any_order(tmp_path: Path, published: Published, room_bytes: int) -> None:
    async with talking(tmp_path, published=published) as kernel:
        first = await walk(kernel, room_bytes)
        assert len(first) == DIRECTORIES * (1 + FILES + 4 + 3) + DIRECTORIES // 2  # and the markers of nested catalogs
        known = kernel.volume.files.inodes.lookups
        assert known == len(first)
        for seed in range(4):
            assert await walk(kernel, room_bytes, random.Random(seed)) == first
        # What was prepared and never asked for is known to nobody.
        assert kernel.volume.files.inodes.lookups == 5 * known


async def test_a_walk_fetches_the_catalogs_ahead(tmp_path: Path, published: Published) -> None:
    def catalogs() -> int:
        return sum(request.path.endswith("C") for request in server.requests)

    with FaultServer(Gate(published.document_root)) as server:
        async with talking(tmp_path, server.url, published=published) as kernel:
            top = await list_directory(kernel, ROOT)
            assert catalogs() == 1
            await list_directory(kernel, top[b"d0"])
            # Next are what is below, d1, d2 and d3; two of them have catalogs of their own.
            await until(lambda: catalogs() == 3)
            await list_directory(kernel, top[b"d1"])
            await list_directory(kernel, top[b"d3"])
            assert catalogs() <= 4  # d5 may be on its way


def objects_of(server: FaultServer) -> list[str]:
    """What was asked for that is no catalog."""
    paths = [request.path for request in server.requests]
    return [path for path in paths if "/data/" in path and path[-1] not in "CX"]


async def read_in(kernel: Kernel, directory: int, names: list[bytes]) -> None:
    top = await list_directory(kernel, ROOT)
    files = await list_directory(kernel, top[b"d%d" % directory])
    for name in names:
        reply = await kernel.read(files[name], 0, 4096)
        assert reply.body == content_of(directory, int(name[1:]))


async def test_files_read_in_order_are_fetched_ahead(tmp_path: Path, published: Published) -> None:
    with FaultServer(Gate(published.document_root)) as server:
        async with talking(tmp_path, server.url, published=published) as kernel:
            names = [b"f%02d" % number for number in range(FILES)]
            top = await list_directory(kernel, ROOT)
            await list_directory(kernel, top[b"d2"])
            await read_in(kernel, 2, names[:2])
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(objects_of(server)) == 2
            await read_in(kernel, 2, names[2:8])
            await until(lambda: len(objects_of(server)) > 10)
            await read_in(kernel, 2, names[8:])
            await trio.testing.wait_all_tasks_blocked(0.05)
            paths = objects_of(server)
            assert len(paths) == len(set(paths)) == FILES  # each once, and nothing else


async def test_files_read_in_no_order_bring_no_others(tmp_path: Path, published: Published) -> None:
    with FaultServer(Gate(published.document_root)) as server:
        async with talking(tmp_path, server.url, published=published) as kernel:
            top = await list_directory(kernel, ROOT)
            await list_directory(kernel, top[b"d2"])
            names = [b"f%02d" % (number * 11 % FILES) for number in range(FILES // 2)]
            await read_in(kernel, 2, names)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(objects_of(server)) == len(names)


@pytest.mark.parametrize("step", [3, 4, 8])
async def test_who_leaves_files_out_gets_no_others(tmp_path: Path, published: Published, step: int) -> None:
    with FaultServer(Gate(published.document_root)) as server:
        async with talking(tmp_path, server.url, published=published) as kernel:
            names = [b"f%02d" % number for number in range(0, FILES, step)]
            await read_in(kernel, 2, names)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(objects_of(server)) == len(names)


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_opened_ahead_is_what_is_read(tmp_path: Path, published: Published, seed: int) -> None:
    """Runs of files with leaps between them, by several programs at once, in pieces of any size."""
    chance = random.Random(seed)
    before = len(os.listdir("/proc/self/fd"))
    async with talking(tmp_path, published=published) as kernel:
        found = await walk(kernel, 32768)
        paths = sorted(path for path in found if b"/f" in path)
        for _ in range(60):
            process = chance.choice((7, 8, 9, *range(100, 120)))
            start = chance.randrange(len(paths))
            for path in paths[start : start + chance.randrange(1, 12)]:
                whole = content_of(int(path[2:3]), int(path[-2:]))
                size_bytes = chance.choice((4096, 4096, 16, 1))
                body = struct.pack("<QQIIQII", 0, 0, size_bytes, 0, 0, 0, 0)
                reply = await kernel.ask(Opcode.READ, found[path], body, process)
                assert reply.body == whole[:size_bytes]
        opened = kernel.volume.finder.store.status().pinned_bytes
        assert opened > 0  # some is open ahead
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # trio keeps its own


async def test_an_object_that_vanishes_after_it_was_opened_ahead(tmp_path: Path, published: Published) -> None:
    async with talking(tmp_path, published=published) as kernel:
        found = await walk(kernel, 32768)
        for number in range(5):
            await kernel.read(found[b"/d2/f%02d" % number], 0, 4096)
        for entry in list(kernel.volume.finder.store.entries()):
            kernel.volume.finder.store.discard(entry.content_hash)
        for number in range(5, FILES):
            assert (await kernel.read(found[b"/d2/f%02d" % number], 0, 4096)).body == content_of(2, number)
        (ino,) = ENTRY_INO.unpack_from((await kernel.ask(Opcode.LOOKUP, found[b"/d2"], b"f07\0")).body)
        assert ino == found[b"/d2/f07"]
