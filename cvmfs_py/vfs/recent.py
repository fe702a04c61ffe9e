"""A small memory of what was used last, by inode. Pure; one thread at a time."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Forgets the half that was put first when it is full: cheaper for each use than a list in order."""

    __slots__ = ("_limit", "_new", "_old")

    def __init__(self, limit: int) -> None:
        self._limit = max(2, limit)
        self._new: dict[int, T] = {}
        self._old: dict[int, T] = {}

    def get(self, key: int) -> T | None:
        found = self._new.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: int, value: T) -> None:
        self._new[key] = value
        if len(self._new) * 2 > self._limit:
            self._old, self._new = self._new, {}

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def clear(self) -> None:
        self._new.clear()
        self._old.clear()
