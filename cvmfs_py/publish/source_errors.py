"""The refusal to publish a source that cannot be read whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 5
REMEMBERED = 1000


class UnreadableSourceError(PublishError):
    """Parts of what was to be published could not be read. Nothing was published."""

    def __init__(self, failures: Sequence[tuple[bytes, str]], count: int | None = None) -> None:
        """`failures`: paths in the source and reasons; `count`: of all, if some are left out."""
        self.failures = tuple(failures)
        self.count = len(self.failures) if count is None else count
        shown = "; ".join(f"{show_path(path)}: {reason}" for path, reason in self.failures[:_SHOWN])
        more = f"; and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        what = "one entry" if self.count == 1 else f"{self.count} entries"
        super().__init__(f"nothing was published, because {what} of the source cannot be read: {shown}{more}")


class Failures:
    """Collects failures, and forgets details of the many above a limit."""

    def __init__(self) -> None:
        self._remembered: list[tuple[bytes, str]] = []
        self._count = 0

    def add(self, path: bytes, reason: str | None) -> None:
        self._count += 1
        if len(self._remembered) < REMEMBERED:
            self._remembered.append((path, reason or "it cannot be read"))

    def raise_if_any(self) -> None:
        if self._count:
            raise UnreadableSourceError(self._remembered, self._count)
