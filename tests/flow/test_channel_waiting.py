"""Requests that wait in the kernel channel, for the repository or an object: brought, given up, or left behind."""

from __future__ import annotations

import errno
import os
import struct
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from cvmfs_py.fuse.channel import Channel
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.wire import Opcode
from cvmfs_py.mount.opening import opened_volume
from cvmfs_py.mount.space import SingleSpace
from cvmfs_py.stats import Stats
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import Inodes
from tests.compat.zoo_goldens import make_document_root
from tests.flow.channel_world import ENTRY_INO, connected, settings_for, talking
from tests.flow.test_channel import READDIR
from tests.simulator.fault_server import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.flow.channel_world import Kernel
    from tests.simulator.fault_server import SeenRequest, Steps

ROOT = 1
READ = struct.pack("<QQIIQII", 0, 0, 4096, 0, 0, 0, 0)
# What a kernel may ask before anybody has looked anything up, and what the answer to it must be.
FIRST: list[tuple[Opcode, bytes, int]] = [
    (Opcode.LOOKUP, b"hello.txt\0", 0),
    (Opcode.LOOKUP, b"absent\0", 0),
    (Opcode.GETATTR, bytes(16), 0),
    (Opcode.READDIR, READDIR.pack(0, 0, 4096, 0, 0, 0, 0), 0),
    (Opcode.READDIRPLUS, READDIR.pack(0, 0, 4096, 0, 0, 0, 0), 0),
    (Opcode.STATFS, b"", 0),
    (Opcode.GETXATTR, struct.pack("<II", 100, 0) + b"user.fqrn\0", 0),
    (Opcode.LISTXATTR, struct.pack("<II", 0, 0), 0),
    (Opcode.READ, READ, errno.EISDIR),
    (Opcode.READLINK, b"", errno.EINVAL),
    (Opcode.MKDIR, bytes(8) + b"new\0", errno.EROFS),
]


class Opening:
    """A channel whose repository is still on its way."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.space = SingleSpace()
        self.channel = Channel(self.space, Failures(self.stats))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.002)


async def ask_first(kernel: Kernel) -> list[int]:
    numbers = [await kernel.send(opcode, ROOT, body) for opcode, body, _ in FIRST]
    await until(lambda: kernel.channel.waiting_count == len(FIRST))
    return numbers


async def test_requests_wait_for_the_repository(tmp_path: Path) -> None:
    opening = Opening()
    settings = await settings_for(tmp_path)
    async with (
        opened_volume(settings, opening.stats, lambda snapshot: RepositoryFiles(Inodes(), snapshot)) as volume,
        connected(opening.channel) as kernel,
    ):
        assert (await kernel.ask(Opcode.OPENDIR, ROOT, bytes(8))).error == errno.ENOSYS  # needs no repository
        assert (await kernel.ask(Opcode.ACCESS, ROOT, bytes(8))).error == errno.ENOSYS
        numbers = await ask_first(kernel)
        await kernel.send(Opcode.FORGET, 77, struct.pack("<Q", 1))
        given_up = await kernel.send(Opcode.LOOKUP, ROOT, b"dirs\0")
        await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", given_up))
        assert (await kernel.reply_to(given_up)).error == errno.EINTR
        assert kernel.channel.waiting_count == len(FIRST)
        assert not kernel.unclaimed
        opening.space.open(volume)
        replies = [await kernel.reply_to(number) for number in numbers]
        assert [reply.error for reply in replies] == [error for _, _, error in FIRST]
        assert replies[6].body == b"zoo.test.org"
        await until(lambda: kernel.channel.waiting_count == 0)
        (ino,) = ENTRY_INO.unpack_from(replies[0].body)
        listed = (await kernel.ask(Opcode.READDIRPLUS, ROOT, READDIR.pack(0, 0, 4096, 0, 0, 0, 0))).body
        assert listed == replies[4].body
        assert (await kernel.read(ino, 0, 100)).body == b"hello, world\n"


async def test_a_repository_that_cannot_be_opened_is_an_error_for_all(caplog: pytest.LogCaptureFixture) -> None:
    opening = Opening()
    async with connected(opening.channel) as kernel:
        numbers = await ask_first(kernel)
        opening.space.fail(OSError("no server answers"))
        for number in numbers:
            assert (await kernel.reply_to(number)).error == errno.EIO
        await until(lambda: kernel.channel.waiting_count == 0)
        for opcode, body, _ in FIRST:
            assert (await kernel.ask(opcode, ROOT, body)).error == errno.EIO
        await kernel.send(Opcode.FORGET, 77, struct.pack("<Q", 1))
    assert all("no server answers" in record.message for record in caplog.records)


async def test_who_waits_when_the_engine_is_stopped_is_told(tmp_path: Path) -> None:
    """The mount may live on without it, where somebody else has the descriptor."""
    opening = Opening()
    async with connected(opening.channel) as kernel:
        numbers = await ask_first(kernel)
        opening.channel.stop()
        for number in numbers:
            assert (await kernel.reply_to(number)).error == errno.ENOTCONN
        assert kernel.channel.waiting_count == 0


class Gate:
    """Serves files, but lets answers about objects go out only while it is open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.is_open = threading.Event()
        self.is_open.set()

    def __call__(self, request: SeenRequest) -> Steps:
        if "/data/" in request.path:
            self.is_open.wait()
        file = self._root / request.path.lstrip("/")
        return answer(200, file.read_bytes()) if file.is_file() else answer(404, b"")


@pytest.mark.parametrize("way", ["brought", "given up", "stopped"])
async def test_a_crowd_waits_for_one_object(tmp_path: Path, way: str) -> None:
    """However it ends: one download, an answer for each, and no task, pin, count or descriptor is left."""
    gate = Gate(make_document_root(tmp_path / "www"))
    before = len(os.listdir("/proc/self/fd"))
    with FaultServer(gate) as server, ExitStack() as held:
        held.callback(gate.is_open.set)
        async with talking(tmp_path, server.url, TIMEOUT_DIRECT="60") as kernel:
            ino = await kernel.look_up("/hello.txt")
            known = kernel.volume.files.inodes.lookups
            server.requests.clear()
            gate.is_open.clear()
            numbers = [await kernel.send(Opcode.READ, ino, READ) for _ in range(40)]
            await until(lambda: kernel.channel.waiting_count == 40)
            await until(lambda: len(server.requests) == 1)
            assert (await kernel.ask(Opcode.GETATTR, ino, bytes(16))).error == 0
            if way == "brought":
                gate.is_open.set()
            elif way == "stopped":
                kernel.channel.stop()
            else:
                for number in reversed(numbers):
                    await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", number))
            expected = {"brought": 0, "given up": errno.EINTR, "stopped": errno.ENOTCONN}[way]
            for number in numbers:
                assert (await kernel.reply_to(number)).error == expected
            await until(lambda: kernel.channel.waiting_count == 0)
            assert len(server.requests) == 1
            assert kernel.volume.files.inodes.lookups == known
            gate.is_open.set()
            if way != "stopped":
                assert (await kernel.read(ino, 0, 100)).body == b"hello, world\n"
                assert len(server.requests) == 1  # the download went on, or had ended
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # trio keeps its own
