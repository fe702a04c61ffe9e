"""Of many tasks' errors the caller gets one, without the group; and it keeps nothing alive after it was handled."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from cvmfs_py.mount.concurrency import first_error

if TYPE_CHECKING:
    from collections.abc import Iterator


class Held:
    """Stands for an open file."""


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def fail(error: BaseException) -> None:
    raise error  # without a checkpoint, so that several do before they are cancelled


async def wait_for_ever() -> None:
    await trio.sleep_forever()


async def run_tasks(*errors: BaseException) -> None:
    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ever)
            for error in errors:
                nursery.start_soon(fail, error)


async def test_one_error_comes_as_itself() -> None:
    cause = KeyError("why")
    error = ValueError("what")
    error.__cause__ = cause
    with pytest.raises(ValueError, match="what") as raised:
        await run_tasks(error)
    assert raised.value is error
    assert raised.value.__cause__ is cause


async def test_an_interrupt_goes_before_all_and_consequences_come_last() -> None:
    with pytest.raises(KeyboardInterrupt):
        await run_tasks(ValueError("what"), KeyboardInterrupt())
    for order in (1, -1):
        errors = [trio.BrokenResourceError(), ValueError("what")][::order]
        with pytest.raises(ValueError, match="what"):
            await run_tasks(*errors)


async def test_a_cancellation_from_outside_arrives() -> None:
    with trio.move_on_after(0) as scope:
        await run_tasks()
    assert scope.cancelled_caught


async def test_what_the_tasks_had_open_is_let_go_at_once() -> None:
    """Not when the garbage is collected some time: by then, descriptors may have run out."""
    seen: list[weakref.ref[Held]] = []

    async def hold_and_fail() -> None:
        held = Held()
        seen.append(weakref.ref(held))
        await trio.lowlevel.checkpoint()
        raise ValueError("what")

    async def run_one() -> None:
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold_and_fail)

    with without_garbage_collection():
        try:
            await run_one()
        except ValueError:
            pass
        else:
            pytest.fail("nothing was raised")
        assert [reference() for reference in seen] == [None]
