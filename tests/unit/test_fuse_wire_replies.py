"""Replies to the kernel: their exact bytes."""

from __future__ import annotations

import errno
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.fuse.wire import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE
from cvmfs_py.fuse.wire_replies import (
    FOREVER_S,
    NO_ENTRY,
    FileSystemStatistics,
    pack_attr_reply,
    pack_dirent,
    pack_empty_reply,
    pack_entry,
    pack_entry_record,
    pack_entry_reply,
    pack_error_reply,
    pack_lseek_reply,
    pack_name_record,
    pack_negative_entry,
    pack_open_reply,
    pack_reply,
    pack_reply_head,
    pack_statfs_reply,
    pack_validity,
    pack_xattr_reply,
)

UNIQUE = 0x1122334455667788
UNIQUE_TEXT = "8877 6655 4433 2211"
ATTR = bytes(range(88))
VALIDITY = pack_validity(2.5, 60.25)


def test_errors_and_success() -> None:
    assert pack_error_reply(UNIQUE, errno.ENOENT) == bytes.fromhex(f"1000 0000 feff ffff {UNIQUE_TEXT}")
    assert pack_empty_reply(UNIQUE) == bytes.fromhex(f"1000 0000 0000 0000 {UNIQUE_TEXT}")


def test_content() -> None:
    expected = bytes.fromhex(f"1500 0000 0000 0000 {UNIQUE_TEXT}") + b"hello"
    assert pack_reply(UNIQUE, b"hello") == expected
    assert pack_reply_head(UNIQUE, 5) + b"hello" == expected


def test_validity() -> None:
    assert VALIDITY.of_entry == bytes.fromhex("0200 0000 0000 0000 3c00 0000 0000 0000 0065 cd1d 80b2 e60e")
    assert VALIDITY.of_attr == bytes.fromhex("3c00 0000 0000 0000 80b2 e60e 0000 0000")


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_any_timeout_fits(entry_timeout_s: float, attr_timeout_s: float) -> None:
    entry_s, attr_s, entry_ns, attr_ns = struct.unpack("<QQII", pack_validity(entry_timeout_s, attr_timeout_s).of_entry)
    for timeout_s, whole_s, rest_ns in ((entry_timeout_s, entry_s, entry_ns), (attr_timeout_s, attr_s, attr_ns)):
        assert rest_ns < 1_000_000_000
        assert whole_s + rest_ns / 1e9 == pytest.approx(min(max(timeout_s, 0), FOREVER_S), abs=1e-9)


def test_infinite_timeouts_are_long_ones() -> None:
    assert pack_validity(math.inf, math.inf) == pack_validity(FOREVER_S, FOREVER_S)


def test_entries() -> None:
    entry = pack_entry(0x0102, VALIDITY, ATTR)
    assert entry == bytes.fromhex("0201 0000 0000 0000 0000 0000 0000 0000") + VALIDITY.of_entry + ATTR
    assert pack_entry_reply(UNIQUE, entry) == bytes.fromhex(f"9000 0000 0000 0000 {UNIQUE_TEXT}") + entry
    assert pack_negative_entry(VALIDITY) == bytes(16) + VALIDITY.of_entry + bytes(88)
    assert bytes(128) == NO_ENTRY


def test_attributes() -> None:
    expected = bytes.fromhex(f"7800 0000 0000 0000 {UNIQUE_TEXT}") + VALIDITY.of_attr + ATTR
    assert pack_attr_reply(UNIQUE, VALIDITY, ATTR) == expected


def test_open() -> None:
    expected = f"2000 0000 0000 0000 {UNIQUE_TEXT} 0700 0000 0000 0000 0a00 0000 0000 0000"
    assert pack_open_reply(UNIQUE, 7, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR) == bytes.fromhex(expected)


def test_statfs() -> None:
    statistics = FileSystemStatistics(1 << 40, 2, 3, 4, 5, 1 << 20, 255, 512)
    expected = bytes.fromhex(
        f"6000 0000 0000 0000 {UNIQUE_TEXT}"
        "0000 0000 0001 0000 0200 0000 0000 0000 0300 0000 0000 0000 0400 0000 0000 0000 0500 0000 0000 0000"
        "0000 1000 ff00 0000 0002 0000 0000 0000"
    ) + bytes(24)
    assert pack_statfs_reply(UNIQUE, statistics) == expected


def test_extended_attributes() -> None:
    size = bytes.fromhex(f"1800 0000 0000 0000 {UNIQUE_TEXT} 0500 0000 0000 0000")
    assert pack_xattr_reply(UNIQUE, 0, b"value") == size
    assert pack_xattr_reply(UNIQUE, 5, b"value") == pack_reply(UNIQUE, b"value")
    assert pack_xattr_reply(UNIQUE, 9, b"value") == pack_reply(UNIQUE, b"value")
    assert pack_xattr_reply(UNIQUE, 4, b"value") == pack_error_reply(UNIQUE, errno.ERANGE)
    assert pack_xattr_reply(UNIQUE, 1, b"") == pack_reply(UNIQUE, b"")


def test_lseek() -> None:
    expected = bytes.fromhex(f"1800 0000 0000 0000 {UNIQUE_TEXT} 0010 0000 0000 0000")
    assert pack_lseek_reply(UNIQUE, 4096) == expected


def test_records_of_a_listing() -> None:
    record = bytes.fromhex("0500 0000 0000 0000 0900 0000 0000 0000 0300 0000 0800 0000 6162 6300 0000 0000")
    assert pack_dirent(5, 9, b"abc", 8) == record
    assert pack_entry_record(5, VALIDITY, ATTR, 9, b"abc", 8) == pack_entry(5, VALIDITY, ATTR) + record


@pytest.mark.parametrize("length", [*range(1, 20), 254, 255, 256, 257, 264, 265, 1024])
def test_records_are_aligned_whatever_the_name(length: int) -> None:
    name = b"n" * length
    padding = bytes(-length % 8)
    record = struct.pack("<QQII", 5, 9, length, 4) + name + padding
    assert len(record) % 8 == 0
    assert pack_dirent(5, 9, name, 4) == record
    assert pack_entry_record(5, VALIDITY, ATTR, 9, name, 4) == pack_entry(5, VALIDITY, ATTR) + record
    assert pack_name_record(5, 9, name, 4) == NO_ENTRY + record
