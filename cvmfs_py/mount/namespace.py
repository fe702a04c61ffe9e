"""Namespaces of this process's own: users, mounts and processes; and why a machine refuses them.

Who has CAP_SYS_ADMIN gets a mount namespace only. Everybody else, also root of a container that lacks it, first gets a
user namespace, in which that capability is had. There every user keeps the own number: nothing has to be mapped back,
and the capabilities go with the next exec, unless it is root's. Numbers of other users show as nobody, because mapping
them takes rights over them; root of a container has these rights, and so keeps all numbers.

What the machine mounts and unmounts later is seen inside, too (automounted home directories depend on it); what is
mounted inside is never seen outside, and ends with the last process inside.

Concurrency: changes the calling process for good; it must have one thread only.
"""

from __future__ import annotations

import errno
import os

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.privileges import Capability, load_privileges
from cvmfs_py.fuse.syscalls import MountFlag, NamespaceFlag
from cvmfs_py.mount import child


def enter_private_mounts() -> None:
    """From here on this process may mount, and only it and its descendants see it."""
    if not load_privileges().include(Capability.SYS_ADMIN):
        _enter_user_namespace()
    try:
        syscalls.unshare(NamespaceFlag.MOUNT)
        syscalls.mount("", "/", "", MountFlag.RECURSIVE | MountFlag.SLAVE)
    except OSError as error:
        raise refusal("a private mount namespace", error) from error


def enter_private_processes() -> None:
    """The next child is process 1 of its own world; this process itself stays outside."""
    try:
        syscalls.unshare(NamespaceFlag.PROCESS_ID)
    except OSError as error:
        raise refusal("a process namespace", error) from error


def mount_own_proc() -> None:
    """In process 1: what /proc shows is this namespace."""
    flags = MountFlag.NO_SUID | MountFlag.NO_DEVICES | MountFlag.NO_EXEC
    try:
        syscalls.mount("proc", "/proc", "proc", flags)
    except OSError as error:
        raise MountError(
            f"cannot mount /proc for a process namespace: {error.strerror}; a container runtime that hides parts of "
            "/proc prevents it: use --no-pid-namespace, or add --security-opt unmask=ALL to the container"
        ) from error


def may_have_own_processes() -> bool:
    """Tries a process namespace with its /proc in children that end at once. For after `enter_private_mounts`."""

    def try_it() -> int:
        try:
            enter_private_processes()
            syscalls.unshare(NamespaceFlag.MOUNT)
        except (MountError, OSError):
            return 1
        return child.code_of(child.fork(try_proc))

    def try_proc() -> int:
        try:
            mount_own_proc()
        except MountError:
            return 1
        return 0

    return child.code_of(child.fork(try_it)) == 0


def refusal(what: str, error: OSError) -> MountError:
    """One line about a refused call: what could not be had, and what to change on this machine."""
    return MountError(f"cannot get {what}: {error.strerror}; {_cure(error.errno)}")


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    privileges = load_privileges()
    if privileges.include(Capability.SETUID, Capability.SETGID, Capability.SETFCAP):
        _keep_all_ids()
        return
    try:
        syscalls.unshare(NamespaceFlag.USER)
    except OSError as error:
        raise refusal("a user namespace", error) from error
    try:
        _write("/proc/self/setgroups", "deny")  # else no group may be mapped without rights over it
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise _map_refusal(uid, error) from error


def _keep_all_ids() -> None:
    """The maps are written by a child that stays outside: inside, there are no rights over users of the outside."""
    uid_map, gid_map = _identity("/proc/self/uid_map"), _identity("/proc/self/gid_map")
    reading, writing = os.pipe()
    inside = os.getpid()

    def write_maps() -> int:
        os.close(writing)
        try:
            if os.read(reading, 1):
                _write(f"/proc/{inside}/uid_map", uid_map)
                _write(f"/proc/{inside}/gid_map", gid_map)
        except OSError as error:
            return error.errno or errno.EPERM
        return 0

    writer = child.fork(write_maps)
    os.close(reading)
    try:
        syscalls.unshare(NamespaceFlag.USER)
        os.write(writing, b"u")
    except OSError as error:
        raise refusal("a user namespace", error) from error
    finally:
        os.close(writing)
        number = child.code_of(writer)
    if number != 0:
        raise _map_refusal(0, OSError(number, os.strerror(number)))


def _identity(path: str) -> str:
    """A map under which every number that exists here means the same inside."""
    with open(path, encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())  # the kernel takes a map in one piece only
    finally:
        os.close(fd)


def _map_refusal(uid: int, error: OSError) -> MountError:
    if uid == 0 and error.errno == errno.EPERM:
        return MountError(
            "cannot map root into a user namespace: this container's root lacks the capability for it; add "
            "--cap-add SETFCAP, or run as an ordinary user (--user 1000)"
        )
    return refusal("the own user number in a user namespace", error)


def _cure(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            "the number of namespaces is limited: as root set user.max_user_namespaces, user.max_mnt_namespaces and "
            "user.max_pid_namespaces to 15000 with sysctl -w"
        )
    if number == errno.EINVAL:
        return "the kernel is built without this kind of namespace; use a newer one, or cvmfs-py mount"
    if _load_switch("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "ordinary users may have none here: as root sysctl -w kernel.unprivileged_userns_clone=1"
    if _load_switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor takes the rights away: as root sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give "
            "this Python an AppArmor profile with the line userns,"
        )
    if load_privileges().is_filtered:
        return (
            "a container's seccomp filter forbids it: add --security-opt seccomp=unconfined, or mount outside and bind "
            "the directory into the container"
        )
    return "a chroot or a security module may forbid it; cvmfs-py mount works without, where there is fusermount3"


def _load_switch(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""  # most kernels lack it
