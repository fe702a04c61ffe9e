"""The table of extended attributes has every attribute that a mount has, and no other."""

from __future__ import annotations

from cvmfs_py.vfs.facts import REPOSITORIES
from cvmfs_py.vfs.magic import MAGIC
from cvmfs_py.vfs.magic_table import DESCRIPTIONS, format_table


def test_every_attribute_is_described() -> None:
    assert set(DESCRIPTIONS) == {name.decode() for name in (*MAGIC, REPOSITORIES)}


def test_a_row_is_a_row() -> None:
    rows = format_table().splitlines()
    assert len(rows) == len(DESCRIPTIONS) + 2
    assert all(row.count("|") == 5 for row in rows)
