"""Takes rights away from the calling process, as containers and careful machines do. For child processes of tests."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from cvmfs_py.fuse.privileges import Capability

_libc = ctypes.CDLL(None, use_errno=True)
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 4, 38, 22, 2
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_ALLOW, _REFUSE_WITH = 0x7FFF0000, 0x00050000
_VERSION = 0x20080522

# What Podman leaves to root of a container.
OF_CONTAINERS = (0, 1, 3, 4, 5, Capability.SETGID, Capability.SETUID, 8, 10, 18, Capability.SETFCAP)


def become(uid: int) -> None:
    """An ordinary user, to whom the files of this process in /proc belong as after an exec."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0))


def gain_nothing() -> None:
    """Setuid programs have no effect from now on."""
    _check(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))


def keep_capabilities(*kept: int) -> None:
    """All others are gone; the user stays the same."""
    bits = sum(1 << capability for capability in kept)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    header = struct.pack("<Ii", _VERSION, 0)
    _check(_libc.capset(header, struct.pack("<6I", low, low, 0, high, high, 0)))


def refuse_unshare(number: int) -> None:
    """By a seccomp filter: load the number of the system call; if it is unshare, an error, else allow."""
    gain_nothing()
    wanted = _UNSHARE[platform.machine()]
    code = struct.pack(
        "<HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, wanted, 0x06, 0, 0, _REFUSE_WITH | number, 0x06, 0, 0, _ALLOW
    )
    program = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(program)))
    _check(_libc.prctl(_SET_SECCOMP, _FILTER, header, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
