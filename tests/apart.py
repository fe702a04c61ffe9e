"""Keeps the mounts of a test process to itself, where that is allowed.

A mount that is seen in another namespace lives on when it is unmounted here, and its daemon with it: every program that
makes a namespace of its own, such as a container of the next test process, would take the mounts of all along. What
is left behind goes with the process.

To be called before there are threads: only what they inherit is apart.
"""

from __future__ import annotations

from contextlib import suppress

from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.syscalls import MountFlag, NamespaceFlag


def keep_mounts_apart() -> None:
    with suppress(OSError):  # without the right to mount there is nothing to keep apart
        syscalls.unshare(NamespaceFlag.MOUNT)
        syscalls.mount("", "/", "", MountFlag.PRIVATE | MountFlag.RECURSIVE)
