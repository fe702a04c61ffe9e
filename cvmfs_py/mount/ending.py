"""Ends one listed mount: unmounts what is seen from here; asks the daemon of any other to end, if it can be told which.

Which mounts are to be ended is for the caller. A signal goes to a process only when it is the very one that the record
means, in this pid namespace, and belongs to whoever wrote the record: records of users are read by root, and must not
lead a signal to somebody else.

A daemon that answers and stays is there for the programs that use it. One that does not answer is of no use to anybody:
it is told to end, and killed when it does not. Whether it answers a child finds out, because that may wait for ever.

Concurrency: blocking, with a deadline; forks.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import device, mountpoint
from cvmfs_py.mount import child
from cvmfs_py.mount.end_signals import CLEAR_LIMIT_S, TAKEN_LIMIT_S
from cvmfs_py.mount.process_id import open_process, read_ids
from cvmfs_py.mount.registry import MountState

if TYPE_CHECKING:
    from cvmfs_py.mount.process_id import OpenProcess
    from cvmfs_py.mount.registry import ListedMount

_LIMIT_S = 10.0  # for a daemon that answers
_ANSWER_LIMIT_S = 3.0  # for one that is busy
_UNANSWERED_LIMIT_S = 1.0  # for the others, that may notice all the same
_TOLD_LIMIT_S = TAKEN_LIMIT_S + CLEAR_LIMIT_S  # a stuck daemon ends without its event loop, and needs that long
_KILLED_LIMIT_S = 5.0
_PAUSE_S = 0.01


class Ending(enum.Enum):
    """How far it is when nobody waits any longer."""

    DONE = "ended"
    UNMOUNTED = "unmounted, and the daemon stays for the programs that use it"
    TOLD = "did not answer, and has ended when it was told to by SIGTERM"
    KILLED = "did not answer and did not end when it was told to, and was killed"


def is_unmounted_from_here(mount: ListedMount) -> bool:
    """Whether it is at its mountpoint for this process. One that was handed over has no mountpoint that is known."""
    return mount.state is not MountState.ELSEWHERE and mount.record.device is not None


def open_daemon(mount: ListedMount) -> OpenProcess | None:
    """The process behind a mount, if it can be seen from here without doubt."""
    return open_process(mount.record.process, mount.user_id)


def end_mount(mount: ListedMount, *, lazily: bool = False) -> Ending:
    """Ends it and waits for its daemon: what comes next may need its cache, or the network gone. MountError."""
    daemon = open_daemon(mount)
    if daemon is None:
        if not is_unmounted_from_here(mount):
            raise MountError(
                f"{os.fsdecode(mount.record.mountpoint)} is left alone: it is in another namespace, and its daemon, pid"
                f" {mount.record.process.pid} there, cannot be seen from here; end it there, or end its container"
            )
        mountpoint.unmount(os.fsdecode(mount.record.mountpoint), lazily=lazily)
        return Ending.DONE
    with closing(daemon):
        if not is_unmounted_from_here(mount):
            return _end_process(mount, daemon, Ending.DONE)
        with closing(_Question(mount)) as question:
            answers = question.is_answered(_ANSWER_LIMIT_S)
        mountpoint.unmount(os.fsdecode(mount.record.mountpoint), lazily=lazily)
        if _has_ended(daemon, _LIMIT_S if answers else _UNANSWERED_LIMIT_S):
            return Ending.DONE
        return Ending.UNMOUNTED if answers else _end_process(mount, daemon, Ending.TOLD)


def _end_process(mount: ListedMount, daemon: OpenProcess, told: Ending) -> Ending:
    """By signals: `told` when it takes the first one. MountError."""
    for number in (signal.SIGTERM, signal.SIGCONT):  # one that was stopped could take none
        daemon.signal(number)
    if _has_ended(daemon, _TOLD_LIMIT_S):
        return told
    daemon.signal(signal.SIGKILL)
    if _has_ended(daemon, _KILLED_LIMIT_S):
        return Ending.KILLED
    # A thread of it waits for the mount, and keeps open what would end the wait. As it is there, so is the device.
    if mount.record.device is not None:
        device.abort(mount.record.device)
        if _has_ended(daemon, _KILLED_LIMIT_S):
            return Ending.KILLED
    raise MountError(
        f"the daemon of {os.fsdecode(mount.record.mountpoint)} (pid {mount.record.process.pid}) does not end, not even"
        " by SIGKILL: it waits for something in the kernel, such as a file system that does not answer; see"
        f" /proc/{mount.record.process.pid}/stack"
    )


def _has_ended(daemon: OpenProcess, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while daemon.is_running():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


class _Question:
    """Something that only the daemon can answer, asked as its own user: others it may not let in."""

    def __init__(self, mount: ListedMount) -> None:
        place = os.fsdecode(mount.record.mountpoint)
        ids = read_ids(mount.record.process.pid) if mount.user_id != os.geteuid() == 0 else None
        self._pid: int | None = child.fork(partial(_ask, place, ids))

    def is_answered(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while self._pid is not None:
            if os.waitpid(self._pid, os.WNOHANG)[0] == self._pid:
                self._pid = None
            elif time.monotonic() > deadline:
                return False
            else:
                time.sleep(_PAUSE_S / 10)
        return True

    def close(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.is_answered(_UNANSWERED_LIMIT_S)  # not for ever: the daemon may have taken the question


def _ask(place: str, ids: tuple[int, int] | None) -> int:
    child.silence(0, 1, 2)
    with suppress(OSError):  # also a refusal is an answer
        if ids is not None:
            user_id, group_id = ids
            os.setgroups([])
            os.setresgid(group_id, group_id, group_id)
            os.setresuid(user_id, user_id, user_id)
        os.statvfs(place)  # the kernel never keeps it
    return 0
