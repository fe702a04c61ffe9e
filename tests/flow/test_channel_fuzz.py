"""Messages that no kernel sends, among those that one does: nothing ends the channel, nothing is left of them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_py.fuse.wire import UNANSWERED, Opcode
from tests.flow.channel_world import ENTRY_INO, HEADER, OFFER, talking
from tests.flow.test_channel import READDIR, records
from tests.flow.test_channel_messages import ANSWERS
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flow.channel_world import Kernel, Reply

ROOT = 1
CONTENT = bytes(range(256)) * 40
FIRST_UNIQUE = 1 << 40  # far from those of proper requests
FORGETS = (Opcode.FORGET, Opcode.BATCH_FORGET)
TREE = Directory(
    {
        "file": File(b"what is in the file\n"),
        "big": File(CONTENT, chunk_sizes=1000),
        "link": Symlink("file"),
        "dir": Directory({f"{number:03}": File(b"%d" % number) for number in range(40)}),
        "nested": Directory({"inner": File(b"inner"), "n" * 255: File(b"long")}, nested=True),
    }
)


class Message(NamedTuple):
    """A request, and what is wrong with it."""

    opcode: int
    ino: int
    body: bytes
    length_error: int = 0
    flips: tuple[tuple[int, int], ...] = ()  # places and what is changed there, modulo the length
    cut: int = 0  # bytes that are missing at the end

    def pack(self, unique: int) -> bytes:
        length = max(0, HEADER.size + len(self.body) + self.length_error)
        message = bytearray(HEADER.pack(length, self.opcode, unique, self.ino, 0, 0, os.getpid(), 0, 0) + self.body)
        for place, change in self.flips:
            place %= len(message)
            if not 8 <= place < 16:  # the number has to stay one that nobody else has
                message[place] ^= change
        return bytes(message[: len(message) - self.cut] or message[:1])


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 5, 9, 255, 4096, 1 << 31, 1 << 32, 1 << 33, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
)
INODES = st.one_of(st.just(ROOT), st.integers(2, 12), st.integers(0, 60), NUMBERS)
OFFSETS = st.one_of(st.integers(0, 70), NUMBERS)
SIZES = st.sampled_from([0, 1, 31, 32, 159, 160, 500, 4096, 1 << 17, 1 << 20, (1 << 32) - 1])
NAMES = st.sampled_from(
    [
        b"file",
        b"dir",
        b"nested",
        b"absent",
        b"000",
        b"inner",
        b".",
        b"..",
        b"a/b",
        b"/",
        b"n" * 255,
        b"n" * 256,
        b"\xff",
    ]
)
PROPER = st.one_of(
    st.sampled_from(sorted(ANSWERS)).flatmap(
        lambda opcode: INODES.map(lambda ino: Message(opcode, ino, ANSWERS[opcode][0]))
    ),
    st.builds(lambda ino, name: Message(Opcode.LOOKUP, ino, name + b"\0"), INODES, NAMES),
    st.builds(
        lambda opcode, ino, offset, size: Message(opcode, ino, READDIR.pack(0, offset, size, 0, 0, 0, 0)),
        st.sampled_from([Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS]),
        INODES,
        OFFSETS,
        SIZES,
    ),
    st.builds(lambda ino, count: Message(Opcode.FORGET, ino, struct.pack("<Q", count)), INODES, NUMBERS),
    st.builds(
        lambda forgets: Message(
            Opcode.BATCH_FORGET,
            0,
            struct.pack("<II", len(forgets), 0) + b"".join(struct.pack("<QQ", *forget) for forget in forgets),
        ),
        st.lists(st.tuples(INODES, NUMBERS), max_size=20),
    ),
    st.builds(
        lambda number: Message(Opcode.INTERRUPT, 0, struct.pack("<Q", FIRST_UNIQUE + number)), st.integers(0, 30)
    ),
    st.builds(
        lambda ino, size, name: Message(Opcode.GETXATTR, ino, struct.pack("<II", size, 0) + b"user." + name + b"\0"),
        INODES,
        SIZES,
        st.sampled_from([b"hash", b"chunk_list", b"fqrn", b"rawlink", b"pid", b"", b"x" * 300]),
    ),
    st.just(Message(Opcode.INIT, 0, OFFER)),
)
FLIPS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=3).map(tuple)
DAMAGED = st.builds(
    lambda message, flips, cut, error: message._replace(flips=flips, cut=cut, length_error=error),
    PROPER,
    FLIPS,
    st.sampled_from([0, 0, 0, 1, 4, 8, 40, 60]),
    st.sampled_from([0, 0, 0, -1, 1, 8, -40, 1 << 20]),
)
STEPS = st.lists(
    st.one_of(PROPER, DAMAGED, st.binary(min_size=1, max_size=100), st.just("evict"), st.just("notice")),
    min_size=1,
    max_size=25,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    published = Published.create(tmp_path_factory.mktemp("published"))
    published.publish(TREE)
    return published


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache is kept from one example to the next, unless that throws it away."""
    return tmp_path_factory.mktemp("client")


