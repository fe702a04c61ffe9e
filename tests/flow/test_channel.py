"""The kernel channel, message by message: what is answered at once, what waits, what is counted; nothing ends it."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_py.fuse.wire import Opcode
from tests.compat.zoo_goldens import make_document_root
from tests.flow.channel_world import ENTRY_INO, HEADER, talking
from tests.simulator.fault_server import FaultServer, Silence, answer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.simulator.fault_server import SeenRequest, Steps

ATTR_MODE = struct.Struct("<I")
READDIR = struct.Struct("<QQIIQII")
DIRENT = struct.Struct("<QQII")


def records(body: bytes, *, plus: bool) -> list[tuple[bytes, int, int]]:
    """The names of a listing with their inodes, and where it goes on after each."""
    found = []
    position = 0
    while position < len(body):
        position += 128 if plus else 0
        ino, offset, size, _ = DIRENT.unpack_from(body, position)
        found.append((body[position + DIRENT.size : position + DIRENT.size + size], ino, offset))
        position += DIRENT.size + (size + 7) // 8 * 8
    return found


async def test_every_entry_is_listed_once_whatever_fits(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        ino = await kernel.look_up("/dirs/many")
        for opcode, plus, room in (
            (Opcode.READDIR, False, 4096),
            (Opcode.READDIR, False, 1 << 20),
            (Opcode.READDIRPLUS, True, 512),
            (Opcode.READDIRPLUS, True, 4096),
            (Opcode.READDIRPLUS, True, 1 << 20),
        ):
            names, offset = [], 0
            while True:
                reply = await kernel.ask(opcode, ino, READDIR.pack(0, offset, room, 0, 0, 0, 0))
                assert reply.error == 0
                assert len(reply.body) <= room
                if not reply.body:
                    break
                found = records(reply.body, plus=plus)
                names += [name for name, _, _ in found]
                offset = found[-1][2]
            assert names[:2] == [b".", b".."]
            assert len(names) == len(set(names)) == 3002


async def test_what_the_kernel_knows_of_is_counted(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        inodes = kernel.volume.files.inodes
        ino = await kernel.look_up("/dirs/many")
        assert inodes.lookups == 2
        reply = await kernel.ask(Opcode.LOOKUP, ino, b"missing\0")
        assert (reply.error, ENTRY_INO.unpack_from(reply.body)[0]) == (0, 0)
        assert inodes.lookups == 2
        reply = await kernel.ask(Opcode.READDIRPLUS, ino, READDIR.pack(0, 0, 4096, 0, 0, 0, 0))
        listed = len(records(reply.body, plus=True)) - 2
        assert inodes.lookups == 2 + listed
        await kernel.ask(Opcode.READDIR, ino, READDIR.pack(0, 0, 4096, 0, 0, 0, 0))
        assert inodes.lookups == 2 + listed
        await kernel.send(Opcode.FORGET, ino, struct.pack("<Q", 1))
        seen = [number for _, number, _ in records(reply.body, plus=True)[2:]]
        forgets = b"".join(struct.pack("<QQ", number, 1) for number in seen)
        await kernel.send(Opcode.BATCH_FORGET, 0, struct.pack("<II", len(seen), 0) + forgets)
        await kernel.ask(Opcode.STATFS, 1)
        assert inodes.lookups == 1


async def test_answers_are_those_of_a_file_system(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        ino = await kernel.look_up("/hello.txt")
        directory = await kernel.look_up("/dirs")
        assert (await kernel.read(ino, 0, 4096)).body == b"hello, world\n"
        assert (await kernel.read(ino, 7, 3)).body == b"wor"
        assert (await kernel.read(ino, 13, 10)).body == b""
        assert (await kernel.read(ino, (1 << 63) - 1, 10)).body == b""
        assert (await kernel.read(ino, 0, 0)).body == b""
        assert (await kernel.read(directory, 0, 10)).error == errno.EISDIR
        reply = await kernel.ask(Opcode.GETATTR, ino, bytes(16))
        (mode,) = ATTR_MODE.unpack_from(reply.body, 16 + 60)
        assert stat.S_ISREG(mode)
        for unknown in (0, 1 << 40, (1 << 64) - 1):
            assert (await kernel.ask(Opcode.GETATTR, unknown, bytes(16))).error == errno.ESTALE
        assert (await kernel.ask(Opcode.LOOKUP, 1, b"x" * 256 + b"\0")).error == errno.ENAMETOOLONG
        assert (await kernel.ask(Opcode.LOOKUP, ino, b"below\0")).error == errno.ENOTDIR
        assert (await kernel.ask(Opcode.READLINK, ino)).error == errno.EINVAL
        assert (
            await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", 0, 0) + b"user.none\0")
        ).error == errno.ENODATA
        reply = await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", 100, 0) + b"user.fqrn\0")
        assert reply.body == b"zoo.test.org"
        assert (await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", 3, 0) + b"user.fqrn\0")).error == errno.ERANGE
        for opcode in (Opcode.MKDIR, Opcode.UNLINK, Opcode.SETATTR, Opcode.WRITE):
            assert (await kernel.ask(opcode, ino, bytes(8))).error == errno.EROFS
        for opcode in (Opcode.ACCESS, Opcode.FLUSH, Opcode.OPEN, Opcode.OPENDIR, Opcode.POLL):
            assert (await kernel.ask(opcode, ino, bytes(24))).error == errno.ENOSYS
        assert (await kernel.ask(Opcode.IOCTL, ino, bytes(32))).error == errno.ENOTTY


class Holding:
    """Serves the fixture, but is silent about the objects that are asked for while it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_holding = False

    def __call__(self, request: SeenRequest) -> Steps:
        if self.is_holding and "/data/" in request.path:
            return Silence()
        file = self.root / request.path.lstrip("/")
        return answer(200, file.read_bytes()) if file.is_file() else answer(404, b"")


