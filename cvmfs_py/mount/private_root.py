"""A directory /cvmfs for the repositories of one mount namespace, whether or not the machine has one.

Where there is one it is covered. Where there is none, a new root is made of one link or bind mount for each thing in
the old one, and /cvmfs beside them; mounts below are kept. Nothing of it is seen outside the namespace.

Concurrency: changes the mounts and the root of the calling process, which has a private mount namespace.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cvmfs_py.errors import MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.syscalls import MountFlag
from cvmfs_py.mount.namespace import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

CVMFS = "/cvmfs"
_STAGES = ("/tmp", "/mnt", "/run", "/var", "/dev")  # covered for a moment, then forgotten with the old root
_QUIET = MountFlag.NO_SUID | MountFlag.NO_DEVICES
_SMALL = "mode=0755,size=1m"


def provide_places(names: Iterable[str]) -> None:
    """An empty directory for each name below /cvmfs, none for an empty name.

    Relative paths may lead nowhere afterwards: change directory.
    """
    try:
        if _is_there():
            syscalls.mount("cvmfs-py", CVMFS, "tmpfs", _QUIET, _SMALL)
            top = CVMFS
        else:
            _rebuild_root()
            top = "/"
        for name in filter(None, names):
            place = f"{CVMFS}/{name}"
            os.mkdir(place)
            os.chmod(place, 0o755)  # whatever the umask
        # Files written there would be gone with the namespace: better refused at once.
        syscalls.mount("", top, "", MountFlag.REMOUNT | MountFlag.BIND | MountFlag.READ_ONLY | _QUIET)
    except OSError as error:
        raise refusal(f"a private {CVMFS} ({error.filename or 'root'})", error) from error


def _is_there() -> bool:
    """Without a question to what may be mounted there: it may not answer."""
    with os.scandir("/") as listing:
        found = next((item for item in listing if item.path == CVMFS), None)
    return found is not None and (found.is_dir(follow_symlinks=False) or os.path.isdir(CVMFS))


def _find_stage() -> str:
    for place in _STAGES:
        if os.path.isdir(place) and not os.path.islink(place):
            return place
    raise MountError(f"cannot make a private {CVMFS}: none of the directories {', '.join(_STAGES)} exists")


def _rebuild_root() -> None:
    stage = _find_stage()
    covered = os.open(stage, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.mount("cvmfs-py", stage, "tmpfs", _QUIET, _SMALL)
        syscalls.mount("", stage, "", MountFlag.UNBINDABLE)  # or it would be carried over with what it covers
        with os.scandir("/") as listing:
            for item in listing:
                if item.path != CVMFS:
                    source = f"/proc/self/fd/{covered}" if item.path == stage else item.path
                    _carry_over(item, source, f"{stage}/{item.name}")
    finally:
        os.close(covered)
    os.mkdir(f"{stage}{CVMFS}")
    os.chmod(f"{stage}{CVMFS}", 0o755)
    syscalls.mount("", stage, "", MountFlag.PRIVATE)
    os.chdir(stage)
    _change_root()


def _carry_over(item: os.DirEntry[str], source: str, place: str) -> None:
    """The kind of a thing is known from its directory: what is mounted on it is not asked, it may be dead."""
    if item.is_symlink():
        os.symlink(os.readlink(item.path), place)
        return
    if item.is_dir(follow_symlinks=False):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    syscalls.mount(source, place, "", MountFlag.BIND | MountFlag.RECURSIVE)


def _change_root() -> None:
    """The current directory becomes the root, and the old root is let go of."""
    try:
        syscalls.pivot_root(".", ".")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.chroot(".")  # the root is no mount, as in a chroot or an initial RAM disk
    else:
        syscalls.unmount(".", lazily=True)
    os.chdir("/")