def count_lookups(opcode: int, reply: Reply) -> int:
    """What the kernel knows of after this answer."""
    if reply.error:
        return 0
    if opcode == Opcode.LOOKUP:
        return int(ENTRY_INO.unpack_from(reply.body)[0] != 0)
    if opcode == Opcode.READDIRPLUS:
        return sum(name not in (b".", b"..") for name, _, _ in records(reply.body, plus=True))
    return 0


async def settle(kernel: Kernel) -> None:
    """Until nothing waits any more."""
    with trio.fail_after(60):
        while kernel.channel.waiting_count:
            assert (await kernel.ask(Opcode.STATFS, ROOT)).error == 0
    assert (await kernel.ask(Opcode.STATFS, ROOT)).error == 0


async def send_all(kernel: Kernel, steps: list[Message | bytes | str]) -> list[int]:
    """The opcodes of the messages in the order of their numbers, as they may have arrived."""
    sent = []
    for step in steps:
        if step == "evict":
            kernel.volume.finder.store.cleanup(0)
            continue
        if step == "notice":
            kernel.channel.revision_changed(kernel.volume.files.root)
            continue
        assert not isinstance(step, str)
        unique = FIRST_UNIQUE + len(sent)
        if isinstance(step, Message):
            message = step.pack(unique)
        else:  # with a number that nobody else has, as far as it has one
            message = (step[:8] + struct.pack("<Q", unique) + step[16:])[: len(step)]
        sent.append(struct.unpack_from("<II", message.ljust(8, b"\0"))[1])
        await kernel.send_raw(message)
    return sent


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, is_forgetful=st.booleans())
def test_whatever_comes(
    published: Published, directory: Path, steps: list[Message | bytes | str], is_forgetful: bool
) -> None:
    if not is_forgetful:  # what the kernel knows of can be counted then
        steps = [step for step in steps if not (isinstance(step, Message) and step.opcode in FORGETS)]

    async def talk() -> None:
        async with talking(directory, published=published) as kernel:
            inodes = kernel.volume.files.inodes
            assert (await kernel.ask(Opcode.STATFS, ROOT)).error == 0
            living = trio.lowlevel.current_statistics().tasks_living
            sent = await send_all(kernel, steps)
            await settle(kernel)
            lookups = 0
            for reply in kernel.unclaimed:
                number = reply.unique - FIRST_UNIQUE
                if 0 <= number < len(sent):
                    assert sent[number] not in UNANSWERED
                    assert 0 <= reply.error < 512
                    lookups += count_lookups(sent[number], reply)
            if not any(opcode in FORGETS for opcode in sent):
                assert inodes.lookups == lookups
            # Whatever that was, what is asked now is answered rightly.
            file, big = await kernel.look_up("/file"), await kernel.look_up("/big")
            assert (await kernel.read(file, 0, 100)).body == b"what is in the file\n"
            assert (await kernel.read(big, 990, 3000)).body == CONTENT[990:3990]
            ino = await kernel.look_up("/dir")
            reply = await kernel.ask(Opcode.READDIRPLUS, ino, READDIR.pack(0, 0, 1 << 20, 0, 0, 0, 0))
            assert len(records(reply.body, plus=True)) == 42
            await settle(kernel)
            with trio.fail_after(60):
                while trio.lowlevel.current_statistics().tasks_living > living:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.001)

    trio.run(talk)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_an_end_at_any_moment(published: Published, directory: Path, steps: list[Message | bytes | str]) -> None:
    """The mount ends while anything may be under way."""
    before = set(os.listdir("/proc/self/fd"))

    async def talk() -> None:
        async with talking(directory, published=published) as kernel:
            kernel.volume.finder.store.cleanup(0)
            await send_all(kernel, steps)
            kernel.channel.stop()
            with trio.fail_after(60):
                while kernel.channel.waiting_count:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.001)

    trio.run(talk)
    assert set(os.listdir("/proc/self/fd")) <= before
