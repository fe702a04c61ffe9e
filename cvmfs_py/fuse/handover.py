"""How a mount and the descriptor that serves it come to be, without libfuse.

There are three ways: a descriptor that another process has mounted already (`/dev/fd/N` as the mountpoint, which is
how container runtimes hand mounts over), mount(2) itself, and the program fusermount3 for users. Serves no requests.
Whoever reads the descriptor must answer INIT; until then, and after the end of all that hold the descriptor, the mount
answers nothing or ENOTCONN. pyfuse3 takes a descriptor over when it is given `/dev/fd/N` as its mountpoint.

Concurrency: blocking; a handover belongs to one process at a time, and may pass from one to another through fork.
"""

from __future__ import annotations

import enum
import errno
import os
import re
from dataclasses import dataclass, replace

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import device, fusermount, mountpoint, syscalls
from cvmfs_py.fuse.mountinfo import Mount, mount_at
from cvmfs_py.fuse.privileges import load_privileges
from cvmfs_py.fuse.syscalls import MountFlag

_GIVEN = re.compile(r"/dev/fd/([0-9]{1,9})\Z")
_ROOT_MODE = "40000"  # octal: a directory


class Way(enum.Enum):
    """Who mounts, and therefore who unmounts."""

    GIVEN = "descriptor"  # somebody else
    DIRECT = "mount"  # this process
    HELPED = "fusermount3"  # a setuid program


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the kernel is told about a mount. It is read-only always."""

    source: str  # the first word of a line of /proc/mounts: the fqrn
    allow_other: bool = False  # other users than the one who mounts
    default_permissions: bool = True  # the kernel compares users with modes
    suid: bool = False  # setuid bits count; only where the mount is made by root
    max_read_bytes: int = 1 << 20
    auto_unmount: bool = False  # by fusermount3, however the daemon ends; some of its releases need allow_other for it


@dataclass(frozen=True, slots=True)
class Handover:
    """A descriptor of a mounted file system."""

    fd: int
    mountpoint: str
    way: Way
    device: str | None = None  # major:minor of the mounted file system
    lifeline: fusermount.Lifeline | None = None
    made: tuple[str, ...] = ()  # directories that were missing for it

    def unmount(self, *, by_force: bool = False) -> None:
        """Undoes what was done to mount, if it is still there. To be called before the descriptor is closed.

        By force: whoever waits for an answer gets an error.
        """
        if self.lifeline is not None:
            self.lifeline.close()
        if self.way is not Way.GIVEN and self._is_ours(mount_at(self.mountpoint)):
            mountpoint.unmount(self.mountpoint, lazily=by_force, by_force=by_force)

    def _is_ours(self, mount: Mount | None) -> bool:
        """The kernel gives numbers of devices and mounts again soon, so that another mount may have them by now."""
        if mount is None or mount.device != self.device:
            return False
        return device.is_connected(self.fd) or mountpoint.probe(self.mountpoint) is mountpoint.Life.DEAD


def choose_way(place: str, *, may_mount: bool) -> Way:
    """By the form of the mountpoint and the rights of the process."""
    if _GIVEN.match(place):
        return Way.GIVEN
    return Way.DIRECT if may_mount else Way.HELPED


def obtain(place: str, options: MountOptions) -> Handover:
    """A mount at a directory, or the one behind `/dev/fd/N`."""
    way = choose_way(place, may_mount=mountpoint.may_mount())
    if way is Way.GIVEN:
        return accept_given(place)
    path, made = mountpoint.prepare(place)
    try:
        taken = mount_directly(path, options) if way is Way.DIRECT else mount_with_help(path, options)
    except BaseException:
        mountpoint.remove(made)
        raise
    return replace(taken, made=made)


def accept_given(place: str) -> Handover:
    """Takes over a descriptor that the process was started with."""
    match = _GIVEN.match(place)
    if match is None:
        raise MountError(f"{place} names no descriptor; the form is /dev/fd/N")
    fd = int(match[1])
    try:
        is_device = device.is_device(fd)
    except OSError as error:
        raise MountError(
            f"there is no open descriptor {fd}; {place} as a mountpoint is for programs that open and mount /dev/fuse, "
            "such as apptainer --fusemount"
        ) from error
    if not is_device:
        raise MountError(f"the descriptor {fd} is not one of /dev/fuse; give the one that was used to mount")
    if not device.is_connected(fd):
        raise MountError(
            f"nothing is mounted with the descriptor {fd}, or not any longer; mount it before handing it over"
        )
    os.set_inheritable(fd, False)
    return Handover(fd, place, Way.GIVEN, device.mounted_device(fd))


def mount_directly(path: str, options: MountOptions, *, opened_fd: int | None = None) -> Handover:
    """By mount(2). The descriptor may have been opened before, in the user namespace that owns the mounts."""
    fd = device.open_device() if opened_fd is None else opened_fd
    flags = MountFlag.READ_ONLY | MountFlag.NO_DEVICES
    if not options.suid:
        flags |= MountFlag.NO_SUID
    data = [f"fd={fd}", f"rootmode={_ROOT_MODE}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    try:
        syscalls.mount(options.source, path, mountpoint.OUR_KIND, flags, ",".join([*data, *_kernel_options(options)]))
    except OSError as error:
        os.close(fd)
        raise MountError(f"cannot mount on {path}: {error.strerror}; {_cure(error.errno)}") from error
    return Handover(fd, path, Way.DIRECT, _device_at(path))


def mount_with_help(path: str, options: MountOptions) -> Handover:
    """By fusermount3. It never lets setuid bits count."""
    words = [f"fsname={_escaped(options.source)}", f"subtype={mountpoint.SUBTYPE}", "ro", "nodev", "nosuid"]
    fd, lifeline = fusermount.mount(path, [*words, *_kernel_options(options)], auto_unmount=options.auto_unmount)
    return Handover(fd, path, Way.HELPED, _device_at(path), lifeline)


def _kernel_options(options: MountOptions) -> list[str]:
    words = [f"max_read={options.max_read_bytes}"]
    if options.allow_other:
        words.append("allow_other")
    if options.default_permissions:
        words.append("default_permissions")
    return words


def _escaped(source: str) -> str:
    return source.replace("\\", "\\\\").replace(",", "\\,")


def _device_at(path: str) -> str | None:
    mount = mount_at(path)
    return mount.device if mount is not None and mount.is_fuse else None


def _cure(number: int | None) -> str:
    if number == errno.EPERM:
        if load_privileges().is_filtered:
            return (
                "CAP_SYS_ADMIN is there, but a seccomp filter, a security module or a user namespace forbids mounts; "
                "in a container try --security-opt seccomp=unconfined, or cvmfs-py exec"
            )
        return "CAP_SYS_ADMIN does not reach the mounts of this namespace; use cvmfs-py exec, or unshare -rm"
    if number == errno.EACCES:
        return "a security module forbids it; in a container add --security-opt apparmor=unconfined or label=disable"
    if number == errno.ENODEV:
        return "the kernel has no FUSE, or no FUSE in user namespaces before Linux 4.18; as root: modprobe fuse"
    if number == errno.EINVAL:
        return "the kernel does not take the options, or /dev/fuse was opened in another user namespace"
    return "see cvmfs-py doctor"
