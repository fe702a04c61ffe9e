"""Every operation of the protocol over the kernel channel, with the oddest arguments that a kernel may have."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from cvmfs_py.fuse.wire import UNANSWERED, InitFlag, Opcode
from cvmfs_py.fuse.wire_init import WANTED_FLAGS, Wishes
from tests.flow.channel_world import ENTRY_INO, OFFER, talking
from tests.flow.test_channel import READDIR, records

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flow.channel_world import Kernel

ROOT = 1
NAME = b"hello.txt\0"
ROOM = struct.pack("<II", 4096, 0)
READ = struct.pack("<QQIIQII", 0, 0, 4096, 0, 0, 0, 0)
HANDLE = bytes(24)

# What the kernel is told for a proper request about a regular file; None: nothing at all.
ANSWERS: dict[Opcode, tuple[bytes, int | None]] = {
    Opcode.LOOKUP: (NAME, errno.ENOTDIR),
    Opcode.FORGET: (struct.pack("<Q", 1), None),
    Opcode.GETATTR: (bytes(16), 0),
    Opcode.SETATTR: (bytes(88), errno.EROFS),
    Opcode.READLINK: (b"", errno.EINVAL),
    Opcode.SYMLINK: (NAME + NAME, errno.EROFS),
    Opcode.MKNOD: (bytes(16) + NAME, errno.EROFS),
    Opcode.MKDIR: (bytes(8) + NAME, errno.EROFS),
    Opcode.UNLINK: (NAME, errno.EROFS),
    Opcode.RMDIR: (NAME, errno.EROFS),
    Opcode.RENAME: (bytes(8) + NAME + NAME, errno.EROFS),
    Opcode.LINK: (bytes(8) + NAME, errno.EROFS),
    Opcode.OPEN: (bytes(8), errno.ENOSYS),
    Opcode.READ: (READ, 0),
    Opcode.WRITE: (bytes(40) + b"x", errno.EROFS),
    Opcode.STATFS: (b"", 0),
    Opcode.RELEASE: (HANDLE, 0),
    Opcode.FSYNC: (bytes(16), errno.ENOSYS),
    Opcode.SETXATTR: (bytes(8) + b"user.x\0y", errno.EROFS),
    Opcode.GETXATTR: (ROOM + b"user.fqrn\0", 0),
    Opcode.LISTXATTR: (ROOM, 0),
    Opcode.REMOVEXATTR: (b"user.x\0", errno.EROFS),
    Opcode.FLUSH: (HANDLE, errno.ENOSYS),
    Opcode.INIT: (OFFER, 0),
    Opcode.OPENDIR: (bytes(8), errno.ENOSYS),
    Opcode.READDIR: (READ, errno.ENOTDIR),
    Opcode.RELEASEDIR: (HANDLE, 0),
    Opcode.FSYNCDIR: (bytes(16), errno.ENOSYS),
    Opcode.GETLK: (bytes(48), errno.ENOSYS),
    Opcode.SETLK: (bytes(48), errno.ENOSYS),
    Opcode.SETLKW: (bytes(48), errno.ENOSYS),
    Opcode.ACCESS: (bytes(8), errno.ENOSYS),
    Opcode.CREATE: (bytes(16) + NAME, errno.EROFS),
    Opcode.INTERRUPT: (struct.pack("<Q", 1), None),
    Opcode.BMAP: (bytes(16), errno.ENOSYS),
    Opcode.DESTROY: (b"", 0),
    Opcode.IOCTL: (bytes(32), errno.ENOTTY),
    Opcode.POLL: (HANDLE, errno.ENOSYS),
    Opcode.NOTIFY_REPLY: (bytes(40), None),
    Opcode.BATCH_FORGET: (bytes(8), None),
    Opcode.FALLOCATE: (bytes(32), errno.EROFS),
    Opcode.READDIRPLUS: (READ, errno.ENOTDIR),
    Opcode.RENAME2: (bytes(16) + NAME + NAME, errno.EROFS),
    Opcode.LSEEK: (HANDLE, errno.ENOSYS),
    Opcode.COPY_FILE_RANGE: (bytes(56), errno.ENOSYS),
    Opcode.SETUPMAPPING: (bytes(40), errno.ENOSYS),
    Opcode.REMOVEMAPPING: (bytes(8), errno.ENOSYS),
    Opcode.SYNCFS: (bytes(8), errno.ENOSYS),
    Opcode.TMPFILE: (bytes(16) + NAME, errno.EROFS),
    Opcode.STATX: (HANDLE, errno.ENOSYS),
    Opcode.COPY_FILE_RANGE_64: (bytes(56), errno.ENOSYS),
}


async def test_every_operation_is_answered_as_the_kernel_expects_it(tmp_path: Path) -> None:
    assert set(ANSWERS) == set(Opcode)
    async with talking(tmp_path) as kernel:
        ino = await kernel.look_up("/hello.txt")
        for opcode, (body, expected) in ANSWERS.items():
            if expected is None:
                assert opcode in UNANSWERED
                await kernel.send(opcode, ino, body)
            else:
                assert (await kernel.ask(opcode, ino, body)).error == expected, opcode.name
        assert (await kernel.ask(Opcode.STATFS, ROOT)).error == 0
        assert not kernel.unclaimed


async def test_every_operation_of_an_unknown_inode(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        for ino in (0, 2, 12345, 1 << 32, 1 << 63, (1 << 64) - 1):
            for opcode in (
                Opcode.LOOKUP,
                Opcode.GETATTR,
                Opcode.READ,
                Opcode.READLINK,
                Opcode.READDIR,
                Opcode.READDIRPLUS,
                Opcode.GETXATTR,
                Opcode.LISTXATTR,
            ):
                assert (await kernel.ask(opcode, ino, ANSWERS[opcode][0])).error == errno.ESTALE, (opcode.name, ino)
            for opcode in UNANSWERED:
                await kernel.send(opcode, ino, ANSWERS[opcode][0])
        assert (await kernel.ask(Opcode.GETATTR, ROOT, bytes(16))).error == 0
        assert not kernel.unclaimed
        assert kernel.volume.files.inodes.lookups == 0


async def test_names_of_every_length(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        for size in (1, 254, 255):
            reply = await kernel.ask(Opcode.LOOKUP, ROOT, b"n" * size + b"\0")
            assert (reply.error, ENTRY_INO.unpack_from(reply.body)[0]) == (0, 0)
        for size in (256, 257, 4000):
            assert (await kernel.ask(Opcode.LOOKUP, ROOT, b"n" * size + b"\0")).error == errno.ENAMETOOLONG
        assert kernel.volume.files.inodes.lookups == 0


async def every_inode(kernel: Kernel) -> dict[bytes, int]:
    """Of everything in the fixture repository."""
    found = {b"": ROOT}
    waiting = [(b"", ROOT)]
    while waiting:
        path, ino = waiting.pop()
        offset = 0
        while True:
            reply = await kernel.ask(Opcode.READDIRPLUS, ino, READDIR.pack(0, offset, 1 << 20, 0, 0, 0, 0))
            if reply.error == errno.ENOTDIR or not reply.body:
                break
            assert reply.error == 0, path
            entries = records(reply.body, plus=True)
            offset = entries[-1][2]
            for name, child, _ in entries:
                if name not in (b".", b".."):
                    found[path + b"/" + name] = child
                    waiting.append((path + b"/" + name, child))
    return found


async def test_attributes_of_everything(tmp_path: Path) -> None:
    """Whatever has a name in the list has a value, of exactly the size that is said; so do all the hidden ones."""
    hidden = [b"user.hash", b"user.revision", b"user.pid", b"user.usedfd", b"user.proxy", b"security.capability"]
    hidden += [b"system.posix_acl_access", b"user." + b"x" * 250, b"\xff"]
    async with talking(tmp_path) as kernel:
        inodes = await every_inode(kernel)
        assert len(inodes) > 3000
        some = [ino for path, ino in inodes.items() if not path.startswith(b"/dirs/many/")]
        for ino in [*some, *(ino for path, ino in inodes.items() if path.endswith(b"77"))]:
            reply = await kernel.ask(Opcode.LISTXATTR, ino, struct.pack("<II", 0, 0))
            (size_bytes,) = struct.unpack_from("<I", reply.body)
            reply = await kernel.ask(Opcode.LISTXATTR, ino, struct.pack("<II", size_bytes or 1, 0))
            assert len(reply.body) == size_bytes
            names = reply.body.split(b"\0")[:-1]
            for name in (*names, *hidden):
                reply = await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", 0, 0) + name + b"\0")
                if reply.error:
                    assert reply.error == errno.ENODATA
                    assert name not in names
                    continue
                (size_bytes,) = struct.unpack_from("<I", reply.body)
                reply = await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", size_bytes + 20, 0) + name + b"\0")
                assert reply.error == 0
                if name not in (b"user.usedfd",):
                    assert len(reply.body) == size_bytes
                if size_bytes > 1:
                    reply = await kernel.ask(Opcode.GETXATTR, ino, struct.pack("<II", 1, 0) + name + b"\0")
                    assert reply.error == errno.ERANGE


async def test_many_are_forgotten_in_one_message(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        known = kernel.volume.files.inodes
        inodes = [ino for path, ino in (await every_inode(kernel)).items() if path]
        assert known.lookups == len(inodes)
        room = (8192 - 48) // 16  # of one message
        for start in range(0, len(inodes), room):
            some = inodes[start : start + room]
            body = struct.pack("<II", len(some), 0) + b"".join(struct.pack("<QQ", ino, 1) for ino in some)
            await kernel.send(Opcode.BATCH_FORGET, 0, body)
        assert (await kernel.ask(Opcode.STATFS, ROOT)).error == 0
        assert known.lookups == 0
        # Of more than there was: nothing falls below nothing.
        await kernel.send(Opcode.FORGET, inodes[0], struct.pack("<Q", (1 << 64) - 1))
        ino = await kernel.look_up("/hello.txt")
        await kernel.send(Opcode.FORGET, ino, struct.pack("<Q", (1 << 64) - 1))
        assert (await kernel.ask(Opcode.GETATTR, ROOT, bytes(16))).error == 0
        assert known.lookups == 0


async def test_reads_at_the_limits(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        inodes = await every_inode(kernel)
        golden = next(path for path in inodes if path.endswith(b"hello.txt"))
        ino = inodes[golden]
        for offset in (13, 14, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 4097, (1 << 63) - 1):
            for size_bytes in (0, 1, 4096, 1 << 20, (1 << 32) - 1):
                assert (await kernel.read(ino, offset, size_bytes)).body == b""
        assert (await kernel.read(ino, 0, (1 << 32) - 1)).body == b"hello, world\n"
        assert (await kernel.read(ino, 1 << 63, 1)).error == errno.EINVAL  # a negative offset
        for path, other in inodes.items():
            reply = await kernel.read(other, (1 << 63) - 10, 1 << 17)
            assert reply.error in (0, errno.EISDIR, errno.EINVAL, errno.EIO), path
            assert reply.body == b""


@pytest.mark.parametrize("opcode", [Opcode.OPEN, Opcode.OPENDIR])
async def test_old_kernels_are_told_at_open(tmp_path: Path, opcode: Opcode) -> None:
    flags = WANTED_FLAGS & ~(InitFlag.NO_OPEN_SUPPORT | InitFlag.NO_OPENDIR_SUPPORT)
    async with talking(tmp_path, wishes=Wishes(flags=flags)) as kernel:
        file = await kernel.look_up("/hello.txt")
        right, wrong = (file, ROOT) if opcode == Opcode.OPEN else (ROOT, file)
        assert (await kernel.ask(opcode, right, bytes(8))).error == 0
        expected = errno.EISDIR if opcode == Opcode.OPEN else errno.ENOTDIR
        assert (await kernel.ask(opcode, wrong, bytes(8))).error == expected
        assert (await kernel.ask(opcode, 1 << 50, bytes(8))).error == errno.ESTALE
        if opcode == Opcode.OPEN:
            for flags_of_open in (1, 2):  # to write
                body = struct.pack("<II", flags_of_open, 0)
                assert (await kernel.ask(opcode, file, body)).error == errno.EROFS


async def test_a_second_beginning_is_answered_as_the_first_and_changes_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as kernel:
        agreed = kernel.channel.agreed
        first = await kernel.ask(Opcode.INIT, 0, OFFER)
        for offer in (struct.pack("<IIII", 7, 31, 1 << 17, 0), struct.pack("<IIII", 6, 0, 0, 0), OFFER):
            assert (await kernel.ask(Opcode.INIT, 0, offer)).body == first.body
        assert kernel.channel.agreed == agreed
        assert (await kernel.ask(Opcode.OPEN, ROOT, bytes(8))).error == errno.ENOSYS
        for size in range(16):  # too short to be one
            assert (await kernel.ask(Opcode.INIT, 0, OFFER[:size])).error == errno.EINVAL


async def test_a_storm_leaves_others_their_turn_and_is_answered_in_time(tmp_path: Path) -> None:
    """A request storm of several tasks: whoever else is in the loop runs at least once between two batches."""
    async with talking(tmp_path) as kernel:
        turns = answered = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(5):
                numbers = [
                    await kernel.send(Opcode.READDIR, ROOT, READDIR.pack(0, 0, 4096, 0, 0, 0, 0)) for _ in range(64)
                ]
                before = turns
                for number in numbers:
                    answered += (await kernel.reply_to(number)).error == 0
                assert turns > before
            nursery.cancel_scope.cancel()
        assert answered == 5 * 64
