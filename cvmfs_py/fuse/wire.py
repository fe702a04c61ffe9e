"""The vocabulary of the kernel's FUSE protocol, 7.31 (Linux 5.4) to 7.45: versions, operations, flags, limits.

Only numbers, and the question whether this host can speak it at all; `wire_requests`, `wire_replies`, `wire_attrs`,
`wire_init` and `wire_notices` have the structures. Pure.

Everything is little-endian and made of 64-bit fields, which is what the supported hosts use natively: with these
formats `struct` takes the same fast routes as with native ones.
"""

from __future__ import annotations

import enum
import struct
import sys

MAJOR = 7
OLDEST_MINOR = 31
NEWEST_MINOR = 45
STATX_MINOR = 39
INC_EPOCH_MINOR = 44
PRUNE_MINOR = 45

ROOT_INO = 1
IN_HEADER_BYTES = 40
OUT_HEADER_BYTES = 16
ATTR_BYTES = 88
ENTRY_BYTES = 128
RECORD_ALIGNMENT_BYTES = 8
MIN_READ_BUFFER_BYTES = 8192  # reads of the device with less room fail
LARGEST_OFFSET = (1 << 63) - 1
LARGEST_ERRNO = 511  # the kernel refuses replies with larger ones


class Opcode(enum.IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


# An INTERRUPT may be answered (EAGAIN: send it again later, ENOSYS: send no more), but nobody waits for that.
UNANSWERED = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY))


class Notice(enum.IntEnum):
    """What the kernel can be told without having asked."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    DELETE = 6
    INC_EPOCH = 8
    PRUNE = 9


class InitFlag(enum.IntFlag):
    """What the kernel offers and a server agrees to; those from bit 32 on travel in a field of their own."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# Of the replies to OPEN and OPENDIR. Those that a kernel does not know yet are ignored by it.
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_CACHE_DIR = 1 << 3
FOPEN_STREAM = 1 << 4
FOPEN_NOFLUSH = 1 << 5

GETATTR_FH = 1 << 0  # GETATTR and STATX name a handle
RELEASE_FLUSH = 1 << 0
RELEASE_FLOCK_UNLOCK = 1 << 1
EXPIRE_ONLY = 1 << 0  # of INVAL_ENTRY: ask again at the next use, but do not drop what is below
STATX_BASIC_STATS = 0x7FF


def host_refusal(byteorder: str = sys.byteorder, pointer_bytes: int = struct.calcsize("P")) -> str | None:
    """Why the protocol cannot be spoken here; None when it can."""
    if byteorder != "little":
        return f"the kernel channel needs a little-endian machine, and this one is {byteorder}-endian"
    if pointer_bytes != 8:
        return f"the kernel channel needs a 64-bit Python, and this one has {pointer_bytes * 8} bits"
    return None
