"""A daemon of any user: mounts a tiny file system, registers it, ends with its mount or at SIGTERM.

    python -m tests.mount.owned_worker MOUNTPOINT UID [TAG]     # prints "ready"

Runs as root in a mount namespace of its own, mounts, and becomes the user before anything else.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import threading
from dataclasses import replace

from cvmfs_py.mount.registry import register
from cvmfs_py.mount.runtime_directory import runtime_directory
from tests.mount.limits import become
from tests.mount.registry_worker import mount, own_record
from tests.mount.tiny_fuse import serve

codecs.lookup("ascii")  # loaded when it is first used, and an ordinary user may not be able to read it


def main(mountpoint: bytes, user_id: int, tag: str | None = None) -> None:
    fd = mount(mountpoint)
    record = replace(own_record(mountpoint), tag=tag, is_pinned=tag is not None)  # root can read all of Python
    become(user_id)
    asked, asking = os.pipe()
    os.set_blocking(asking, False)
    signal.set_wakeup_fd(asking)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with register(record, runtime_directory(os.environ, user_id)):
        threading.Thread(target=answer, args=[fd, asking], daemon=True).start()
        print("ready", flush=True)
        select.select([asked], [], [])


def answer(fd: int, asking: int) -> None:
    """Until nothing is mounted any more."""
    serve(fd)
    os.write(asking, b"end")


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
