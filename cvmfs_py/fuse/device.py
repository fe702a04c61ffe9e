"""The device /dev/fuse: opening it, recognising its descriptors, and saying why it cannot be had. Mounts nothing.

Concurrency: no state; every descriptor belongs to its caller.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from contextlib import suppress

from cvmfs_py.errors import MountError

DEVICE = "/dev/fuse"
CONNECTIONS = "/sys/fs/fuse/connections"
DEVICE_NUMBER = os.makedev(10, 229)


def open_device(path: str = DEVICE) -> int:
    """A new descriptor, which is not connected to a mount yet."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot open {path}: {error.strerror}; {_cure(path, error.errno)}") from error
    if not is_device(fd):
        os.close(fd)
        raise MountError(
            f"{path} is not the FUSE device (character device 10:229); "
            f"as root: rm {path} && mknod -m 666 {path} c 10 229"
        )
    return fd


def is_device(fd: int) -> bool:
    """Whether the descriptor is of the FUSE device, under whatever name it was opened. OSError: it is not open."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == DEVICE_NUMBER


def is_connected(fd: int) -> bool:
    """Whether there is a mount at the other end of a descriptor of the device, and it was not aborted."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def mounted_device(fd: int) -> str | None:
    """major:minor of the file system at the other end; None: an older kernel does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            number = next((int(line.split()[1]) for line in file if line.startswith("fuse_connection:")), None)
    except OSError:
        return None
    return None if number is None else f"{number >> 20}:{number & 0xFFFFF}"


def abort(device: str) -> None:
    """Ends a connection, if the kernel's list of them is there and this user's to write: nobody waits for it then."""
    with suppress(OSError), open(f"{CONNECTIONS}/{device.partition(':')[2]}/abort", "w", encoding="ascii") as file:
        file.write("1")


def _cure(path: str, number: int | None) -> str:
    if number == errno.ENOENT:
        return (
            "in a container add --device /dev/fuse; on a machine of your own, as root: modprobe fuse, "
            f"or mknod -m 666 {path} c 10 229"
        )
    if number == errno.EACCES:
        return _cure_of_permission(path)
    if number == errno.EPERM:
        return "the device is there, but the container's device list forbids its use: add --device /dev/fuse"
    if number in (errno.ENODEV, errno.ENXIO):
        return "the kernel has no FUSE; as root of the machine (not of a container): modprobe fuse"
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many files are open; raise the limit: ulimit -n"
    return "see cvmfs-py doctor"


def _cure_of_permission(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return f"its directory may not be searched; as root: chmod 755 {os.path.dirname(path)}"
    if os.access(path, os.R_OK | os.W_OK):
        return "the file system it is on is mounted with nodev, or a security module forbids it; add --device /dev/fuse"
    return f"its mode is {stat.S_IMODE(mode):03o}; as root: chmod 666 {path}, or add this user to its group"
