"""Requests of the kernel: their exact bytes, and that no bytes at all lead to anything but a request or one error."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvmfs_py.fuse.wire import Opcode, host_refusal
from cvmfs_py.fuse.wire_init import parse_init
from cvmfs_py.fuse.wire_replies import pack_error_reply
from cvmfs_py.fuse.wire_requests import (
    MalformedRequestError,
    Request,
    parse_access,
    parse_batch_forget,
    parse_flush,
    parse_forget,
    parse_getattr,
    parse_getxattr,
    parse_interrupt,
    parse_ioctl,
    parse_listxattr,
    parse_lookup,
    parse_lseek,
    parse_open,
    parse_read,
    parse_release,
    parse_request,
    parse_statx,
)

if TYPE_CHECKING:
    from collections.abc import Callable

UNIQUE = 0x1122334455667788


def parse_nothing(request: Request) -> bytes:
    return request.body


# operation, parser, the bytes after the header, what they mean
CASES: list[tuple[Opcode, Callable[[Request], Any], str, Any]] = [
    (Opcode.LOOKUP, parse_lookup, "6c69 6263 2e73 6f00", b"libc.so"),
    (Opcode.LOOKUP, parse_lookup, "ff00", b"\xff"),
    (Opcode.FORGET, parse_forget, "0300 0000 0000 0080", (1 << 63) + 3),
    (
        Opcode.BATCH_FORGET,
        parse_batch_forget,
        "0200 0000 0000 0000  0500 0000 0000 0000 0100 0000 0000 0000  0600 0000 0100 0000 0900 0000 0000 0000",
        [(5, 1), ((1 << 32) + 6, 9)],
    ),
    (Opcode.BATCH_FORGET, parse_batch_forget, "0000 0000 0000 0000", []),
    (Opcode.GETATTR, parse_getattr, "0000 0000 0000 0000 0700 0000 0000 0000", None),
    (Opcode.GETATTR, parse_getattr, "0100 0000 0000 0000 0700 0000 0000 0000", 7),
    (
        Opcode.STATX,
        parse_statx,
        "0000 0000 0000 0000 0700 0000 0000 0000 0020 0000 ff0f 0000",
        (None, 0x2000, 0xFFF),
    ),
    (Opcode.STATX, parse_statx, "0100 0000 0000 0000 0700 0000 0000 0000 0000 0000 0008 0000", (7, 0, 0x800)),
    (Opcode.READLINK, parse_nothing, "", b""),
    (Opcode.OPEN, parse_open, "0080 0000 0000 0000", os.O_RDONLY | 0x8000),
    (Opcode.OPENDIR, parse_open, "0088 0100 0000 0000", 0x18800),
    (
        Opcode.READ,
        parse_read,
        "0700 0000 0000 0000 0010 0000 0100 0000 0000 0200 0200 0000 0900 0000 0000 0000 0080 0000 0000 0000",
        (7, 0x100001000, 0x20000),
    ),
    (
        Opcode.READDIR,
        parse_read,
        "0000 0000 0000 0000 ffff ffff ffff ff7f 0010 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000",
        (0, (1 << 63) - 1, 4096),
    ),
    (
        Opcode.READDIRPLUS,
        parse_read,
        "0000 0000 0000 0000 0000 0000 0000 0000 0010 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000 0000",
        (0, 0, 4096),
    ),
    (
        Opcode.RELEASE,
        parse_release,
        "0700 0000 0000 0000 0080 0000 0200 0000 0900 0000 0000 0000",
        (7, 2),
    ),
    (Opcode.RELEASEDIR, parse_release, "0800 0000 0000 0000 0080 0000 0000 0000 0000 0000 0000 0000", (8, 0)),
    (Opcode.FLUSH, parse_flush, "0700 0000 0000 0000 0000 0000 0000 0000 0900 0000 0000 0000", 7),
    (Opcode.STATFS, parse_nothing, "", b""),
    (Opcode.GETXATTR, parse_getxattr, "0001 0000 0000 0000 7573 6572 2e78 00", (256, b"user.x")),
    (Opcode.GETXATTR, parse_getxattr, "0000 0000 0000 0000 6100", (0, b"a")),
    (Opcode.LISTXATTR, parse_listxattr, "0000 0100 0000 0000", 65536),
    (Opcode.ACCESS, parse_access, "0400 0000 0000 0000", os.R_OK),
    (
        Opcode.LSEEK,
        parse_lseek,
        "0700 0000 0000 0000 ffff ffff ffff ffff 0300 0000 0000 0000",
        (7, -1, os.SEEK_DATA),
    ),
    (Opcode.INTERRUPT, parse_interrupt, "8877 6655 4433 2211", UNIQUE),
    (Opcode.DESTROY, parse_nothing, "", b""),
    (
        Opcode.IOCTL,
        parse_ioctl,
        "0700 0000 0000 0000 0000 0000 0166 0880 0000 0000 0000 0000 0400 0000 0800 0000  0102 0304",
        0x80086601,
    ),
]
PARSERS = {opcode: parse for opcode, parse, _, _ in CASES} | {Opcode.INIT: parse_init}
BODIES = [(opcode, bytes.fromhex(text)) for opcode, _, text, _ in CASES]


def message_of(opcode: int, body: bytes, unique: int = UNIQUE, extensions: bytes = b"") -> bytes:
    units = len(extensions) // 8
    length = 40 + len(body) + len(extensions)
    return struct.pack("<IIQQIIIHH", length, opcode, unique, 5, 1000, 100, 4711, units, 0) + body + extensions


def parse(message: bytes) -> Any:
    """Everything that an engine does to the bytes of a request."""
    request = parse_request(message)
    return PARSERS.get(Opcode(request.opcode), parse_nothing)(request)


def test_a_header() -> None:
    message = bytes.fromhex(
        "2a00 0000 0100 0000 8877 6655 4433 2211 0500 0000 0100 0000 e803 0000 6400 0000 6712 0000 0000 0000 6100"
    )
    assert parse_request(message) == (Opcode.LOOKUP, UNIQUE, (1 << 32) + 5, 1000, 100, 4711, b"a\0")


@pytest.mark.parametrize(("opcode", "parser", "text", "meaning"), CASES)
def test_arguments(opcode: Opcode, parser: Callable[[Request], Any], text: str, meaning: Any) -> None:
    assert parser(parse_request(message_of(opcode, bytes.fromhex(text)))) == meaning


def test_extensions_are_no_arguments() -> None:
    groups = struct.pack("<IIII", 16, 32, 1, 100)
    assert parse(message_of(Opcode.LOOKUP, b"name\0", extensions=groups)) == b"name"
    with pytest.raises(MalformedRequestError, match="extensions are longer"):
        parse_request(struct.pack("<IIQQIIIHH", 48, 1, UNIQUE, 5, 0, 0, 0, 2, 0) + b"name\0\0\0\0")


@pytest.mark.parametrize(
    "opcode", [opcode for opcode in Opcode if opcode not in PARSERS] + [Opcode.INIT], ids=lambda opcode: opcode.name
)
def test_operations_that_nothing_here_parses_are_known_as_such(opcode: Opcode) -> None:
    assert parse_request(message_of(opcode, bytes(24))).opcode == opcode


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 4096, 436207616, 0xFFFFFFFF])
def test_unknown_operations_are_not_implemented(opcode: int) -> None:
    with pytest.raises(MalformedRequestError) as caught:
        parse_request(message_of(opcode, b""))
    error = caught.value
    assert (error.errno, error.unique, error.opcode, error.needs_answer) == (errno.ENOSYS, UNIQUE, opcode, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"name", b"na\0me\0", b"name\0\0", b"\0name\0"],
)
def test_names_without_their_nul(body: bytes) -> None:
    for opcode, start in ((Opcode.LOOKUP, b""), (Opcode.GETXATTR, bytes(8))):
        with pytest.raises(MalformedRequestError, match="name is empty or does not end with a NUL") as caught:
            parse(message_of(opcode, start + body))
        assert (caught.value.errno, caught.value.unique) == (errno.EINVAL, UNIQUE)


def test_negative_offsets() -> None:
    with pytest.raises(MalformedRequestError, match="offset is negative"):
        parse(message_of(Opcode.READ, struct.pack("<QqIIQII", 0, -1, 1, 0, 0, 0, 0)))


@pytest.mark.parametrize("count", [1, 3, 1 << 28, 0xFFFFFFFF])
def test_a_wrong_number_of_forgets(count: int) -> None:
    with pytest.raises(MalformedRequestError, match="impossible size") as caught:
        parse(message_of(Opcode.BATCH_FORGET, struct.pack("<II", count, 0) + bytes(32)))
    assert not caught.value.needs_answer


@pytest.mark.parametrize(("opcode", "body"), [case for case in BODIES if case[1]])
def test_arguments_of_another_size(opcode: Opcode, body: bytes) -> None:
    """One byte less is never accepted, one more only by what has no fixed size and then is something else."""
    for wrong in (body[:-1], body + b"\1", b""):
        with pytest.raises(MalformedRequestError):
            parse(message_of(opcode, wrong))


@pytest.mark.parametrize("length", range(40))
def test_fragments_of_a_header(length: int) -> None:
    with pytest.raises(MalformedRequestError, match="too few for a header") as caught:
        parse_request(message_of(Opcode.GETATTR, bytes(16))[:length])
    assert caught.value.unique == (UNIQUE if length >= 16 else 0)
    assert caught.value.needs_answer == (length >= 16)


@pytest.mark.parametrize("change", [-1, 1, 1 << 16])
def test_a_length_that_is_not_what_came(change: int) -> None:
    message = message_of(Opcode.LOOKUP, b"name\0")
    lying = struct.pack("<I", len(message) + change) + message[4:]
    with pytest.raises(MalformedRequestError, match=f"45 bytes came, its header says {45 + change}"):
        parse_request(lying)


MUTATED = st.tuples(
    st.sampled_from([*BODIES, (Opcode.INIT, struct.pack("<IIIIII", 7, 45, 1 << 17, 1 << 30, 0, 0) + bytes(40))]),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=6),
    st.integers(-8, 8),
    st.booleans(),
)


@given(MUTATED)
def test_mutated_requests(mutation: tuple[tuple[Opcode, bytes], list[tuple[int, int]], int, bool]) -> None:
    (opcode, body), changes, growth, honest_length = mutation
    message = bytearray(message_of(opcode, body))
    message = message[:growth] if growth < 0 else message + bytes(growth)
    for place, value in changes:
        message[place % len(message)] = value
    if honest_length and len(message) >= 4:
        message[:4] = struct.pack("<I", len(message))
    check(bytes(message))


@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes(message: bytes) -> None:
    check(message)


@given(st.integers(0, 0xFFFFFFFF) | st.sampled_from(list(map(int, Opcode))), st.binary(max_size=100), st.integers(0, 3))
def test_random_arguments(opcode: int, body: bytes, units: int) -> None:
    check(struct.pack("<IIQQIIIHH", 40 + len(body), opcode, UNIQUE, 5, 0, 0, 0, units, 0) + body)


def check(message: bytes) -> None:
    """Something comes out of a message, or the one error that says whom to answer what."""
    error = error_of(message)
    if error is not None:
        assert error.errno in (errno.EINVAL, errno.ENOSYS)
        assert error.unique == (int.from_bytes(message[8:16], "little") if len(message) >= 16 else 0)
        assert len(pack_error_reply(error.unique, error.errno)) == 16
        assert "\n" not in str(error)


def error_of(message: bytes) -> MalformedRequestError | None:
    try:
        parse(message)
    except MalformedRequestError as error:
        return error
    return None


def test_only_little_endian_64_bit_hosts_can_speak_it() -> None:
    assert host_refusal() is None
    assert host_refusal("little", 8) is None
    assert host_refusal("big", 8) == "the kernel channel needs a little-endian machine, and this one is big-endian"
    assert host_refusal("little", 4) == "the kernel channel needs a 64-bit Python, and this one has 32 bits"
