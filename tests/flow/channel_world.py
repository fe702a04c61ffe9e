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

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.fuse.wire_init import Wishes
    from cvmfs_py.mount.volume import MountedVolume
    from tests.simulator.repository import Repository as Published

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
        self._notices: list[bytes] = []

    @property
    def unclaimed(self) -> list[Reply]:
        """Answers that have come and that nobody has taken."""
        return list(self._replies.values())

    @property
    def unclaimed_notices(self) -> list[bytes]:
        return list(self._notices)

    @property
    def volume(self) -> MountedVolume:
        assert self._volume is not None
        return self._volume

    async def send(self, opcode: int, ino: int, body: bytes = b"", process: int | None = None) -> int:
        """The request's number. `process`: who asks; None: this one."""
        self._unique += 2
        length = HEADER.size + len(body)
        await self.send_raw(HEADER.pack(length, opcode, self._unique, ino, 0, 0, process or os.getpid(), 0, 0) + body)
        return self._unique

    async def send_raw(self, message: bytes) -> None:
        await self._ours.send(message)

    async def reply_to(self, unique: int) -> Reply:
        with trio.fail_after(PATIENCE_S):
            while unique not in self._replies:
                await self._receive()
        return self._replies.pop(unique)

    async def notice(self) -> bytes:
        """What the channel says next without having been asked."""
        with trio.fail_after(PATIENCE_S):
            while not self._notices:
                await self._receive()
        return self._notices.pop(0)

    async def _receive(self) -> None:
        message = await self._ours.recv(ROOM_BYTES)
        length, error, number = REPLY.unpack_from(message)
        assert length == len(message)
        if number:
            assert number not in self._replies, "answered twice"
            self._replies[number] = Reply(number, -error, message[REPLY.size :])
        else:
            self._notices.append(message)

    async def ask(self, opcode: int, ino: int, body: bytes = b"", process: int | None = None) -> Reply:
        return await self.reply_to(await self.send(opcode, ino, body, process))

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


async def settings_for(
    directory: Path, server: str | None = None, published: Published | None = None, **parameters: str
) -> Settings:
    """Of a client of the fixture repository, or of one that a test has published; without a server, of its files."""
    if published is None:
        root, fqrn, key = (directory / "www" if server else make_document_root(directory / "www")), FQRN, KEY
    else:
        root, fqrn, key = published.document_root, published.fqrn, published.master_public_key
    server = server or f"file://{root}"
    overrides = {
        "SERVER_URL": f"{server}/cvmfs/{fqrn}",
        "EXTERNAL_URL": server,
        "PUBLIC_KEY": str(key),
        "HTTP_PROXY": "DIRECT",
        "PY_CACHE_DIR": str(directory / "cache"),
        "MAX_RETRIES": "0",
        "CLAIM_OWNERSHIP": "no",
    }
    wanted = {f"CVMFS_{name}": value for name, value in (overrides | parameters).items()}
    return await load_settings_of(Wanted(fqrn, wanted, ()))


@asynccontextmanager
async def connected(channel: Channel, volume: MountedVolume | None = None) -> AsyncIterator[Kernel]:
    """A channel that serves one end of a socket pair, with whoever plays the kernel at the other. INIT is done."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
    with theirs, trio.socket.from_stdlib_socket(ours) as end:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.serve, theirs.fileno(), ())
            kernel = Kernel(end, channel, volume)
            reply = await kernel.ask(Opcode.INIT, 0, OFFER)
            assert reply.error == 0
            yield kernel
            assert channel.waiting_count == 0
            end.shutdown(socket.SHUT_WR)  # as a mount that has ended: the channel ends by itself


@asynccontextmanager
async def talking(
    directory: Path,
    server: str | None = None,
    wishes: Wishes | None = None,
    published: Published | None = None,
    **parameters: str,
) -> AsyncIterator[Kernel]:
    """A channel that has begun, over the fixture repository or another one; nothing of it stays behind."""
    settings = await settings_for(directory, server, published, **parameters)
    stats = Stats()
    space = SingleSpace()
    async with opened_volume(settings, stats, lambda snapshot: RepositoryFiles(Inodes(), snapshot)) as volume:
        space.open(volume)
        async with connected(Channel(space, Failures(stats), wishes), volume) as kernel:
            yield kernel
