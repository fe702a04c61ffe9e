"""What is said once a day: by one of many processes, whatever the clock and the disk do."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.mount.once_a_day import DAY_S, is_due

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1.7e9


def test_once_a_day(tmp_path: Path) -> None:
    memo = tmp_path / "told"
    assert is_due(memo, NOW_S)
    assert not is_due(memo, NOW_S)
    assert not is_due(memo, NOW_S + DAY_S - 1)
    assert is_due(memo, NOW_S + DAY_S)
    assert not is_due(memo, NOW_S + DAY_S + 1)


def test_a_clock_that_is_set_back_silences_nothing(tmp_path: Path) -> None:
    memo = tmp_path / "told"
    assert is_due(memo, NOW_S + 1e9)
    assert is_due(memo, NOW_S)
    assert not is_due(memo, NOW_S + 1)


@pytest.mark.parametrize("content", [b"", b"x", b"1e9\n", b"-1\n", b"1700000000", b"9" * 100])
def test_a_damaged_memo_counts_as_none(tmp_path: Path, content: bytes) -> None:
    memo = tmp_path / "told"
    memo.write_bytes(content)
    assert is_due(memo, NOW_S)
    assert not is_due(memo, NOW_S)


def test_one_of_many_says_it(tmp_path: Path) -> None:
    memo = tmp_path / "told"
    with memo.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not is_due(memo, NOW_S)
    assert is_due(memo, NOW_S)


def test_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    assert is_due(tmp_path / "none" / "told", NOW_S)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert is_due(tmp_path / "link", NOW_S)
    assert not (tmp_path / "target").exists()
    os.mkfifo(tmp_path / "pipe")
    assert is_due(tmp_path / "pipe", NOW_S)
