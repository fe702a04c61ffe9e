"""Listings over the kernel channel: every entry exactly once, whatever fits, and whatever is published meanwhile."""

from __future__ import annotations

import errno
import random
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse.wire import Notice, Opcode
from cvmfs_py.mount.refresh import Refresh
from cvmfs_py.vfs.files import KEPT_LISTINGS, LISTINGS
from tests.flow.channel_world import talking
from tests.flow.test_channel import DIRENT, READDIR, records
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.flow.channel_world import Kernel
    from tests.simulator.tree import Node

NAME_SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 100, 247, 248, 249, 254, 255)
BOTH = pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
ROOT = 1


def named(mark: str, size: int) -> str:
    return (mark + "-" * size)[:size]


def names_of(mark: str) -> list[str]:
    """Different for each mark, of every size that matters."""
    sizes = [size for size in NAME_SIZES if size > 4]
    return [named(f"{mark}{size:03}", size) for size in sizes] + [mark]


def tree(mark: str) -> Directory:
    entries: dict[str, Node] = {name: File(mark.encode()) for name in names_of(mark)}
    entries["hidden"] = File(b"", hidden=True)
    inner = {name: Symlink("x") for name in names_of("i")} | {"dir": Directory(), "nested": Directory(nested=True)}
    return Directory(entries | {"inner": Directory(inner), "same": Directory({"a": File(b"a")}, nested=True)})


def expected(mark: str) -> list[bytes]:
    return sorted(name.encode() for name in (".", "..", "inner", "same", *names_of(mark)))


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published.create(tmp_path / "published")
    published.publish(tree("A"))
    return published


class Lister:
    """A program that lists one directory, a part at a time."""

    def __init__(self, kernel: Kernel, opcode: Opcode, ino: int = ROOT) -> None:
        self._kernel = kernel
        self._opcode = opcode
        self._ino = ino
        self.offset = 0
        self.names: list[bytes] = []
        self.lookups = 0
        self.is_at_end = False
        self.mark = ""  # of the revision in which it began

    async def go_on(self, room_bytes: int) -> int:
        """The errno of one request."""
        body = READDIR.pack(0, self.offset, room_bytes, 0, 0, 0, 0)
        reply = await self._kernel.ask(self._opcode, self._ino, body)
        if reply.error:
            return reply.error
        assert len(reply.body) <= room_bytes
        found = records(reply.body, plus=self._opcode == Opcode.READDIRPLUS)
        self.is_at_end = not found
        if found:
            self.names += [name for name, _, _ in found]
            self.offset = found[-1][2]
            self.lookups += sum(name not in (b".", b"..") for name, _, _ in found)
        return 0

    async def finish(self, room_bytes: int) -> list[bytes]:
        while not self.is_at_end:
            assert await self.go_on(room_bytes) == 0
        return sorted(self.names)


@asynccontextmanager
async def live(tmp_path: Path, published: Published) -> AsyncIterator[tuple[Kernel, Refresh]]:
    """A channel and what follows the repository, when it is told to look."""
    async with talking(tmp_path, published=published) as kernel:
        volume = kernel.volume
        refresh = Refresh(volume, lambda: kernel.channel.revision_changed(volume.files.root))
        yield kernel, refresh


@BOTH
async def test_every_size_of_the_buffer(tmp_path: Path, published: Published, opcode: Opcode) -> None:
    largest = DIRENT.size + 256 + (128 if opcode == Opcode.READDIRPLUS else 0)
    async with talking(tmp_path, published=published) as kernel:
        for ino, names in ((ROOT, expected("A")), (await kernel.look_up("/inner"), None)):
            for room_bytes in (*range(largest, largest + 700, 8), *range(largest, largest + 40), 4096, 65536, 1 << 20):
                listed = await Lister(kernel, opcode, ino).finish(room_bytes)
                names = names or listed
                assert listed == names, room_bytes
            assert len(names or ()) == len(set(names or ()))


@BOTH
async def test_too_small_a_buffer_is_not_the_end(tmp_path: Path, published: Published, opcode: Opcode) -> None:
    largest = DIRENT.size + 256 + (128 if opcode == Opcode.READDIRPLUS else 0)
    async with talking(tmp_path, published=published) as kernel:
        for room_bytes in range(0, largest, 4):
            lister = Lister(kernel, opcode)
            for _ in range(100):
                error = await lister.go_on(room_bytes)
                assert not lister.is_at_end
                if error:
                    break
            assert error == errno.EINVAL


async def test_lookups_are_those_of_what_was_listed(tmp_path: Path, published: Published) -> None:
    async with talking(tmp_path, published=published) as kernel:
        inodes = kernel.volume.files.inodes
        total = 0
        for room_bytes in (500, 900, 4096):
            lister = Lister(kernel, Opcode.READDIRPLUS)
            await lister.finish(room_bytes)
            total += lister.lookups
            assert inodes.lookups == total
        await Lister(kernel, Opcode.READDIR).finish(500)
        assert inodes.lookups == total


