"""How long the kernel is told to believe what it is told, and what takes it back: in the root, below it, and above."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from cvmfs_py.fuse.channel import Channel
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.volume import FOREVER_S
from cvmfs_py.fuse.wire import Notice, Opcode
from cvmfs_py.fuse.wire_init import Wishes
from cvmfs_py.mount.assemble import Wanted
from cvmfs_py.mount.facts import mount_facts
from cvmfs_py.mount.log_lines import RecentLines
from cvmfs_py.mount.repositories import NAME_S, RepositoriesSpace
from cvmfs_py.stats import Stats
from tests.compat.zoo_goldens import FQRN, KEY, ROOT_HASHES, make_document_root
from tests.flow.channel_world import Kernel, connected, talking
from tests.flow.test_channel import READDIR, Holding
from tests.simulator.fault_server import FaultServer

if TYPE_CHECKING:
    from pathlib import Path

ROOT = 1
KERNEL_S = 7  # what the configuration says
VALIDITY = struct.Struct("<QQQQ")  # of an entry: inode, generation, seconds of the name, seconds of the attributes
ATTR_VALIDITY = struct.Struct("<Q")
OLD, NEW = Wishes(minor=31), Wishes()


class Told(NamedTuple):
    """Of one name."""

    ino: int
    name_s: int
    attributes_s: int


async def ask(kernel: Kernel, parent: int, name: bytes) -> Told:
    reply = await kernel.ask(Opcode.LOOKUP, parent, name + b"\0")
    assert reply.error == 0
    ino, _, name_s, attributes_s = VALIDITY.unpack_from(reply.body)
    return Told(ino, name_s, attributes_s)


@pytest.mark.parametrize("wishes", [OLD, NEW], ids=["old kernel", "new kernel"])
@pytest.mark.parametrize("pin", [{}, {"ROOT_HASH": ROOT_HASHES["v2"]}], ids=["live", "pinned"])
async def test_all_names_last(tmp_path: Path, wishes: Wishes, pin: dict[str, str]) -> None:
    """They never change, or are taken back."""
    async with talking(tmp_path, wishes=wishes, KCACHE_TIMEOUT=str(KERNEL_S), **pin) as kernel:
        for parent in (ROOT, await kernel.look_up("/dirs")):
            assert (await ask(kernel, parent, b"absent"))[:2] == (0, FOREVER_S)
            reply = await kernel.ask(Opcode.READDIRPLUS, parent, READDIR.pack(0, 0, 1 << 20, 0, 0, 0, 0))
            first = 2 * (128 + 32)  # . and .. have no attributes
            assert VALIDITY.unpack_from(reply.body, first)[2:] == (FOREVER_S, FOREVER_S)
            reply = await kernel.ask(Opcode.GETATTR, parent, bytes(16))
            assert ATTR_VALIDITY.unpack_from(reply.body) == (FOREVER_S,)
        assert (await ask(kernel, ROOT, b"hello.txt"))[1:] == (FOREVER_S, FOREVER_S)


async def test_an_old_kernel_is_told_what_it_knows_of_the_root(tmp_path: Path) -> None:
    async with talking(tmp_path, wishes=OLD) as kernel:
        ino = await kernel.look_up("/dirs")
        for parent, name in ((ROOT, b"absent"), (ROOT, b"hello.txt"), (ino, b"many"), (ino, b"absent too")):
            await ask(kernel, parent, name)
        kernel.channel.revision_changed(kernel.volume.files.root)
        notices = [await kernel.notice() for _ in range(4)]
        found = {struct.unpack_from("<4xi8xQ", notice) for notice in notices}
        assert found == {(Notice.INVAL_ENTRY, ROOT), (Notice.INVAL_INODE, ROOT)}
        assert {notice[32:-1] for notice in notices} >= {b"dirs", b"absent", b"hello.txt"}


async def test_no_lock_is_asked_for_that_somebody_has_who_waits_for_an_answer(tmp_path: Path) -> None:
    """The kernel would not let go of a process that is killed while it waits for the lock."""
    script = Holding(make_document_root(tmp_path / "www"))
    with FaultServer(script) as server:
        async with talking(tmp_path, server.url, OLD, TIMEOUT_DIRECT="60") as kernel:
            await ask(kernel, ROOT, b"hello.txt")
            kernel.volume.facts = mount_facts(kernel.volume, RecentLines(), lambda: 0.0, lambda: "")
            script.is_holding = True
            waiting = await kernel.send(Opcode.GETXATTR, ROOT, struct.pack("<II", 4096, 0) + b"user.repo_metainfo\0")
            assert (await kernel.ask(Opcode.GETATTR, ROOT, bytes(16))).error == 0
            assert kernel.channel.waiting_count == 1
            kernel.channel.revision_changed(ROOT)
            assert struct.unpack_from("<4xi8xQ", await kernel.notice()) == (Notice.INVAL_INODE, ROOT)
            for _ in range(20):
                assert (await kernel.ask(Opcode.GETATTR, ROOT, bytes(16))).error == 0
            assert not kernel.unclaimed_notices
            await kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", waiting))
            assert (await kernel.reply_to(waiting)).error == errno.EINTR
            assert struct.unpack_from("<4xi8xQ", await kernel.notice()) == (Notice.INVAL_ENTRY, ROOT)


@pytest.mark.parametrize("wishes", [OLD, NEW], ids=["old kernel", "new kernel"])
async def test_the_directory_of_all_repositories_is_believed_for_a_while(tmp_path: Path, wishes: Wishes) -> None:
    """Nobody takes back that there is no repository of a name."""
    overrides = {
        "CVMFS_SERVER_URL": f"file://{make_document_root(tmp_path / 'www')}/cvmfs/@fqrn@",
        "CVMFS_PUBLIC_KEY": str(KEY),
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PY_CACHE_DIR": str(tmp_path / "cache"),
        "CVMFS_MAX_RETRIES": "0",
    }
    space = RepositoriesSpace(Wanted("", overrides, ()), (), Stats(), RecentLines())
    channel = Channel(space, Failures(space.stats), wishes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(space.run_repositories, channel, nursery)
        async with connected(channel) as kernel:
            assert (await kernel.ask(Opcode.LOOKUP, ROOT, b"missing.test.org\0")).error == errno.ENOENT
            for name in (b"missing.test.org", b"README"):
                assert (await ask(kernel, ROOT, name))[:2] == (0, NAME_S)
            ino, name_s, attributes_s = await ask(kernel, ROOT, FQRN.encode())
            assert (ino > ROOT, name_s, attributes_s) == (True, NAME_S, 0)
            reply = await kernel.ask(Opcode.GETATTR, ino, bytes(16))
            assert ATTR_VALIDITY.unpack_from(reply.body) == (FOREVER_S,)
            assert (await ask(kernel, ino, b"hello.txt"))[1:] == (FOREVER_S, FOREVER_S)
        nursery.cancel_scope.cancel()
