"""What a walk through directories will list next: guessed from what it has listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse.walk import Walk
from cvmfs_py.vfs.inodes import Inode

if TYPE_CHECKING:
    from collections.abc import Callable

# A tree by number: 1 has 10, 20 and 30; each of those has two below it, the first of which has one more.
TREE: dict[int, list[int]] = {
    1: [10, 20, 30],
    **{n: [n + 1, n + 5] for n in (10, 20, 30)},
    **{n + 1: [n + 2] for n in (10, 20, 30)},
}


def list_directory(walk: Walk, ino: int, following: int | None = None) -> None:
    walk.listed(Inode(ino), [Inode(each) for each in TREE.get(ino, [])], following)


def expected(walk: Walk, count: int = 3) -> list[tuple[int, int]]:
    return [(int(ino), position) for ino, position in walk.expected(count)]


def depth_first(order: Callable[[list[int]], list[int]]) -> list[int]:
    visited = []
    pending = [1]
    while pending:
        visited.append(pending.pop())
        pending += order(TREE.get(visited[-1], []))
    return visited


@pytest.mark.parametrize("order", [lambda names: names[::-1], lambda names: names], ids=["in order", "as a stack"])
def test_after_two_directories_a_walk_is_known(order: Callable[[list[int]], list[int]]) -> None:
    walk = Walk()
    visited = depth_first(order)
    assert len(visited) == 13
    for number, ino in enumerate(visited[:-1]):
        list_directory(walk, ino)
        if number >= 2:
            assert expected(walk)[0] == (visited[number + 1], 0)
    list_directory(walk, visited[-1])
    assert expected(walk) == []


def test_one_listing_is_no_walk() -> None:
    walk = Walk()
    list_directory(walk, 1)
    assert expected(walk) == []
    list_directory(walk, 77)  # somewhere else
    assert expected(walk) == []


def test_a_listing_goes_on_before_anything_else() -> None:
    walk = Walk()
    list_directory(walk, 1, following=200)
    assert expected(walk) == [(1, 200)]
    list_directory(walk, 1, following=400)
    assert expected(walk) == [(1, 400)]
    list_directory(walk, 10, following=9)
    assert expected(walk) == [(10, 9), (11, 0), (15, 0)]
    assert expected(walk, 1) == [(10, 9)]


def test_what_lies_above_comes_after_what_lies_below() -> None:
    walk = Walk()
    for ino in (1, 10, 11):
        list_directory(walk, ino)
    assert expected(walk, 10) == [(12, 0), (15, 0), (20, 0), (30, 0)]
    list_directory(walk, 20)  # it leaves the rest of 10 out
    assert expected(walk, 10) == [(21, 0), (25, 0), (30, 0)]


def test_one_who_goes_elsewhere_begins_anew() -> None:
    walk = Walk()
    for ino in (1, 10, 11):
        list_directory(walk, ino)
    list_directory(walk, 77)
    assert expected(walk) == []
    list_directory(walk, 30)
    assert expected(walk) == []


def test_it_keeps_no_more_than_it_may() -> None:
    walk = Walk()
    for level in range(200):
        walk.listed(Inode(level), [Inode(level + 1)], None)
    assert len(expected(walk, 1000)) <= 64
    many = [Inode(number) for number in range(1000, 9000)]
    walk.listed(Inode(200), many, None)
    assert 0 < len(expected(walk, 10_000)) <= 1024 + 64