@pytest.mark.parametrize("seed", range(4))
async def test_listings_side_by_side_and_revisions_between_their_parts(
    tmp_path: Path, published: Published, seed: int
) -> None:
    """Each shows the root as it was when it began."""
    chance = random.Random(seed)
    mark = "A"
    async with live(tmp_path, published) as (kernel, refresh):
        begun: list[Lister] = []
        for step in range(150):
            if chance.random() < 0.06:
                mark = chr(ord("A") + step % 50)
                published.publish(tree(mark))
                assert await refresh.refresh()
            if chance.random() < 0.3:
                opcode = chance.choice((Opcode.READDIR, Opcode.READDIRPLUS))
                begun.append(Lister(kernel, opcode))
            if begun:
                lister = chance.choice(begun)
                lister.mark = lister.mark or mark
                assert await lister.go_on(chance.choice((500, 700, 1500, 4096))) == 0
                if lister.is_at_end:
                    assert sorted(lister.names) == expected(lister.mark)
                    begun.remove(lister)
        for lister in begun:
            assert await lister.finish(500) == expected(lister.mark or mark)
        assert await Lister(kernel, Opcode.READDIR).finish(4096) == expected(mark)


async def test_other_directories_stay_what_they_were(tmp_path: Path, published: Published) -> None:
    """A program whose directory this is sees the same names to the end, also when it begins again."""
    async with live(tmp_path, published) as (kernel, refresh):
        ino = await kernel.look_up("/inner")
        before = await Lister(kernel, Opcode.READDIR, ino).finish(4096)
        lister = Lister(kernel, Opcode.READDIRPLUS, ino)
        assert await lister.go_on(700) == 0
        entries = dict(tree("B").entries)  # type: ignore[call-overload]
        published.publish(Directory(entries | {"inner": Directory({"other": File(b"")})}))
        assert await refresh.refresh()
        assert await lister.finish(700) == before
        assert await Lister(kernel, Opcode.READDIR, ino).finish(500) == before
        assert await kernel.look_up("/inner") != ino


async def test_what_is_outdated_does_not_stay_with_the_kernel(tmp_path: Path, published: Published) -> None:
    """The kernel keeps what it is told of the root, also when it is told after the notice: so there is another one."""
    async with live(tmp_path, published) as (kernel, refresh):
        lister = Lister(kernel, Opcode.READDIR)
        assert await lister.go_on(500) == 0
        published.publish(tree("B"))
        assert await refresh.refresh()
        kinds = [struct.unpack_from("<Ii", await kernel.notice())[1] for _ in range(4)]
        assert sorted(kinds) == [Notice.INVAL_INODE, Notice.INVAL_ENTRY, Notice.INC_EPOCH, Notice.INC_EPOCH]
        assert await lister.go_on(500) == 0
        notice = await kernel.notice()
        assert struct.unpack_from("<IiQQ", notice)[1::2] == (Notice.INVAL_INODE, ROOT)


async def test_what_is_outdated_is_listed_without_attributes(tmp_path: Path, published: Published) -> None:
    """The kernel would take them for those of the new revision, and believe them for ever."""
    async with live(tmp_path, published) as (kernel, refresh):
        lister = Lister(kernel, Opcode.READDIRPLUS)
        assert await lister.go_on(700) == 0
        inodes = kernel.volume.files.inodes
        assert inodes.lookups == lister.lookups > 0
        published.publish(tree("B"))
        assert await refresh.refresh()
        before = inodes.lookups
        body = READDIR.pack(0, lister.offset, 1 << 20, 0, 0, 0, 0)
        reply = await kernel.ask(Opcode.READDIRPLUS, ROOT, body)
        found = records(reply.body, plus=True)
        assert len(found) > 3
        assert all(ino for _, ino, _ in found)
        position = 0
        for name, _, _ in found:
            assert reply.body[position : position + 128] == bytes(128), name
            position += 128 + DIRENT.size + (len(name) + 7) // 8 * 8
        assert inodes.lookups == before


async def test_a_listing_cannot_go_on_for_ever(tmp_path: Path, published: Published) -> None:
    async with live(tmp_path, published) as (kernel, refresh):
        lister = Lister(kernel, Opcode.READDIR)
        assert await lister.go_on(500) == 0
        for number in range(KEPT_LISTINGS):
            published.publish(Directory({str(number): File(b"")}))
            assert await refresh.refresh()
        assert await lister.go_on(500) == 0
        for number in range(KEPT_LISTINGS, LISTINGS - 1):
            published.publish(Directory({str(number): File(b"")}))
            assert await refresh.refresh()
            assert await lister.go_on(500) == errno.ESTALE
        assert kernel.volume.files.attached_count <= 2


async def test_superseded_revisions_are_closed(tmp_path: Path, published: Published) -> None:
    """Also those that a listing had to open again."""
    async with live(tmp_path, published) as (kernel, refresh):
        lister = Lister(kernel, Opcode.READDIRPLUS)
        assert await lister.go_on(500) == 0
        published.publish(tree("B"))
        assert await refresh.refresh()
        await kernel.send(Opcode.FORGET, 2, struct.pack("<Q", lister.lookups))  # of one catalog: which does not matter
        await lister.finish(500)
        await kernel.send(Opcode.FORGET, 2, struct.pack("<Q", 1 << 40))
        published.publish(tree("C"))
        assert await refresh.refresh()
        inodes = kernel.volume.files.inodes
        while (left := inodes.lookups) > 0:
            for ino in range(2, inodes.highest + 1):
                await kernel.send(Opcode.FORGET, ino, struct.pack("<Q", 1 << 40))
            await kernel.ask(Opcode.STATFS, ROOT)
            assert inodes.lookups < left
        await Lister(kernel, Opcode.READDIR).finish(4096)
        assert kernel.volume.files.attached_count == 1
