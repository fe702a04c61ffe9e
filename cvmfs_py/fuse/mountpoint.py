"""The place of a mount: making it, whether it can take one, what is there, clearing a dead one away, unmounting.

Does not mount. A mount whose daemon crashed (ENOTCONN) serves nobody and is cleared away; a living one never is.

Concurrency: blocking, with deadlines; others may mount at the same place in the meantime.
"""

from __future__ import annotations

import enum
import errno
import os
import shlex
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import fusermount, syscalls
from cvmfs_py.fuse.mountinfo import Mount, find_mount_around, mount_at
from cvmfs_py.fuse.privileges import Capability, load_privileges

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP = "/cvmfs"
SUBTYPE = "cvmfs-py"
OUR_KIND = f"fuse.{SUBTYPE}"
REFERENCE_SOURCE = "cvmfs2"  # how the C++ client names its system mounts
GONE = (errno.ENOTCONN, errno.ECONNABORTED)  # what every access to a mount without a daemon gives
_DEADLINE_S = 5.0
_STACK_LIMIT = 16


class Life(enum.Enum):
    """What became of the daemon behind a mount."""

    ALIVE = "answers"
    DEAD = "is gone"
    SILENT = "does not answer"


def check_reachable(place: str) -> None:
    """MountError when the way to a place leads through a mount of repositories that does not answer.

    To be asked before anything else is done there: whoever goes such a way waits for ever.
    """
    path, around = find_mount_around(place)
    if around is not None and around.mountpoint != path and (life := probe(around.mountpoint)) is not Life.ALIVE:
        raise MountError(
            f"{path} lies below {around.mountpoint}, a mount of {around.source} whose daemon {life.value}; "
            f"unmount that first with: {_ending_command(around)}"
        )


def prepare(mountpoint: str) -> tuple[str, tuple[str, ...]]:
    """The full path of a directory that can take a mount, and the directories that were made for it.

    What a crashed daemon left there is unmounted.
    """
    check_reachable(mountpoint)
    for _ in range(_STACK_LIMIT):  # crash after crash may have left mounts on top of each other
        mount = mount_at(mountpoint)
        if mount is None or not mount.is_fuse:
            return _require_directory(mountpoint)
        life = probe(mount.mountpoint)
        if life is Life.DEAD:
            unmount(mount.mountpoint, lazily=True)
        elif life is Life.SILENT:
            raise MountError(
                f"{mountpoint} is a mount of {mount.source} whose daemon does not answer within {_DEADLINE_S:.0f} s; "
                f"wake it, or unmount it with: {_ending_command(mount)}"
            )
        elif mount.kind == OUR_KIND or mount.source == REFERENCE_SOURCE:
            raise MountError(
                f"{mount.source} is mounted at {mountpoint} already; use it, or unmount it first with: "
                f"{unmount_command(mount.mountpoint)}"
            )
        else:
            return _require_directory(mountpoint)
    raise MountError(f"{mountpoint} is covered by more than {_STACK_LIMIT} dead mounts; unmount them with umount -l")


def _make(path: str) -> tuple[str, ...]:
    """Makes a directory whose parent is there; for root /cvmfs, too. What was made, the last last.

    It is made for good: whoever unmounts it (umount, fusermount3, a restart) need not know about it.
    """
    parent = os.path.dirname(path)
    wanted = [parent, path] if parent == TOP and os.geteuid() == 0 and not os.path.isdir(parent) else [path]
    made: list[str] = []
    try:
        for each in wanted:
            os.mkdir(each, 0o755)
            made.append(each)
            os.chmod(each, 0o755)  # whatever the umask: it is for whoever may use the mount
    except FileNotFoundError:
        raise MountError(f"the mountpoint {path} does not exist, nor does {parent}; make it: mkdir -p {path}") from None
    except OSError as error:
        remove(made)
        raise MountError(
            f"the mountpoint {path} does not exist, and cannot be made: {error.strerror}; name one in a directory of "
            f"yours, or have it made: mkdir -p {path}"
        ) from error
    return tuple(made)


def remove(made: Sequence[str]) -> None:
    """What was made for a mount that never came."""
    for path in reversed(made):
        with suppress(OSError):
            os.rmdir(path)


def probe(path: str) -> Life:
    """Asks for what the kernel never keeps: the attributes of a dead mount's top may be valid for a year to come.

    A thread of its own waits, as an answer may never come.
    """
    found: list[Life] = []

    def ask() -> None:
        try:
            os.statvfs(path)
        except OSError as error:
            found.append(Life.DEAD if error.errno in GONE else Life.ALIVE)
        else:
            found.append(Life.ALIVE)

    waiter = threading.Thread(target=ask, name=f"probe {path}", daemon=True)
    waiter.start()
    waiter.join(_DEADLINE_S)
    return found[0] if found else Life.SILENT


def may_mount() -> bool:
    """Whether mount(2) itself is open to this process, as far as that can be known without trying."""
    return load_privileges().include(Capability.SYS_ADMIN)


def unmount(mountpoint: str, *, lazily: bool = False, by_force: bool = False) -> None:
    """Unmounts the topmost mount, lazily when it is in use. That nothing is mounted there is no error.

    By force, for a daemon that never answers: who waits for it gets an error. Users get there as the daemon ends.
    """
    if not may_mount():
        _unmount_as_user(mountpoint, lazily=lazily)
        return
    try:
        syscalls.unmount(mountpoint, lazily=lazily, by_force=by_force)
    except OSError as error:
        if error.errno == errno.EBUSY and not lazily:
            unmount(mountpoint, lazily=True)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):
            raise MountError(f"cannot unmount {mountpoint}: {error.strerror}") from error


def unmount_command(mountpoint: str, *, lazily: bool = False) -> str:
    """What people type."""
    program, lazy_option = ("umount", "-l") if may_mount() else ("fusermount3 -u", "-z")
    return f"{program}{f' {lazy_option}' if lazily else ''} {shlex.quote(mountpoint)}"


def _ending_command(mount: Mount) -> str:
    """For one that does not answer: our own command ends its daemon as well."""
    if mount.kind == OUR_KIND:
        return f"cvmfs-py umount {shlex.quote(mount.mountpoint)}"
    return unmount_command(mount.mountpoint, lazily=True)


def _unmount_as_user(mountpoint: str, *, lazily: bool) -> None:
    if mount_at(mountpoint) is None:
        return
    try:
        fusermount.unmount(mountpoint, lazily=lazily)
    except MountError:
        if mount_at(mountpoint) is None:
            return  # somebody else was faster
        if lazily:
            raise
        fusermount.unmount(mountpoint, lazily=True)


def _require_directory(path: str) -> tuple[str, tuple[str, ...]]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        made = _make(path)
        return os.path.realpath(path), made
    except OSError as error:
        raise MountError(f"the mountpoint {path} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise MountError(f"the mountpoint {path} is not a directory; name one, it may have content")
    return os.path.realpath(path), ()
