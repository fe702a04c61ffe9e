"""Tells, as long as somebody wants to know, what an event loop's requests are waiting for.

Knows no terminal: what it tells goes to a line there, or first from a daemon to who has started it.

Concurrency: a task of the loop it tells about; it goes when the loop ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from cvmfs_py.network.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S = 0.25
_LONGER_THAN_S = 0.4  # what takes less is not what a user waits for


class Line(Protocol):
    """Where a user sees it."""

    def offer(self, text: str) -> None:
        """What is waited for at this moment, or nothing."""
        ...

    def withdraw(self) -> None:
        """The waiting is over."""
        ...


def start_telling(tell: Callable[[str], None], is_wanted: Callable[[], bool] = lambda: True) -> None:
    """From within the loop: calls `tell` with a line four times a second, an empty one when nothing is waited for.

    It is not called any more once it is not wanted.
    """
    trio.lowlevel.spawn_system_task(_tell, tell, is_wanted)  # nobody's child: it neither fails nor holds up anybody


async def _tell(tell: Callable[[str], None], is_wanted: Callable[[], bool]) -> None:
    while is_wanted():
        tell(WAITS.describe(trio.current_time(), longer_than_s=_LONGER_THAN_S))
        await trio.sleep(_LOOK_S)
