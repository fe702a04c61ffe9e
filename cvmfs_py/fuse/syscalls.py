"""System calls that Python does not offer: mounts, namespaces, what a process wants to be told.

Each raises OSError when it is refused; what a refusal means, and how to cure it, is known where the call is made.
No state.

Concurrency: the calls block their thread only; `unshare` of a user namespace is refused to a process with threads.
"""

from __future__ import annotations

import ctypes
import enum
import os

_libc = ctypes.CDLL(None, use_errno=True)


class MountFlag(enum.IntFlag):
    """The flags of mount(2) that are used here."""

    READ_ONLY = 1
    NO_SUID = 2
    NO_DEVICES = 4
    NO_EXEC = 8
    REMOUNT = 1 << 5
    BIND = 1 << 12
    RECURSIVE = 1 << 14
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


class NamespaceFlag(enum.IntFlag):
    """The kinds of namespaces that are used here, for unshare(2)."""

    MOUNT = 0x0002_0000
    USER = 0x1000_0000
    PROCESS_ID = 0x2000_0000


_FORCE = 1
_DETACH = 2
_NO_FOLLOW = 8
_SET_PARENT_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36


def mount(source: str, target: str, kind: str, flags: MountFlag, data: str = "") -> None:
    """mount(2); the data are the file system's own options."""
    words = (os.fsencode(source), os.fsencode(target), os.fsencode(kind))
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) or None), target)


def unmount(target: str, *, lazily: bool = False, by_force: bool = False) -> None:
    """umount2(2): the topmost mount at a path. Lazily: also when it is in use; it then goes with its last user.

    By force: requests that nobody has answered fail, and all that come.
    """
    flags = _NO_FOLLOW | (_DETACH if lazily else 0) | (_FORCE if by_force else 0)
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: NamespaceFlag) -> None:
    """unshare(2), which `os` has from Python 3.12 on."""
    _check(_libc.unshare(ctypes.c_int(flags)))


def pivot_root(new_root: str, place_of_old: str) -> None:
    """pivot_root(2): the root of this mount namespace is now another mount."""
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(place_of_old)), new_root)


def die_with_parent(signal_number: int) -> None:
    """The signal that this process gets when the thread that made it ends. Survives exec, not fork."""
    _check(_libc.prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal_number), 0, 0, 0))


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process."""
    _check(_libc.prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


def _check(result: int, place: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)
