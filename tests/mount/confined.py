"""A daemon of two files per repository for confined commands, and what the tests need to look at their processes."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from cvmfs_py.fuse.handover import MountOptions
from cvmfs_py.mount.confinement import Command, Place, run
from tests.mount.tiny_fuse import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfs_py.fuse.handover import Handover


class TinyDaemon:
    """Serves every repository that it is made with."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def plan(self) -> Sequence[Place]:
        return [Place(name, MountOptions(name, allow_other=True)) for name in self.names]

    def serve(self, handovers: Sequence[Handover], ready: Callable[[], None]) -> None:
        waiters = [threading.Thread(target=serve, args=[handover.fd]) for handover in handovers]
        for waiter in waiters:
            waiter.start()
        ready()
        for waiter in waiters:
            waiter.join()

    def explain(self, error: BaseException) -> tuple[str, int]:
        return str(error), getattr(error, "exit_code", 1)


def start(script: str, *, own_processes: bool | None, daemon: TinyDaemon | None = None, in_front: bool = False) -> int:
    """A front whose command is a shell script: its process id. In front: with a process group of its own."""
    pid = os.fork()
    if pid == 0:
        code = 199
        try:
            if in_front:
                os.setpgid(0, 0)
            command = Command(["sh", "-c", script], own_processes=own_processes)
            code = run(daemon or TinyDaemon("a.cern.ch"), command)
        finally:
            os._exit(code if code >= 0 else 100 - code)  # more than 100: a signal
    return pid


def ending(front: int) -> int:
    """The code as `run` has given it."""
    code = os.waitstatus_to_exitcode(os.waitpid(front, 0)[1])
    return 100 - code if 100 < code < 199 else code


def parents() -> dict[int, int]:
    """Of all processes that are not zombies."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    found[int(name)] = int(parent)
    return found


def descendants(top: int) -> list[int]:
    found = [top]
    everything = parents()
    for pid in found:
        found += [child for child, parent in everything.items() if parent == pid]
    return found[1:]


def family(front: int) -> dict[str, int]:
    """The children of a front by their role."""
    return {_role(pid): pid for pid, parent in parents().items() if parent == front}


def _role(pid: int) -> str:
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    if fields["NSpid"].split()[1:] == ["1"]:
        return "first"
    return "daemon" if os.getsid(pid) == pid else "command"


def has_vanished(pids: Sequence[int]) -> bool:
    return not set(pids) & set(parents())
