"""A tiny file system, answered with nothing but the wire: run as a program, it mounts it and prints what it saw of it.

One thread answers, the other one asks the kernel by system calls. To be run in a mount namespace of its own, with which
the mount goes away.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from cvmfs_py.fuse import wire_notices, wire_replies, wire_requests
from cvmfs_py.fuse.wire import FOPEN_KEEP_CACHE, ROOT_INO, UNANSWERED, InitFlag, Opcode
from cvmfs_py.fuse.wire_attrs import pack_attr, pack_statx_reply
from cvmfs_py.fuse.wire_init import Negotiation, Wishes, negotiate, pack_init_reply, parse_init
from cvmfs_py.vfs.attrs import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = bytes(range(256)) * 1024
XATTRS = {b"user.first": b"1" * 300, b"user.second": b"2"}
VALIDITY = wire_replies.pack_validity(wire_replies.FOREVER_S, wire_replies.FOREVER_S)
LONG_NAME = b"n" * 255
SECOND_NS = 1_000_000_000
AN_IOCTL = 0x40087801  # one that nobody knows, with 8 bytes of argument

# The kernel sends these when it likes, and not because of what is being asked.
UNPREDICTABLE = ("READ", "FORGET", "BATCH_FORGET", "RELEASE", "FLUSH")


def attributes(mode: int, size_bytes: int = 0, rdev: int = 0, mtime_ns: int = 0, uid: int = 0) -> Attributes:
    return Attributes(mode, 1, uid, 0, size_bytes, rdev, mtime_ns)


INODES = {
    ROOT_INO: attributes(stat.S_IFDIR | 0o755, 4096),
    2: attributes(stat.S_IFREG | 0o644, len(CONTENT), mtime_ns=1_600_000_000 * SECOND_NS + 9),
    3: attributes(stat.S_IFLNK | 0o777, 4),
    4: attributes(stat.S_IFCHR | 0o666, rdev=os.makedev(0x812, 0x34567)),
    5: attributes(stat.S_IFREG | 0o600, (1 << 63) - 1, mtime_ns=-SECOND_NS),
    (1 << 40) + 1: attributes(stat.S_IFREG | 0o600, 1 << 63, mtime_ns=10**30),
}
NAMES = {b"file": 2, b"link": 3, b"device": 4, b"old": 5, LONG_NAME: (1 << 40) + 1}


class Server:
    """Answers until the mount is gone; counts what it is asked."""

    def __init__(self, device: int, wishes: Wishes) -> None:
        self._device = device
        self._wishes = wishes
        self.agreed: Negotiation | None = None
        self.asked: Counter[str] = Counter()

    def serve(self) -> None:
        room_bytes = 1 << 17
        while True:
            try:
                message = os.read(self._device, room_bytes)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            if self.agreed is not None:
                room_bytes = self.agreed.read_buffer_bytes
            request = wire_requests.parse_request(message)
            self.asked[Opcode(request.opcode).name] += 1
            reply = self._answer(request)
            if request.opcode not in UNANSWERED:
                with suppress(FileNotFoundError):  # interrupted meanwhile
                    assert os.write(self._device, reply) == len(reply)

    def _answer(self, request: wire_requests.Request) -> bytes:
        unique, ino = request.unique, request.ino
        match request.opcode:
            case Opcode.INIT:
                self.agreed = negotiate(parse_init(request), self._wishes, mmap.PAGESIZE)
                return pack_init_reply(unique, self.agreed)
            case Opcode.LOOKUP:
                found = NAMES.get(wire_requests.parse_lookup(request))
                entry = wire_replies.pack_negative_entry(VALIDITY) if found is None else self._entry(found)
                return wire_replies.pack_entry_reply(unique, entry)
            case Opcode.GETATTR:
                wire_requests.parse_getattr(request)
                return wire_replies.pack_attr_reply(unique, VALIDITY, pack_attr(ino, INODES[ino]))
            case Opcode.STATX:
                wire_requests.parse_statx(request)
                return pack_statx_reply(unique, VALIDITY, ino, INODES[ino])
            case Opcode.READLINK:
                return wire_replies.pack_reply(unique, b"file")
            case Opcode.OPEN:
                wire_requests.parse_open(request)
                return wire_replies.pack_open_reply(unique, 77, FOPEN_KEEP_CACHE)
            case Opcode.READ:
                fh, offset, size_bytes = wire_requests.parse_read(request)
                assert fh == 77
                return wire_replies.pack_reply(unique, CONTENT[offset : offset + size_bytes])
            case Opcode.READDIR | Opcode.READDIRPLUS:
                return wire_replies.pack_reply(unique, self._page(request))
            case Opcode.GETXATTR:
                room_bytes, name = wire_requests.parse_getxattr(request)
                if name not in XATTRS:
                    return wire_replies.pack_error_reply(unique, errno.ENODATA)
                return wire_replies.pack_xattr_reply(unique, room_bytes, XATTRS[name])
            case Opcode.LISTXATTR:
                names = b"".join(name + b"\0" for name in XATTRS)
                return wire_replies.pack_xattr_reply(unique, wire_requests.parse_listxattr(request), names)
            case Opcode.STATFS:
                statistics = wire_replies.FileSystemStatistics(1000, 20, 10, 5, 0, 8192, 255, 4096)
                return wire_replies.pack_statfs_reply(unique, statistics)
            case Opcode.LSEEK:
                _, offset, whence = wire_requests.parse_lseek(request)
                return wire_replies.pack_lseek_reply(unique, offset if whence == os.SEEK_DATA else len(CONTENT))
            case Opcode.RELEASE:
                assert wire_requests.parse_release(request)[0] == 77
                return wire_replies.pack_empty_reply(unique)
            case Opcode.FORGET:
                assert wire_requests.parse_forget(request) > 0
            case Opcode.BATCH_FORGET:
                assert all(ino in INODES and count for ino, count in wire_requests.parse_batch_forget(request))
            case Opcode.IOCTL:
                assert wire_requests.parse_ioctl(request) == AN_IOCTL
                return wire_replies.pack_error_reply(unique, errno.ENOTTY)
        return wire_replies.pack_error_reply(unique, errno.ENOSYS)

    @staticmethod
    def _entry(ino: int) -> bytes:
        return wire_replies.pack_entry(ino, VALIDITY, pack_attr(ino, INODES[ino]))

    def _page(self, request: wire_requests.Request) -> bytes:
        _, offset, size_bytes = wire_requests.parse_read(request)
        page = b""
        names = [(b".", ROOT_INO), (b"..", ROOT_INO), *NAMES.items()]
        for number, (name, ino) in enumerate(names[offset:], start=offset + 1):
            kind = INODES[ino].mode >> 12
            if request.opcode == Opcode.READDIR:
                record = wire_replies.pack_dirent(ino, number, name, kind)
            else:
                record = _entry_record(ino, number, name, kind)
            if len(page) + len(record) > size_bytes:
                break
            page += record
        return page


class Asker:
    """Asks the kernel, and notes what it says and which requests that cost."""

    def __init__(self, server: Server, device: int, place: str) -> None:
        self._server = server
        self._device = device
        self._place = place
        self.seen: dict[str, Any] = {}

    def note(self, what: str, ask: Callable[[], Any]) -> None:
        before = self._server.asked.copy()
        try:
            answer = ask()
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        cost = self._server.asked - before
        for name in UNPREDICTABLE:
            del cost[name]
        self.seen[what] = [answer, sorted(cost.elements())]

    def tell(self, notice: bytes) -> str:
        try:
            os.write(self._device, notice)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "told"

    def ask_everything(self) -> None:
        def at(name: str) -> str:
            return os.path.join(self._place, name)

        self.note("names", lambda: sorted(os.listdir(self._place)))
        for name in ("file", "device", "old", os.fsdecode(LONG_NAME)):
            self.note(f"stat {name[:6]}", partial(self._stat, at(name)))
        self.note("link", lambda: os.readlink(at("link")))
        self.note("link again", lambda: os.readlink(at("link")))
        self.note("absent", lambda: os.stat(at("absent")))
        self.note("absent again", lambda: os.stat(at("absent")))
        self.note("birth", lambda: self._run("stat", "-c", "%W %Y %s %t:%T %a", at("file"), at("device")))
        opened = os.open(at("file"), os.O_RDONLY)
        self.note("read", lambda: os.pread(opened, 1 << 20, 0) == CONTENT)
        self.note("read again", lambda: os.pread(opened, 100, 1000) == CONTENT[1000:1100])
        self.note("data", lambda: os.lseek(opened, 4096, os.SEEK_DATA))
        self.note("hole", lambda: os.lseek(opened, 0, os.SEEK_HOLE))
        self.note("xattrs", lambda: os.listxattr(at("file")))
        self.note("xattr", lambda: os.getxattr(at("file"), "user.first").decode())
        self.note("no xattr", lambda: os.getxattr(at("file"), "user.third"))
        self.note("statvfs", lambda: list(os.statvfs(self._place))[:9])
        self.note("ioctl", lambda: fcntl.ioctl(opened, AN_IOCTL, bytearray(8)))

        self._tell_everything(at, opened)
        os.close(opened)

    def _tell_everything(self, at: Callable[[str], str], opened: int) -> None:
        self.note("forget name", lambda: self.tell(wire_notices.pack_inval_entry(ROOT_INO, b"file")))
        self.note("stat after it", lambda: os.stat(at("file")).st_ino)
        self.note("expire name", lambda: self.tell(wire_notices.pack_inval_entry(ROOT_INO, b"file", expire_only=True)))
        self.note("stat after that", lambda: os.stat(at("file")).st_ino)
        self.note(
            "forget attributes", lambda: self.tell(wire_notices.pack_inval_inode(2, wire_notices.ATTRIBUTES_ONLY))
        )
        self.note("stat without them", lambda: os.stat(at("file")).st_ino)
        self.note("read as before", lambda: os.pread(opened, 100, 0) == CONTENT[:100])
        self.note("forget pages", lambda: self.tell(wire_notices.pack_inval_inode(2)))
        self.note("read anew", lambda: os.pread(opened, 100, 0) == CONTENT[:100])
        page = b"x" * mmap.PAGESIZE
        self.note("store", lambda: self.tell(wire_notices.pack_store_head(2, mmap.PAGESIZE, len(page)) + page))
        self.note("read stored", lambda: os.pread(opened, len(page), mmap.PAGESIZE) == page)
        self.note("epoch", lambda: self.tell(wire_notices.pack_inc_epoch()))
        self.note("stat in it", lambda: os.stat(at("file")).st_ino)
        self.note("delete", lambda: self.tell(wire_notices.pack_delete(ROOT_INO, 4, b"device")))
        self.note("stat deleted", lambda: self._stat(at("device"))[0])
        self.note("prune", lambda: self.tell(wire_notices.pack_prune([5, (1 << 40) + 1])))

    @staticmethod
    def _stat(path: str) -> list[int]:
        seen = os.stat(path)
        device = [os.major(seen.st_rdev), os.minor(seen.st_rdev)]
        return [seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_blocks, *device]

    @staticmethod
    def _run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip()


def _entry_record(ino: int, number: int, name: bytes, kind: int) -> bytes:
    if ino == ROOT_INO:
        return wire_replies.pack_name_record(ino, number, name, kind)
    return wire_replies.pack_entry_record(ino, VALIDITY, pack_attr(ino, INODES[ino]), number, name, kind)


def talk(place: str, flags: int, minor: int) -> dict[str, Any]:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.mount(b"wire", os.fsencode(place), b"fuse", 0x7, options.encode()) != 0
    ):  # read-only, no set-uid, no devices
        raise OSError(ctypes.get_errno(), "cannot mount")
    server = Server(device, Wishes(flags=InitFlag(flags), minor=minor))
    thread = threading.Thread(target=server.serve)
    thread.start()
    asker = Asker(server, device, place)
    try:
        asker.ask_everything()
    finally:
        assert libc.umount2(os.fsencode(place), 2) == 0
        thread.join()
    assert server.agreed is not None
    offer = server.agreed.offer
    return asker.seen | {"kernel": offer.minor, "agreed": [server.agreed.minor, int(server.agreed.flags)]}


if __name__ == "__main__":
    print(json.dumps(talk(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
