"""A daemon of any user: mounts a file system that never answers, registers it, ends with its mount or at SIGTERM.

    python -m tests.mount.owned_worker MOUNTPOINT UID [TAG]     # prints "ready"

Runs as root in a mount namespace of its own, mounts, and becomes the user before anything else.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from dataclasses import replace

from cvmfs_py.mount.registry import register
from cvmfs_py.mount.runtime_directory import runtime_directory
from tests.mount.limits import become
from tests.mount.registry_worker import mount, own_record


def main(mountpoint: bytes, user_id: int, tag: str | None = None) -> None:
    fd = mount(mountpoint)
    record = replace(own_record(mountpoint), tag=tag, is_pinned=tag is not None)  # root can read all of Python
    become(user_id)
    asked, asking = os.pipe()
    os.set_blocking(asking, False)
    signal.set_wakeup_fd(asking)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with register(record, runtime_directory(os.environ, user_id)):
        print("ready", flush=True)
        poll = select.poll()
        poll.register(fd, 0)  # an error, when nothing is mounted any more
        poll.register(asked, select.POLLIN)
        poll.poll()


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
