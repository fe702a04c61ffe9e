"""What the kernel asks: request messages taken apart. Pure; acts on nothing, and answers nothing.

A message is exactly what one read of the device returned, as `bytes`: a request outlives the buffer it was read into
when its answer has to wait. `parse_request` takes the header off; the function of an operation parses its arguments.
All of them raise `MalformedRequestError` and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import struct
from errno import EINVAL, ENOSYS
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cvmfs_py.fuse.wire import GETATTR_FH, IN_HEADER_BYTES, LARGEST_OFFSET, UNANSWERED, Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER = struct.Struct("<IIQQIIIH2x")
_HEADER_START = struct.Struct("<IIQ")
_FORGET = struct.Struct("<Q")
_FORGETS = struct.Struct("<I4x")
_FORGET_ONE = struct.Struct("<QQ")
_GETATTR = struct.Struct("<I4xQ")
_STATX = struct.Struct("<I4xQII")
_OPEN = struct.Struct("<II")
_READ = struct.Struct("<QQI20x")
_RELEASE = struct.Struct("<QII8x")
_FLUSH = struct.Struct("<Q16x")
_XATTR = struct.Struct("<I4x")
_ACCESS = struct.Struct("<I4x")
_LSEEK = struct.Struct("<QqI4x")
_INTERRUPT = struct.Struct("<Q")
_IOCTL = struct.Struct("<QIIQII")

_EXTENSION_UNIT_BYTES = 8
_OPCODES = frozenset(map(int, Opcode))


class MalformedRequestError(Exception):
    """A message is not a request as the kernel makes them; `errno` is the answer to it."""

    def __init__(self, unique: int, opcode: int, reason: str, errno: int = EINVAL) -> None:
        super().__init__(f"a request of the kernel (operation {opcode}, number {unique}) is malformed: {reason}")
        self.unique = unique  # 0: the message is too short to have one
        self.opcode = opcode
        self.errno = errno

    @property
    def needs_answer(self) -> bool:
        """Somebody waits for an answer, as far as can be told."""
        return self.unique != 0 and self.opcode not in UNANSWERED


class Request(NamedTuple):
    """A request: who asks what about which inode. The arguments are not parsed yet."""

    opcode: int
    unique: int
    ino: int
    uid: int
    gid: int
    pid: int
    body: bytes  # without the extensions, which only come with requests that make something


_new_request: Callable[[type[Request], tuple[Any, ...]], Request] = tuple.__new__  # 150 ns less than Request(...)


def parse_request(message: bytes) -> Request:
    try:
        length, opcode, unique, ino, uid, gid, pid, extension_units = _HEADER.unpack_from(message)
    except struct.error:
        _refuse_headless(message)
    if length != len(message):
        raise MalformedRequestError(unique, opcode, f"{len(message)} bytes came, its header says {length}")
    if opcode not in _OPCODES:
        raise MalformedRequestError(unique, opcode, "no such operation is known", ENOSYS)
    body = message[IN_HEADER_BYTES:]
    if extension_units:
        body_bytes = len(body) - extension_units * _EXTENSION_UNIT_BYTES
        if body_bytes < 0:
            raise MalformedRequestError(unique, opcode, "its extensions are longer than itself")
        body = body[:body_bytes]
    return _new_request(Request, (opcode, unique, ino, uid, gid, pid, body))


def parse_lookup(request: Request) -> bytes:
    """The name that is looked up; any that has no NUL, if only of one byte."""
    return _name(request, 0)


def parse_forget(request: Request) -> int:
    """How many lookups are taken back."""
    try:
        (count,) = _FORGET.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(count)


def parse_batch_forget(request: Request) -> list[tuple[int, int]]:
    """Inodes, and how many lookups of each are taken back."""
    body = request.body
    try:
        (count,) = _FORGETS.unpack_from(body)
    except struct.error:
        _refuse_size(request)
    if len(body) != _FORGETS.size + count * _FORGET_ONE.size:
        _refuse_size(request)
    return list(_FORGET_ONE.iter_unpack(body[_FORGETS.size :]))


def parse_getattr(request: Request) -> int | None:
    """The handle that is asked about; None: the inode as such."""
    try:
        flags, fh = _GETATTR.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return fh if flags & GETATTR_FH else None


def parse_statx(request: Request) -> tuple[int | None, int, int]:
    """The handle or None, the flags and the mask of statx(2)."""
    try:
        flags, fh, statx_flags, mask = _STATX.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return fh if flags & GETATTR_FH else None, statx_flags, mask


def parse_open(request: Request) -> int:
    """The flags of open(2), also of OPENDIR."""
    try:
        flags, _ = _OPEN.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(flags)


def parse_read(request: Request) -> tuple[int, int, int]:
    """Handle, offset and size, also of READDIR and READDIRPLUS. The offset fits into 63 bits."""
    try:
        fh, offset, size_bytes = _READ.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    if offset > LARGEST_OFFSET:
        raise MalformedRequestError(request.unique, request.opcode, "its offset is negative")
    return fh, offset, size_bytes


def parse_release(request: Request) -> tuple[int, int]:
    """Handle and RELEASE_ flags, also of RELEASEDIR."""
    try:
        fh, _, release_flags = _RELEASE.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return fh, release_flags


def parse_flush(request: Request) -> int:
    """The handle."""
    try:
        (fh,) = _FLUSH.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(fh)


def parse_getxattr(request: Request) -> tuple[int, bytes]:
    """The room for the value (0: only its size is asked for) and the attribute's name."""
    try:
        (room_bytes,) = _XATTR.unpack_from(request.body)
    except struct.error:
        _refuse_size(request)
    return room_bytes, _name(request, _XATTR.size)


def parse_listxattr(request: Request) -> int:
    """The room for the names; 0: only their size is asked for."""
    try:
        (room_bytes,) = _XATTR.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(room_bytes)


def parse_access(request: Request) -> int:
    """The mode of access(2)."""
    try:
        (mask,) = _ACCESS.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(mask)


def parse_lseek(request: Request) -> tuple[int, int, int]:
    """Handle, offset and whence; the offset may be negative."""
    try:
        fh, offset, whence = _LSEEK.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return fh, offset, whence


def parse_interrupt(request: Request) -> int:
    """The number of the request that nobody waits for any more; it may have been answered, or not have come yet."""
    try:
        (unique,) = _INTERRUPT.unpack(request.body)
    except struct.error:
        _refuse_size(request)
    return int(unique)


def parse_ioctl(request: Request) -> int:
    """The command, for a message: nothing of an ioctl is supported."""
    try:
        _, _, command, _, in_bytes, _ = _IOCTL.unpack_from(request.body)
    except struct.error:
        _refuse_size(request)
    if len(request.body) != _IOCTL.size + in_bytes:
        _refuse_size(request)
    return int(command)


def _name(request: Request, start: int) -> bytes:
    body = request.body
    end = len(body) - 1
    if end <= start or body.find(b"\0", start) != end:
        raise MalformedRequestError(request.unique, request.opcode, "its name is empty or does not end with a NUL")
    return body[start:end]


def _refuse_size(request: Request) -> NoReturn:
    reason = f"its arguments have an impossible size of {len(request.body)} bytes"
    raise MalformedRequestError(request.unique, request.opcode, reason) from None


def _refuse_headless(message: bytes) -> NoReturn:
    try:
        _, opcode, unique = _HEADER_START.unpack_from(message)
    except struct.error:
        opcode = unique = 0
    raise MalformedRequestError(unique, opcode, f"{len(message)} bytes are too few for a header") from None
