"""Ends one listed mount: unmounts what is seen from here; asks the daemon of any other to end, if it can be told which.

Which mounts are to be ended is for the caller. A signal goes to a process only when it is the very one that the record
means, in this pid namespace, and belongs to whoever wrote the record: records of users are read by root, and must not
lead a signal to somebody else.

Concurrency: blocking, with a deadline.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import mountpoint
from cvmfs_py.mount.process_id import open_process
from cvmfs_py.mount.registry import MountState

if TYPE_CHECKING:
    from cvmfs_py.mount.process_id import OpenProcess
    from cvmfs_py.mount.registry import ListedMount

_LIMIT_S = 10.0
_PAUSE_S = 0.01


class Ending(enum.Enum):
    """How far it is when nobody waits any longer."""

    DONE = "ended"
    UNMOUNTED = "unmounted, and the daemon stays for the programs that use it"
    ASKED = "asked to end, and not done with it"


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
        if is_unmounted_from_here(mount):
            mountpoint.unmount(os.fsdecode(mount.record.mountpoint), lazily=lazily)
            unfinished = Ending.UNMOUNTED
        else:
            daemon.signal(signal.SIGTERM)
            unfinished = Ending.ASKED
        deadline = time.monotonic() + _LIMIT_S
        while daemon.is_running():
            if time.monotonic() > deadline:
                return unfinished
            time.sleep(_PAUSE_S)
    return Ending.DONE
