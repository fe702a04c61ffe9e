"""Errors of many tasks: one failure ends the work of its siblings, or is noted while the others go on.

Concurrency: for tasks of one event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cvmfs_py.errors import FetchError, ObjectGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONSEQUENCES = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)  # of a task that ended at the other end of a channel


class first_error:  # used like a function
    """Raises the first real error of a group in its place; cancellations count only when there is nothing else.

    The error is free of references to itself (through its context, or the frames of its traceback), so that what its
    tasks had open is closed when it has been handled, and not some time later.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        first = _first_of(error) if isinstance(error, BaseExceptionGroup) else None
        if first is None:
            return
        context = first.__context__
        try:
            raise first
        finally:
            first.__context__ = context
            del first, context, error, traceback


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    errors = list(_leaves(group))
    interrupts = [error for error in errors if isinstance(error, KeyboardInterrupt)]
    if interrupts:
        return interrupts[0]
    real = [error for error in errors if not isinstance(error, trio.Cancelled)]
    if not real or len(real) < len(errors):
        return None  # a cancellation from outside is on its way up and must arrive
    return next((error for error in real if not isinstance(error, _CONSEQUENCES)), real[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


class Patience:
    """Tells the failure of single objects from the loss of the network: that many in a row, and nothing fetched."""

    __slots__ = ("_failures", "_limit")

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._failures = 0

    def fetched(self) -> None:
        self._failures = 0

    def failed(self, error: FetchError) -> None:
        """Raises the error when it is one too many. That all servers lack an object says nothing about the network."""
        if isinstance(error, ObjectGoneError):
            return
        self._failures += 1
        if self._failures >= self._limit:
            raise error