async def test_who_waits_holds_up_nobody_and_can_be_interrupted(tmp_path: Path) -> None:
    script = Holding(make_document_root(tmp_path / "www"))
    with FaultServer(script) as server:
        async with talking(tmp_path, server.url, TIMEOUT_DIRECT="60") as kernel:
            ino = await kernel.look_up("/hello.txt")
            script.is_holding = True
            body = struct.pack("<QQIIQII", 0, 0, 4096, 0, 0, 0, 0)
            first = await kernel.send(Opcode.READ, ino, body)
            second = await kernel.send(Opcode.READ, ino, body)
            assert (await kernel.ask(Opcode.GETATTR, ino, bytes(16))).error == 0
            assert kernel.channel.waiting_count == 2
            await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", first))
            assert (await kernel.reply_to(first)).error == errno.EINTR
            assert kernel.channel.waiting_count == 1
            await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", first))  # it was answered: nothing happens
            assert (await kernel.ask(Opcode.STATFS, 1)).error == 0
            await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", second))
            assert (await kernel.reply_to(second)).error == errno.EINTR


async def test_a_storm_of_requests_leaves_others_their_turn(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            numbers = [await kernel.send(Opcode.GETATTR, 1, bytes(16)) for _ in range(500)]
            for number in numbers:
                assert (await kernel.reply_to(number)).error == 0
            nursery.cancel_scope.cancel()
        assert turns > 5


async def test_a_mount_that_ends_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with talking(tmp_path) as kernel:
        ino = await kernel.look_up("/hello.txt")
        assert (await kernel.read(ino, 0, 10)).error == 0
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # trio keeps its own


NUMBERS = st.sampled_from([0, 1, 2, 7, 255, 256, 4096, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
BODIES = st.one_of(
    st.binary(max_size=80),
    st.lists(NUMBERS, max_size=8).map(lambda numbers: b"".join(struct.pack("<Q", number) for number in numbers)),
    st.sampled_from([b"hello.txt\0", b"dirs\0", b"\0", b"x" * 300 + b"\0", b"a\0b\0", bytes(8) + b"user.hash\0"]),
)
MESSAGES = st.tuples(st.sampled_from([*map(int, Opcode), 0, 60, 4096]), NUMBERS, BODIES, st.integers(-3, 3))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=12), garbage=st.binary(min_size=1, max_size=60))
def test_no_message_ends_it(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[int, int, bytes, int]], garbage: bytes
) -> None:
    """Whatever comes, the next proper request is answered properly, and nothing waits for ever."""

    async def talk() -> None:
        async with talking(tmp_path_factory.mktemp("talk")) as kernel:
            for number, (opcode, ino, body, error) in enumerate(messages):
                if opcode == Opcode.INIT:
                    continue  # comes once; a second one is a test of its own
                length = max(0, HEADER.size + len(body) + error)
                await kernel.send_raw(HEADER.pack(length, opcode, 10_000 + number, ino, 0, 0, 1, 0, 0) + body)
            await kernel.send_raw(garbage)
            reply = await kernel.ask(Opcode.GETATTR, 1, bytes(16))
            assert reply.error == 0
            ino = await kernel.look_up("/hello.txt")
            assert (await kernel.read(ino, 0, 100)).body == b"hello, world\n"
            with trio.fail_after(60):
                while kernel.channel.waiting_count:
                    await kernel.ask(Opcode.STATFS, 1)

    trio.run(talk)


async def test_beginning_twice_changes_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        reply = await kernel.ask(Opcode.INIT, 0, struct.pack("<IIII", 7, 31, 1 << 17, 0))
        assert reply.error == 0
        assert (await kernel.ask(Opcode.GETATTR, 1, bytes(16))).error == 0
