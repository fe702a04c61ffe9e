"""Single flight: what several tasks want at the same time is fetched once, by a task that belongs to none of them.

Knows neither objects nor HTTP: a key, a job, a result that is handed to every waiter, an error of which every waiter
gets an own copy. A job whose last waiter left goes on for a grace period, because a program that was interrupted is
often started again, and is cancelled then.

Concurrency: for tasks of one event loop; jobs run in the nursery that was given. Waiting for many flights costs one
event, not one task each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from cache.errors import CacheError
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from cvmfs_py.network.limiter import Priority, Turn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Booking(Generic[T]):
    """What one waiter wants: what it is called, how urgent it is, how it is fetched, how a second result is made."""

    key: Hashable
    priority: Priority
    turn: Callable[[], Turn]
    job: Callable[[Turn], Awaitable[T]]
    share: Callable[[], T]


class _Group:
    """One waiter for several flights: awake when all have landed, or the first one failed."""

    __slots__ = ("awake", "failed", "missing")

    def __init__(self) -> None:
        self.awake = trio.Event()
        self.missing = 0
        self.failed: CvmfsError | CacheError | None = None

    def landed(self, error: CvmfsError | CacheError | None) -> None:
        self.missing -= 1
        if error is not None and self.failed is None:
            self.failed = error
        if self.failed is not None or not self.missing:
            self.awake.set()


class _Flight(Generic[T]):
    """One job under way, and who waits for it."""

    __slots__ = ("error", "groups", "has_landed", "joined", "key", "result", "scope", "turn", "waiters")

    def __init__(self, key: Hashable, turn: Turn) -> None:
        self.key = key
        self.turn = turn
        self.waiters = 0
        self.joined = 0  # how often, ever
        self.groups: list[_Group] = []
        self.has_landed = False
        self.scope = trio.CancelScope()
        self.result: T | None = None
        self.error: CvmfsError | CacheError | None = None


class Flights(Generic[T]):
    """The jobs under way, by key."""

    def __init__(self, nursery: trio.Nursery, grace_s: float, discard: Callable[[T], None]) -> None:
        self._nursery = nursery
        self._grace_s = grace_s
        self._discard = discard
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, bookings: Sequence[Booking[T]]) -> list[T]:
        """The results of all, in order; starts what is not under way. The first error ends the waiting."""
        group = _Group()
        flights = [self._board(booking, group) for booking in bookings]
        try:
            if flights:
                await group.awake.wait()
        except trio.Cancelled:
            self._leave(flights, group)
            raise
        if group.failed is not None:
            self._leave(flights, group)
            raise fresh(group.failed) from group.failed.__cause__
        return self._take(flights, bookings)

    def _board(self, booking: Booking[T], group: _Group) -> _Flight[T]:
        flight = self._flights.get(booking.key)
        if flight is None:
            flight = _Flight(booking.key, booking.turn())
            self._flights[booking.key] = flight
            self._nursery.start_soon(self._fly, flight, booking.job)
        else:
            flight.turn.raise_to(booking.priority)
        flight.waiters += 1
        flight.joined += 1
        flight.groups.append(group)
        group.missing += 1
        return flight

    async def _fly(self, flight: _Flight[T], job: Callable[[Turn], Awaitable[T]]) -> None:
        try:
            with flight.scope:
                flight.result = await job(flight.turn)
        except (CvmfsError, CacheError) as error:
            flight.error = error
        finally:
            self._forget(flight)
            flight.has_landed = True
            if flight.result is not None and not flight.waiters:
                self._discard(flight.result)
            for group in flight.groups:
                group.landed(flight.error)

    def _take(self, flights: list[_Flight[T]], bookings: Sequence[Booking[T]]) -> list[T]:
        """One waiter's own results: the last waiter of a flight gets the original, everybody else a further one."""
        results: list[T] = []
        try:
            for flight, booking in zip(flights, bookings, strict=True):
                if flight.result is None:
                    raise CvmfsError("a download ended without a result")
                results.append(flight.result if flight.waiters == 1 else booking.share())
                flight.waiters -= 1
        finally:
            if len(results) < len(flights):
                for flight in flights[len(results) :]:
                    self._leave_one(flight)
                for result in results:
                    self._discard(result)
        return results

    def _leave(self, flights: list[_Flight[T]], group: _Group) -> None:
        for flight in flights:
            flight.groups.remove(group)
            self._leave_one(flight)

    def _leave_one(self, flight: _Flight[T]) -> None:
        flight.waiters -= 1
        if flight.waiters:
            return
        if not flight.has_landed:
            self._nursery.start_soon(self._abandon, flight)
        elif flight.result is not None:
            self._discard(flight.result)

    async def _abandon(self, flight: _Flight[T]) -> None:
        """Cancels a job that nobody came back for."""
        joined = flight.joined
        await trio.sleep(self._grace_s)
        if flight.joined != joined or flight.has_landed:
            return
        self._forget(flight)  # who comes from now on starts anew
        flight.scope.cancel()

    def _forget(self, flight: _Flight[T]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


def fresh(error: CvmfsError | CacheError) -> CvmfsError | CacheError:
    """The same error as a new object: one that is raised in several tasks would collect all their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    return copy
