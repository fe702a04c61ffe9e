"""Single flight in virtual time: one job for many waiters, own results and errors, cancellation, grace."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from cvmfs_py.errors import Attempt, FetchError, ObjectGoneError, Refusal, TrustError
from cvmfs_py.network.flights import Booking, Flights, fresh
from cvmfs_py.network.limiter import Limiter, Priority, Turn

GRACE_S = 10.0


@dataclass
class Airport:
    """Flights whose jobs count themselves and whose results must all be closed in the end."""

    nursery: trio.Nursery
    limiter: Limiter = field(default_factory=lambda: Limiter(4))
    started: int = 0
    finished: int = 0
    cancelled: int = 0
    serial: int = 0
    open: set[str] = field(default_factory=set)
    last_turn: Turn | None = None

    def __post_init__(self) -> None:
        self.flights: Flights[str] = Flights(self.nursery, GRACE_S, self.discard)

    def new(self) -> str:
        self.serial += 1
        name = f"result {self.serial}"
        self.open.add(name)
        return name

    def discard(self, result: str) -> None:
        self.open.remove(result)

    async def join(
        self, key: str = "k", *, job_s: float = 5, error: Exception | None = None, priority: Priority = Priority.DATA
    ) -> str:
        async def job(turn: Turn) -> str:
            self.started += 1
            self.last_turn = turn
            try:
                await trio.sleep(job_s)
            except trio.Cancelled:
                self.cancelled += 1
                raise
            self.finished += 1
            if error is not None:
                raise error
            return self.new()

        booking = Booking(key, priority, lambda: self.limiter.turn(priority), job, self.new)
        return (await self.flights.join([booking]))[0]


async def test_one_job_for_many(autojump_clock: trio.testing.MockClock) -> None:
    results: list[str] = []
    async with trio.open_nursery() as service:
        airport = Airport(service)

        async def want() -> None:
            results.append(await airport.join())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(want)
        assert airport.started == 1
        assert len(set(results)) == 20
        assert airport.open == set(results)
        assert not len(airport.flights)
        assert await airport.join() not in results  # what has landed is over
        assert airport.started == 2


async def test_other_keys_are_other_jobs(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for key in ("a", "b", "a", "c"):
                nursery.start_soon(airport.join, key)
        assert airport.started == 3
        assert trio.current_time() - started == pytest.approx(5)  # side by side


async def test_everybody_gets_an_own_error(autojump_clock: trio.testing.MockClock) -> None:
    error = ObjectGoneError("file x does not exist on any server", (Attempt("h", "DIRECT", "HTTP 404"),))
    caught: list[ObjectGoneError] = []
    async with trio.open_nursery() as service:
        airport = Airport(service)

        async def want() -> None:
            try:
                await airport.join(error=error)
            except ObjectGoneError as mine:
                caught.append(mine)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(want)
    assert len({id(one) for one in (*caught, error)}) == 4
    assert {str(one) for one in caught} == {str(error)}
    assert all(one.attempts == error.attempts for one in caught)


@pytest.mark.parametrize(
    "error",
    [
        FetchError("cannot fetch x", (Attempt("h", "p", "connection refused"),)),
        ObjectGoneError("x", ()),
        TrustError(Refusal.OUTDATED, "the manifest is older"),
    ],
)
def test_fresh_errors_carry_everything(error: FetchError | TrustError) -> None:
    copy = fresh(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


async def test_a_cancelled_waiter_costs_the_others_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        results: list[str] = []

        async def patient() -> None:
            results.append(await airport.join())

        async def impatient() -> None:
            with trio.move_on_after(1):
                await airport.join()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)  # the one that starts the job
            nursery.start_soon(patient)
        assert airport.started == airport.finished == 1
        assert airport.open == set(results)


async def test_a_job_goes_on_for_the_grace_period(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        with trio.move_on_after(1):
            await airport.join(job_s=8)
        await trio.sleep(20)
        assert (airport.started, airport.finished, airport.cancelled) == (1, 1, 0)
        assert not airport.open  # nobody wanted the result in the end


async def test_an_abandoned_job_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        with trio.move_on_after(1):
            await airport.join(job_s=1000)
        await trio.sleep(GRACE_S - 0.5)
        assert len(airport.flights) == 1
        await trio.sleep(1)
        assert (airport.started, airport.finished, airport.cancelled) == (1, 0, 1)
        assert not len(airport.flights)
        assert await airport.join(job_s=1)
        assert airport.started == 2


async def test_who_comes_back_in_time_keeps_the_job(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        for _ in range(4):
            with trio.move_on_after(1):
                await airport.join(job_s=40)
            await trio.sleep(GRACE_S - 2)  # each return starts the grace period anew
        assert await airport.join(job_s=40)
        assert (airport.started, airport.finished, airport.cancelled) == (1, 1, 0)


async def test_the_urgent_raise_the_priority(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        async with trio.open_nursery() as nursery:
            for priority in (Priority.PREFETCH, Priority.DATA, Priority.PREFETCH):
                nursery.start_soon(lambda priority=priority: airport.join(priority=priority))
                await trio.testing.wait_all_tasks_blocked()
        assert airport.last_turn is not None
        assert airport.last_turn.priority is Priority.DATA


async def test_results_of_waiters_that_are_cancelled_at_the_last_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)
        results: list[str] = []

        async def want(scope: trio.CancelScope) -> None:
            with scope:
                results.append(await airport.join())

        scopes = [trio.CancelScope() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(want, scope)
            await trio.sleep(5)
            for scope in scopes:
                scope.cancel()
        await trio.sleep(2 * GRACE_S)
        assert airport.open == set(results)


async def test_many_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)

        def booking(key: str, job_s: float, error: FetchError | None = None) -> Booking[str]:
            async def job(turn: Turn) -> str:
                await trio.sleep(job_s)
                if error is not None:
                    raise error
                return airport.new()

            return Booking(key, Priority.DATA, lambda: airport.limiter.turn(Priority.DATA), job, airport.new)

        assert await airport.flights.join([]) == []
        started = trio.current_time()
        results = await airport.flights.join([booking("a", 3), booking("b", 2), booking("a", 3), booking("c", 1)])
        assert trio.current_time() - started == pytest.approx(3)
        assert len(set(results)) == 4
        assert airport.open == set(results)
        airport.open.clear()

        started = trio.current_time()
        with pytest.raises(FetchError, match="broken"):
            await airport.flights.join([booking("a", 1), booking("b", 5), booking("c", 2, FetchError("broken"))])
        assert trio.current_time() - started == pytest.approx(2)  # the first failure is enough
        assert len(airport.flights) == 1
        [result] = await airport.flights.join([booking("b", 100)])  # what is still under way can be joined
        assert trio.current_time() - started == pytest.approx(5)
        assert airport.open == {result}


async def test_a_share_that_fails_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as service:
        airport = Airport(service)

        async def job(turn: Turn) -> str:
            await trio.sleep(1)
            return airport.new()

        def share() -> str:
            raise FetchError("cannot be shared")

        def booking(key: str) -> Booking[str]:
            return Booking(key, Priority.DATA, lambda: airport.limiter.turn(Priority.DATA), job, share)

        with pytest.raises(FetchError, match="cannot be shared"):
            await airport.flights.join([booking("a"), booking("b"), booking("b")])
        assert not airport.open
