"""The kernel's side of a channel, played over a socket pair, with a real volume of the fixture repository behind it.

    async with talking(tmp_path) as kernel:
        reply = await kernel.ask(Opcode.LOOKUP, 1, b"hello.txt\\0")     # reply.error, reply.body

Nothing of the channel, the core, the driver or the cache is replaced; the servers are files, or what a test serves.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

from cvmfs_py.fuse.channel import Channel
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.wire import Opcode
from cvmfs_py.mount.assemble import Wanted
from cvmfs_py.mount.opening import load_settings_of, opened_volume
from cvmfs_py.mount.space import SingleSpace
from cvmfs_py.stats import Stats
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import Inodes
from tests.compat.zoo_goldens import FQRN, KEY, make_document_root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cvmfs_py.fuse.wire_init import Wishes
    from cvmfs_py.mount.volume import MountedVolume

HEADER = struct.Struct("<IIQQIIIHH")
REPLY = struct.Struct("<IiQ")
OFFER = struct.pack("<IIIII", 7, 45, 1 << 20, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(44)
ROOM_BYTES = 1 << 21
PATIENCE_S = 60.0
ENTRY_INO = struct.Struct("<Q")


class Reply(NamedTuple):
    """What the channel has answered."""

    unique: int
    error: int  # 0, or an errno
    body: bytes


class Kernel:
    """Asks the channel, and keeps the answers that nobody has waited for yet."""

    def __init__(self, ours: trio.socket.SocketType, channel: Channel, volume: MountedVolume | None) -> None:
        self.channel = channel
        self._volume = volume
        self._ours = ours
        self._unique = 0
        self._replies: dict[int, Reply] = {}

    @property
    def volume(self) -> MountedVolume:
        assert self._volume is not None
        return self._volume

    async def send(self, opcode: int, ino: int, body: bytes = b"") -> int:
        """The request's number."""
        self._unique += 2
        length = HEADER.size + len(body)
        await self.send_raw(HEADER.pack(length, opcode, self._unique, ino, 0, 0, os.getpid(), 0, 0) + body)
        return self._unique

    async def send_raw(self, message: bytes) -> None:
        await self._ours.send(message)

    async def reply_to(self, unique: int) -> Reply:
        with trio.fail_after(PATIENCE_S):
            while unique not in self._replies:
                message = await self._ours.recv(ROOM_BYTES)
                length, error, number = REPLY.unpack_from(message)
                assert length == len(message)
                self._replies[number] = Reply(number, -error, message[REPLY.size :])
        return self._replies.pop(unique)

    async def ask(self, opcode: int, ino: int, body: bytes = b"") -> Reply:
        return await self.reply_to(await self.send(opcode, ino, body))

    async def look_up(self, path: str) -> int:
        """The inode at a path; each step counts as one look-up."""
        ino = 1
        for name in path.strip("/").split("/"):
            reply = await self.ask(Opcode.LOOKUP, ino, name.encode() + b"\0")
            assert reply.error == 0, name
            (ino,) = ENTRY_INO.unpack_from(reply.body)
        return ino

    async def read(self, ino: int, offset: int, size_bytes: int) -> Reply:
        return await self.ask(Opcode.READ, ino, struct.pack("<QQIIQII", 0, offset, size_bytes, 0, 0, 0, 0))


@asynccontextmanager
async def talking(
    directory: Path, server: str | None = None, wishes: Wishes | None = None, **parameters: str
) -> AsyncIterator[Kernel]:
    """A channel that has begun, over the fixture repository; nothing of it stays behind."""
    if server is None:
        server = f"file://{make_document_root(directory / 'www')}"
    overrides = {
        "CVMFS_SERVER_URL": f"{server}/cvmfs/{FQRN}",
        "CVMFS_EXTERNAL_URL": server,
        "CVMFS_PUBLIC_KEY": str(KEY),
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PY_CACHE_DIR": str(directory / "cache"),
        "CVMFS_MAX_RETRIES": "0",
        "CVMFS_CLAIM_OWNERSHIP": "no",
    }
    settings = await load_settings_of(Wanted(FQRN, overrides | {f"CVMFS_{n}": v for n, v in parameters.items()}, ()))
    stats = Stats()
    space = SingleSpace()
    channel = Channel(space, Failures(stats), wishes)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
    with theirs:
        async with (
            opened_volume(settings, stats, lambda snapshot: RepositoryFiles(Inodes(), snapshot)) as volume,
            trio.open_nursery() as nursery,
        ):
            space.open(volume)
            nursery.start_soon(channel.serve, theirs.fileno(), ())
            with trio.socket.from_stdlib_socket(ours) as end:
                kernel = Kernel(end, channel, volume)
                reply = await kernel.ask(Opcode.INIT, 0, OFFER)
                assert reply.error == 0
                yield kernel
                assert channel.waiting_count == 0
            # The other end is closed, as a mount that has ended: the channel ends by itself.
