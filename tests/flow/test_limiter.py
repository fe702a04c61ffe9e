"""The limiter: never more than its slots, the urgent first, nobody lost when waiters are cancelled."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from cvmfs_py.network.limiter import Limiter, Priority, Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def slot(limiter: Limiter, turn: Turn) -> AsyncIterator[None]:
    await limiter.acquire(turn)
    try:
        yield
    finally:
        limiter.release()


async def hold(limiter: Limiter, priority: Priority, name: str, order: list[str], held_s: float = 1) -> None:
    async with slot(limiter, limiter.turn(priority)):
        order.append(name)
        await trio.sleep(held_s)


async def test_never_more_than_the_slots(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(3)
    running = 0
    most = 0

    async def work(priority: Priority) -> None:
        nonlocal running, most
        async with slot(limiter, limiter.turn(priority)):
            running += 1
            most = max(most, running)
            await trio.sleep(random.Random(priority).random())
            running -= 1

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(work, Priority(number % 3))
    assert most == 3
    assert limiter.waiting == 0


async def test_the_urgent_first_and_the_early_before_the_late(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(1)
    order: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, limiter, Priority.PREFETCH, "first come", order)
        await trio.testing.wait_all_tasks_blocked()
        for name in ("p1", "d1", "m1", "p2", "d2", "m2"):
            priority = {"p": Priority.PREFETCH, "d": Priority.DATA, "m": Priority.METADATA}[name[0]]
            nursery.start_soon(hold, limiter, priority, name, order)
            await trio.testing.wait_all_tasks_blocked()
        assert limiter.waiting == 6
    assert order == ["first come", "m1", "m2", "d1", "d2", "p1", "p2"]


async def test_a_turn_moves_forward_while_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(1)
    order: list[str] = []
    turn = limiter.turn(Priority.PREFETCH)

    async def wait() -> None:
        async with slot(limiter, turn):
            order.append("raised")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, limiter, Priority.DATA, "first come", order)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        nursery.start_soon(hold, limiter, Priority.DATA, "data", order)
        await trio.testing.wait_all_tasks_blocked()
        turn.raise_to(Priority.METADATA)
        turn.raise_to(Priority.PREFETCH)  # never back
        assert limiter.waiting == 2
    assert order == ["first come", "raised", "data"]
    assert limiter.waiting == 0


async def test_cancelled_waiters_leave(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(1)
    order: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, limiter, Priority.DATA, "a", order, 10)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await hold(limiter, Priority.METADATA, "never", order)
        nursery.start_soon(hold, limiter, Priority.PREFETCH, "b", order)
    assert order == ["a", "b"]
    async with slot(limiter, limiter.turn(Priority.DATA)):
        pass


async def test_a_slot_granted_to_a_cancelled_waiter_is_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(1)
    order: list[str] = []
    scope = trio.CancelScope()

    async def unlucky() -> None:
        with scope:
            await hold(limiter, Priority.METADATA, "unlucky", order)

    async with trio.open_nursery() as nursery:
        async with slot(limiter, limiter.turn(Priority.DATA)):
            nursery.start_soon(unlucky)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(hold, limiter, Priority.DATA, "next", order)
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()  # its turn has come, and it does not know yet
    assert order in (["next"], ["unlucky", "next"])
    async with slot(limiter, limiter.turn(Priority.DATA)):
        pass


async def test_who_comes_again_keeps_its_age(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(1)
    order: list[str] = []

    async def twice() -> None:
        turn = limiter.turn(Priority.DATA)
        for name in ("first try", "second try"):
            async with slot(limiter, turn):
                order.append(name)
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(twice)
        await trio.testing.wait_all_tasks_blocked()
        for name in ("a", "b"):
            nursery.start_soon(hold, limiter, Priority.DATA, name, order)
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["first try", "a", "second try", "b"]
