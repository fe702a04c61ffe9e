"""Notices to the kernel: their exact bytes."""

from __future__ import annotations

from cvmfs_py.fuse.wire_notices import (
    ATTRIBUTES_ONLY,
    pack_delete,
    pack_inc_epoch,
    pack_inval_entry,
    pack_inval_inode,
    pack_prune,
    pack_store_head,
)

NOBODY = "0000 0000 0000 0000"  # a notice answers no request


def test_inval_inode() -> None:
    expected = f"2800 0000 0200 0000 {NOBODY} 0500 0000 0000 0000 0010 0000 0000 0000 0020 0000 0000 0000"
    assert pack_inval_inode(5, 4096, 8192) == bytes.fromhex(expected)
    expected = f"2800 0000 0200 0000 {NOBODY} 0500 0000 0000 0000 ffff ffff ffff ffff 0000 0000 0000 0000"
    assert pack_inval_inode(5, ATTRIBUTES_ONLY) == bytes.fromhex(expected)


def test_inval_entry() -> None:
    expected = f"2400 0000 0300 0000 {NOBODY} 0100 0000 0000 0000 0300 0000 0000 0000 6162 6300"
    assert pack_inval_entry(1, b"abc") == bytes.fromhex(expected)
    expected = f"2400 0000 0300 0000 {NOBODY} 0100 0000 0000 0000 0300 0000 0100 0000 6162 6300"
    assert pack_inval_entry(1, b"abc", expire_only=True) == bytes.fromhex(expected)


def test_delete() -> None:
    expected = f"2c00 0000 0600 0000 {NOBODY} 0100 0000 0000 0000 0500 0000 0000 0000 0300 0000 0000 0000 6162 6300"
    assert pack_delete(1, 5, b"abc") == bytes.fromhex(expected)


def test_inc_epoch() -> None:
    assert pack_inc_epoch() == bytes.fromhex(f"1000 0000 0800 0000 {NOBODY}")


def test_store() -> None:
    expected = f"2d00 0000 0400 0000 {NOBODY} 0500 0000 0000 0000 0010 0000 0000 0000 0500 0000 0000 0000"
    assert pack_store_head(5, 4096, 5) == bytes.fromhex(expected)


def test_prune() -> None:
    expected = f"3000 0000 0900 0000 {NOBODY} 0200 0000 {'00' * 12} 0500 0000 0000 0000 0600 0000 0000 0000"
    assert pack_prune([5, 6]) == bytes.fromhex(expected)
