"""A process that mounts a file system which never answers, registers it, and stays: for tests of the registry.

    python -m tests.mount.registry_worker DIRECTORY MOUNTPOINT [again]     # prints "ready" (and goes on with "again")

Runs in a mount namespace of its own (`in_mount_namespace`), because it really mounts.
"""

from __future__ import annotations

import ctypes
import os
import sys

from cvmfs_py.mount.process_id import ProcessId
from cvmfs_py.mount.registry import MountRecord, register


def mount(mountpoint: bytes) -> int:
    """The kernel's part of a mount; everything else would be an answer."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d" % (fd, os.geteuid(), os.getegid())
    if libc.mount(b"cvmfs2", mountpoint, b"fuse", ctypes.c_ulong(0), data) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def own_record(mountpoint: bytes) -> MountRecord:
    """Of a mount that this process serves."""
    return MountRecord(
        fqrn="test.example.org",
        mountpoint=mountpoint,
        process=ProcessId.own(),
        started_at_s=1000.0,
        revision=1,
        root_hash="00" * 20,
        cache_dir=b"/cache",
        engine="none",
    )


def main(directory: bytes, mountpoint: bytes) -> None:
    fd = mount(mountpoint)
    with register(own_record(mountpoint), directory) as registration:
        print("ready", flush=True)
        for line in sys.stdin:
            if line.strip() == "end":
                break
            registration.update(revision=int(line), root_hash="11" * 20)
            print("updated", flush=True)
    os.close(fd)


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]))
