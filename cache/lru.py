"""The order of use, in memory. Knows neither sizes of caches nor what is evicted.

The store in memory keeps all of its order here; the store on disk keeps what is not yet in its index.

Concurrency: none of its own; its owner guards it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.ref import ObjectRef


@dataclass(frozen=True, slots=True)
class Use:
    """What is remembered of an object when it is used."""

    size_bytes: int
    ref: ObjectRef
    inserted: bool  # since the order was last drained

    @property
    def label(self) -> str:
        # Names in a repository are bytes; what is no text must not break the index.
        return self.ref.label[:512].encode("utf-8", "replace").decode()


class Lru:
    """Objects by hash text, the least recently used first."""

    __slots__ = ("_uses", "inserted", "inserted_bytes")

    def __init__(self) -> None:
        self._uses: dict[str, Use] = {}
        self.inserted = 0
        self.inserted_bytes = 0

    def insert(self, text: str, size_bytes: int, ref: ObjectRef) -> None:
        self.forget(text)
        self._uses[text] = Use(size_bytes, ref, True)
        self.inserted += 1
        self.inserted_bytes += size_bytes

    def touch(self, text: str, size_bytes: int, ref: ObjectRef) -> None:
        old = self._uses.pop(text, None)
        self._uses[text] = Use(size_bytes, ref, old is not None and old.inserted)

    def forget(self, text: str) -> bool:
        old = self._uses.pop(text, None)
        if old is not None and old.inserted:
            self.inserted -= 1
            self.inserted_bytes -= old.size_bytes
        return old is not None

    def clear(self) -> None:
        self._uses.clear()
        self.inserted = self.inserted_bytes = 0

    def __len__(self) -> int:
        return len(self._uses)

    def oldest_first(self) -> Iterator[tuple[str, Use]]:
        return iter(self._uses.items())
