"""Slots for connections, handed out by priority: catalogs before data before prefetch, first come first served within.

Concurrency: for tasks of one event loop. A cancelled waiter leaves the queue and never keeps a slot.
"""

from __future__ import annotations

import enum
import heapq

import trio


class Priority(enum.IntEnum):
    """Who goes first."""

    METADATA = 0
    DATA = 1
    PREFETCH = 2


class Turn:
    """One request's place in the queue, which may move forward but not back.

    It keeps its age when it waits again: who tries once more goes before those who have not begun, so that what it is
    going to learn (a dead host) spares them the attempt.
    """

    __slots__ = ("_limiter", "age", "granted", "priority", "waiting")

    def __init__(self, limiter: Limiter, priority: Priority, age: int) -> None:
        self._limiter = limiter
        self.priority = priority
        self.age = age
        self.waiting = False
        self.granted: trio.Event | None = None

    def raise_to(self, priority: Priority) -> None:
        """Somebody more urgent wants the same."""
        if priority < self.priority:
            self.priority = priority
            if self.waiting:
                self._limiter.requeue(self)


class Limiter:
    """A number of slots and a queue."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._queue: list[tuple[int, int, int, Turn]] = []
        self._serial = 0

    @property
    def waiting(self) -> int:
        return len({id(entry[3]) for entry in self._queue if entry[3].waiting})

    def turn(self, priority: Priority) -> Turn:
        self._serial += 1
        return Turn(self, priority, self._serial)

    async def acquire(self, turn: Turn) -> None:
        """Takes a slot, to be given back with `release`."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(turn)

    def requeue(self, turn: Turn) -> None:
        """Enters a waiter once more, at its new priority; the older entry is skipped when its time comes."""
        self._serial += 1
        heapq.heappush(self._queue, (turn.priority, turn.age, self._serial, turn))

    async def _wait(self, turn: Turn) -> None:
        turn.granted = trio.Event()
        turn.waiting = True
        self.requeue(turn)
        try:
            await turn.granted.wait()
        except trio.Cancelled:
            if not turn.waiting:  # the slot was granted in the same moment
                self.release()
            turn.waiting = False
            raise

    def release(self) -> None:
        """Gives a slot back: to the first in the queue, if there is one."""
        while self._queue:
            turn = heapq.heappop(self._queue)[3]
            if turn.waiting and turn.granted is not None:
                turn.waiting = False
                turn.granted.set()
                return
        self._free += 1
