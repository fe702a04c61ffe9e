"""RIPEMD-160, also where the system's OpenSSL refuses it (FIPS mode, legacy providers off).

`new_ripemd160` gives hashlib's implementation when there is one, else the one below (about 1 MB/s: right, not fast).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol


class Ripemd(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


def new_ripemd160() -> Ripemd:
    try:
        return hashlib.new("ripemd160", usedforsecurity=False)
    except ValueError:
        return PureRipemd160()


_LEFT_WORDS = (
    bytes(range(16))
    + bytes((7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8))
    + bytes((3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12))
    + bytes((1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2))
    + bytes((4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13))
)
_RIGHT_WORDS = (
    bytes((5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12))
    + bytes((6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2))
    + bytes((15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13))
    + bytes((8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14))
    + bytes((12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11))
)
_LEFT_SHIFTS = (
    bytes((11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8))
    + bytes((7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12))
    + bytes((11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5))
    + bytes((11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12))
    + bytes((9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6))
)
_RIGHT_SHIFTS = (
    bytes((8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6))
    + bytes((9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11))
    + bytes((9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5))
    + bytes((15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8))
    + bytes((8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11))
)
_LEFT_CONSTANTS = (0, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_RIGHT_CONSTANTS = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0)
_MASK = 0xFFFFFFFF


class PureRipemd160:
    """RIPEMD-160 after its specification, in plain Python."""

    def __init__(self) -> None:
        self._state: tuple[int, ...] = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
        self._tail = b""
        self._length_bytes = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        pending = self._tail + bytes(data)
        self._length_bytes += len(data)
        whole = len(pending) & ~63
        for start in range(0, whole, 64):
            self._state = _compress(self._state, pending[start : start + 64])
        self._tail = pending[whole:]

    def digest(self) -> bytes:
        state = self._state
        padding = b"\x80" + b"\0" * ((55 - self._length_bytes) % 64) + struct.pack("<Q", self._length_bytes * 8)
        last = self._tail + padding
        for start in range(0, len(last), 64):
            state = _compress(state, last[start : start + 64])
        return struct.pack("<5I", *state)


def _mix(group: int, x: int, y: int, z: int) -> int:
    if group == 0:
        return x ^ y ^ z
    if group == 1:
        return (x & y) | (~x & z)
    if group == 2:
        return (x | ~y) ^ z
    if group == 3:
        return (x & z) | (y & ~z)
    return x ^ (y | ~z)


def _line(
    state: tuple[int, ...], words: tuple[int, ...], order: bytes, shifts: bytes, constants: tuple[int, ...], flip: bool
) -> tuple[int, ...]:
    a, b, c, d, e = state
    for step in range(80):
        group = step // 16
        mixed = _mix(4 - group if flip else group, b, c, d)
        total = (a + mixed + words[order[step]] + constants[group]) & _MASK
        shift = shifts[step]
        total = (((total << shift) | (total >> (32 - shift))) + e) & _MASK
        a, b, c, d, e = e, total, b, ((c << 10) | (c >> 22)) & _MASK, d
    return a, b, c, d, e


def _compress(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    words = struct.unpack("<16I", block)
    left = _line(state, words, _LEFT_WORDS, _LEFT_SHIFTS, _LEFT_CONSTANTS, flip=False)
    right = _line(state, words, _RIGHT_WORDS, _RIGHT_SHIFTS, _RIGHT_CONSTANTS, flip=True)
    return tuple((state[(i + 1) % 5] + left[(i + 2) % 5] + right[(i + 3) % 5]) & _MASK for i in range(5))
