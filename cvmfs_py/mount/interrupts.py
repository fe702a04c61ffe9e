"""Synchronous work that may take long, such as a shell that evaluates a configuration file, amid an event loop.

Ctrl-C ends it: elsewhere it arrives only where a task waits for the loop, so that nothing is left half done. In a
process that serves a mount the work is for a thread, because what is waited for may itself wait for an answer of the
mount. For work that leaves nothing behind when it is cut off.

Concurrency: for the main thread; in others it makes no difference.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from cvmfs_py import own_mounts
from cvmfs_py.mount.end_signals import END_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


async def run_aside(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What the function returns: at once, or from a thread where requests have to be answered meanwhile."""
    if not own_mounts.is_any():
        return run_interruptibly(function, *arguments, **options)

    def work() -> T:
        # What is started here, such as a shell, shall hear signals as usual; the main thread of a daemon does not.
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
        try:
            return function(*arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def run_interruptibly(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What the function returns; KeyboardInterrupt can come out of it at any moment."""
    before = signal.getsignal(signal.SIGINT)
    # Not a function: it is ignored, as in the background of a script, and stays so.
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        return function(*arguments, **options)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(*arguments, **options)
    finally:
        signal.signal(signal.SIGINT, before)
