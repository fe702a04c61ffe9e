"""Child processes that run a part of this program: forked, and never returning into what the parent was doing.

Concurrency: for processes with one thread; a lock that another thread holds would stay locked in the child.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def print_traceback(error: BaseException) -> int:
    traceback.print_exception(error)
    return 1


def fork(body: Callable[[], int], failed: Callable[[BaseException], int] = print_traceback) -> int:
    """The process id of a child that ends with the function's value as its exit code, or `failed` gives one."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child would write it as well
    pid = os.fork()
    if pid != 0:
        return pid
    code = 1
    try:
        code = body()
    except BaseException as error:
        code = failed(error)
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


def code_of(pid: int) -> int:
    """Waits for a child: its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def silence(*fds: int) -> None:
    """Lets go of the parent's streams: whoever reads them waits until the last writer has closed them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd)
    if nothing not in fds:
        os.close(nothing)
