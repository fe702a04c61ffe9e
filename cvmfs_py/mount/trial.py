"""Tries in a child process whether a FUSE mount can be made here, and leaves nothing behind.

The child goes into namespaces of its own, opens /dev/fuse and mounts it over a directory that everybody has. The kernel
does that without an answer from the file system, and with the child the namespace and the mount go. Nothing else tells
what is allowed: rights, sysctls, security modules, seccomp filters and the device cgroup all have a word in it.

To be called before an event loop or a thread is started: it forks.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import select
import signal
from dataclasses import dataclass

DEVICE = b"/dev/fuse"
LIMIT_S = 10.0
_PLACES = (b"/tmp", b"/dev", b"/")
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 0x4000, 0x40000


class Step(enum.Enum):
    """What was tried, in this order. The value is for the report."""

    FORK = "starting a process"
    USER_NAMESPACE = "making a user namespace"
    USER_MAP = "mapping the own user into it"
    MOUNT_NAMESPACE = "making a mount namespace"
    PROPAGATION = "making its mounts private"
    OPEN = "opening /dev/fuse"
    MOUNT = "mounting"
    ANSWER = "hearing of the process that tried"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How far it went; without a step, all the way."""

    failed_at: Step | None = None
    error_number: int = 0

    @property
    def reason(self) -> str:
        """In words; empty after a success."""
        return "" if self.failed_at is None else f"{self.failed_at.value}: {os.strerror(self.error_number)}"


_STEPS = tuple(Step)
_SUCCESS = 255


def try_mount(*, in_user_namespace: bool) -> TrialResult:
    """Whether this process could mount: directly, or as root of a user namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    read_fd, write_fd = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(read_fd)
        os.close(write_fd)
        return TrialResult(Step.FORK, error.errno or 0)
    if pid == 0:
        _run_child(libc, write_fd, in_user_namespace=in_user_namespace)
    os.close(write_fd)
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    is_there = bool(poll.poll(LIMIT_S * 1000))
    answer = os.read(read_fd, 16) if is_there else b""
    os.close(read_fd)
    if not is_there:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    step, _, number = answer.partition(b" ")
    if not step.isdigit() or not number.isdigit():
        return TrialResult(Step.ANSWER, errno.EPIPE if is_there else errno.ETIMEDOUT)  # a filter may kill
    return TrialResult() if int(step) == _SUCCESS else TrialResult(_STEPS[int(step)], int(number))


def _run_child(libc: ctypes.CDLL, write_fd: int, *, in_user_namespace: bool) -> None:
    """Never returns. Every step is a system call or two; the first that fails is told."""
    step = Step.FORK
    try:
        user_id, group_id = os.geteuid(), os.getegid()
        if in_user_namespace:
            step = Step.USER_NAMESPACE
            _check(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
            step = Step.USER_MAP
            _write("/proc/self/setgroups", b"deny")
            _write("/proc/self/uid_map", b"0 %d 1" % user_id)
            _write("/proc/self/gid_map", b"0 %d 1" % group_id)
        else:
            step = Step.MOUNT_NAMESPACE
            _check(libc.unshare(_CLONE_NEWNS))
        step = Step.PROPAGATION
        _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        step = Step.OPEN
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        step = Step.MOUNT
        place = next(place for place in _PLACES if os.path.isdir(place))
        data = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d" % (fd, os.geteuid(), os.getegid())
        _check(libc.mount(b"cvmfs-py", place, b"fuse", ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), data))
        os.write(write_fd, b"%d 0" % _SUCCESS)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(write_fd, b"%d %d" % (_STEPS.index(step), error.errno or 0))
    finally:
        os._exit(0)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
