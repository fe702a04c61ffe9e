"""Pins: open, verified local objects that stay readable whatever eviction does.

A pin is an open file descriptor plus a count in its store, which this process's eviction respects; another process
may unlink the file, and the descriptor stays valid. Does not decide what may be opened.

Concurrency: a pin is opened and closed in the thread of its store; its descriptor may be read from any thread,
with positioned reads only, because nobody owns the file offset.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from cache.errors import ObjectCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.address import ContentHash


class Pin:
    """An open local object. Close it, or use it as a context manager; closing twice is fine."""

    __slots__ = ("_on_close", "content_hash", "fd", "path", "size_bytes")

    def __init__(
        self,
        fd: int,
        size_bytes: int,
        content_hash: ContentHash,
        path: str | None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self.content_hash = content_hash
        self.path = path  # None: the object has no name in any file system
        self._on_close = on_close

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        """The bytes from `offset` on, at most `size` of them; short only at the end of the object."""
        if self.fd < 0:
            raise ValueError("read from a closed pin")
        wanted = max(0, self.size_bytes - offset)
        if size is not None:
            wanted = min(wanted, size)
        parts: list[bytes] = []
        while wanted > 0:
            try:
                part = os.pread(self.fd, wanted, offset)
            except OSError as error:
                raise ObjectCorruptError(
                    f"cannot read cached object {self.content_hash}: {error.strerror}; the disk may be failing",
                    self.content_hash,
                ) from error
            if not part:
                raise ObjectCorruptError(
                    f"cached object {self.content_hash} was truncated while it was open", self.content_hash
                )
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def duplicate(self) -> Pin:
        """A second pin of the same object, to be closed on its own. It counts for eviction as long as the first."""
        return Pin(os.dup(self.fd), self.size_bytes, self.content_hash, self.path)

    def close(self) -> None:
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            warnings.warn(f"pin of object {self.content_hash} was never closed", ResourceWarning, stacklevel=1)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.fd < 0 else f"fd {self.fd}"
        return f"<Pin {self.content_hash} {self.size_bytes} bytes, {state}>"


class PinCounts:
    """How many pins of each object this process holds, by hash text."""

    __slots__ = ("_counts", "_sizes")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def add(self, text: str, size_bytes: int) -> None:
        self._counts[text] = self._counts.get(text, 0) + 1
        self._sizes[text] = size_bytes

    def remove(self, text: str) -> None:
        left = self._counts[text] - 1
        if left:
            self._counts[text] = left
        else:
            del self._counts[text], self._sizes[text]

    def __contains__(self, text: str) -> bool:
        return text in self._counts

    @property
    def total(self) -> int:
        """Pins, of whichever objects."""
        return sum(self._counts.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Every pinned object with its size: a copy, so that a worker thread may walk over it."""
        return self._sizes.copy()
