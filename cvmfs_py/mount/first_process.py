"""Process 1 of a process namespace: mounts its /proc, reaps orphans, does nothing else. With it the namespace ends.

Concurrency: a child process of its own; its signals are held, so that only SIGKILL from outside ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.mount import child, namespace

_READY = b"ready"


def start() -> int:
    """Its process id, once its /proc is there. For after `enter_private_processes`, with signals held."""
    said, saying = os.pipe()

    def body() -> int:
        os.close(said)
        os.setsid()
        syscalls.die_with_parent(signal.SIGKILL)
        return _run(saying)

    pid = child.fork(body)
    os.close(saying)
    with os.fdopen(said, "rb") as pipe:
        message = pipe.read()
    if message != _READY:
        child.code_of(pid)
        raise MountError(message.decode() or "process 1 of the namespace has ended at its start")
    return pid


def _run(saying: int) -> int:
    try:
        namespace.mount_own_proc()
    except MountError as error:
        os.write(saying, str(error).encode())
        return error.exit_code
    os.write(saying, _READY)
    child.silence(0, 1, 2)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # that of the listing is closed already
                os.close(int(name))
    while True:
        signal.sigwaitinfo({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
