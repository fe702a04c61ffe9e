"""Errors of many tasks: which one is told, and when many single failures mean that there is no network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from cvmfs_py.errors import CvmfsError, FetchError, ObjectGoneError
from cvmfs_py.mount.concurrency import Patience, first_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def fail(error: BaseException, delay_s: float = 0) -> None:
    await trio.sleep(delay_s)
    raise error


async def run(*tasks: Callable[[], Awaitable[None]]) -> None:
    with first_error():
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)


async def test_one_error_comes_as_itself(autojump_clock: trio.testing.MockClock) -> None:
    error = CvmfsError("mine")
    error.__cause__ = cause = OSError("why")
    with pytest.raises(CvmfsError) as caught:
        await run(lambda: fail(error), partial(trio.sleep, 1000))
    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert trio.current_time() < 1000


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([trio.BrokenResourceError(), CvmfsError("real")], CvmfsError),
        ([BaseExceptionGroup("", [trio.ClosedResourceError(), OSError("real")]), KeyError("later")], OSError),
        ([CvmfsError("real"), KeyboardInterrupt()], KeyboardInterrupt),
        ([trio.BrokenResourceError()], trio.BrokenResourceError),  # better than nothing
    ],
    ids=["consequence", "nested", "interrupt", "alone"],
)
def test_of_several_the_first_real_one(errors: list[BaseException], told: type[BaseException]) -> None:
    with pytest.raises(told), first_error():
        raise BaseExceptionGroup("many", errors)


async def test_the_end_of_the_only_reader_does_not_hide_why(autojump_clock: trio.testing.MockClock) -> None:
    """As in copying with one job: the reader fails, the writer finds the channel broken."""
    for _ in range(20):  # in which order tasks run is a matter of chance
        send, receive = trio.open_memory_channel[int](0)

        async def read(receive: trio.MemoryReceiveChannel[int] = receive) -> None:
            with receive:
                async for _ in receive:
                    await trio.sleep(1)
                    raise CvmfsError("full")

        async def write(send: trio.MemorySendChannel[int] = send) -> None:
            with send:
                while True:
                    await send.send(1)

        with pytest.raises(CvmfsError, match="full"):
            await run(read, write)


async def test_a_cancellation_from_outside_arrives(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await run(partial(trio.sleep, 1000), partial(trio.sleep, 1000))
    assert scope.cancelled_caught


async def test_nothing_wrong_is_nothing_raised(autojump_clock: trio.testing.MockClock) -> None:
    await run(partial(trio.sleep, 1))


def test_patience_ends_after_so_many_in_a_row() -> None:
    patience = Patience(3)
    error = FetchError("dead")
    patience.failed(error)
    patience.failed(error)
    patience.fetched()
    patience.failed(error)
    patience.failed(error)
    with pytest.raises(FetchError) as caught:
        patience.failed(error)
    assert caught.value is error


def test_what_all_servers_lack_says_nothing_about_the_network() -> None:
    patience = Patience(2)
    for _ in range(100):
        patience.failed(ObjectGoneError("gone"))
    patience.failed(FetchError("dead"))
    patience.failed(ObjectGoneError("gone"))
    with pytest.raises(FetchError, match="dead"):
        patience.failed(FetchError("dead"))
