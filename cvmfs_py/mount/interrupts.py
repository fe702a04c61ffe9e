"""Ctrl-C in the midst of synchronous work that may take long, such as a shell that evaluates a configuration file.

Elsewhere it arrives only where a task waits for the event loop, so that nothing is left half done. For work that leaves
nothing behind when it is cut off.

Concurrency: for the main thread; in others it makes no difference.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


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
