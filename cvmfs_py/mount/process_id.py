"""Which process is meant by a number: numbers are used again, start times are not.

What is to be signalled is opened first: from then on its number cannot come to mean another process.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of some machine run and pid namespace."""

    pid: int
    start_ticks: int  # since the machine was started
    boot_id: str
    namespace: str  # of its number

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this number now, in our namespace; None: there is none, or it has ended."""
        start_ticks = read_start_ticks(pid)
        return None if start_ticks is None else cls(pid, start_ticks, _boot_id(), _pid_namespace())

    @classmethod
    def own(cls) -> Self:
        found = cls.of(os.getpid())
        if found is None:  # without /proc: it is this process all the same
            return cls(os.getpid(), 0, _boot_id(), _pid_namespace())
        return found

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Self:
        """Out of a file. Raises ValueError."""
        pid, start_ticks, boot_id, namespace = (value.get(name) for name in cls.__slots__)
        if not isinstance(pid, int) or not isinstance(start_ticks, int) or isinstance(pid, bool) or pid <= 0:
            raise ValueError("its process is none")
        if not isinstance(boot_id, str) or not isinstance(namespace, str):
            raise ValueError("its process is of nowhere")
        return cls(pid, start_ticks, boot_id, namespace)

    def is_of_this_boot(self) -> bool:
        return self.boot_id == _boot_id()

    def is_running(self) -> bool:
        """Whether this very process runs, as far as can be seen from here: in another pid namespace it cannot."""
        return self == type(self).of(self.pid)


class OpenProcess:
    """A process that is held, so that a signal reaches it or nobody. Made by `open_process`."""

    def __init__(self, identity: ProcessId, fd: int | None) -> None:
        self._identity = identity
        self._fd = fd

    def is_running(self) -> bool:
        return self._identity.is_running()

    def signal(self, number: signal.Signals) -> None:
        """That it has ended by now is no error."""
        with suppress(ProcessLookupError):
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, number)
            elif self.is_running():
                os.kill(self._identity.pid, number)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def open_process(identity: ProcessId, user_id: int) -> OpenProcess | None:
    """The very process, if it can be seen from here and is this user's."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    except OSError:  # before Linux 5.3, or forbidden
        fd = None
    found = OpenProcess(identity, fd)
    ids = read_ids(identity.pid)
    if identity.is_running() and ids is not None and ids[0] == user_id:
        return found
    found.close()
    return None


def read_ids(pid: int) -> tuple[int, int] | None:
    """The user and the group of a process; None: there is none, or it cannot be seen."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            found = {line[:4]: int(line.split()[1]) for line in lines if line[:4] in (b"Uid:", b"Gid:")}
    except OSError:
        return None
    return (found[b"Uid:"], found[b"Gid:"]) if len(found) == 2 else None


def read_start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None: no such process, or it is only waiting for its parent to notice its end."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    fields = data.rpartition(b")")[2].split()  # the name before may hold anything
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
