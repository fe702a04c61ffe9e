"""Ends the processes that a failed test has left behind, so that it fails alone.

A test that ends its processes on its last lines does not get there when it fails; what it has started then answers on
ports, holds mounts and warns from a destructor in the middle of another test. Touches only children of this process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
from pathlib import Path


def children() -> set[int]:
    """The processes that this one has started and not yet buried."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def end_children(spared: set[int]) -> None:
    """Kills and buries all others, and closes what they were read through."""
    ended = children() - spared
    for pid in ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for known in gc.get_objects():
        if isinstance(known, subprocess.Popen) and known.returncode is None and known.pid in ended:
            known.wait()
            for stream in (known.stdin, known.stdout, known.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what could not be written any more
                        stream.close()
            ended.remove(known.pid)
    for pid in ended:  # those that were forked
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
