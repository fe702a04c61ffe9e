"""The directory of what is running: /run/cvmfs-py for root, a private one for everybody else.

Such directories may be in places where others can write, and root reads those of everybody: they count only when they
belong to whom they should, and nothing in them is followed, waited for or read beyond a limit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts
from cvmfs_py.errors import MountError
from cvmfs_py.places import NAME, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".json"
LIMIT_BYTES = 64 << 10
SYSTEM = b"/run/" + NAME.encode()
_USERS = b"/run/user"
_TEMPORARY = b"/tmp"
_NOBODY = 65534  # the kernel's name for those who have none in a user namespace


def runtime_directory(environment: Mapping[str, str], user_id: int) -> bytes:
    """The directory for this user's records, made where it is missing. MountError when there is no place for one."""
    refusals: list[str] = []
    for directory in _own_directories(environment, user_id):
        own = own_mounts.find_own_mount(os.fsdecode(directory))
        if own is not None:
            refusals.append(f"{os.fsdecode(directory)}: it lies below the mountpoint {own}")
            continue
        try:
            os.makedirs(directory, mode=0o755 if directory == SYSTEM else 0o700, exist_ok=True)
            os.close(open_directory(directory, must_be_mine=True))
        except OSError as error:
            refusals.append(f"{os.fsdecode(directory)}: {error.strerror}")
        else:
            return directory
    raise MountError(
        f"there is no directory for notes about mounts ({'; '.join(refusals)}); set XDG_RUNTIME_DIR to one"
    )


def record_directories(environment: Mapping[str, str], user_id: int) -> tuple[bytes, ...]:
    """Where records of this user and of the system may be; for root, of everybody. They need not exist."""
    found = dict.fromkeys([SYSTEM, *_own_directories(environment, user_id)])
    # cron and `su` know no XDG_RUNTIME_DIR, and ask for what the same user has mounted in a session
    found[os.path.join(_USERS, str(user_id).encode(), NAME.encode())] = None
    if user_id == 0:
        suffix = NAME.encode()
        found |= dict.fromkeys(os.path.join(_USERS, name, suffix) for name in _names_in(_USERS) if name.isdigit())
        pattern = re.compile(re.escape(suffix) + rb"-[0-9]+\Z")
        found |= dict.fromkeys(os.path.join(_TEMPORARY, name) for name in _names_in(_TEMPORARY) if pattern.match(name))
    return tuple(found)


def _own_directories(environment: Mapping[str, str], user_id: int) -> list[bytes]:
    """In the order of preference. Root of a user namespace may not write to /run, and goes on as a user."""
    found = [SYSTEM] if user_id == 0 else []
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        found.append(os.path.join(os.fsencode(runtime), NAME.encode()))
    return [*found, os.fsencode(temporary_directory(user_id))]


def open_directory(directory: bytes, *, must_be_mine: bool = False) -> int:
    """A descriptor of a directory that nobody but its owner can write to, and whose owner is the right one."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        owner = _expected_owner(directory)
        if must_be_mine:
            owner = os.geteuid()
        if owner is not None and info.st_uid == _NOBODY and not must_be_mine:
            raise FileNotFoundError(
                errno.ENOENT, "its owner is outside of this user namespace, and so is what it tells"
            )
        if owner is not None and info.st_uid != owner:
            raise PermissionError(errno.EPERM, f"it belongs to user {info.st_uid} and not to {owner}")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(errno.EPERM, "others can write to it")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _expected_owner(directory: bytes) -> int | None:
    """Whose a directory is by its name; None: the name does not say, it is whoever's it is."""
    if directory == SYSTEM:
        return 0
    parent, name = os.path.split(directory)
    number = os.path.basename(parent) if os.path.dirname(parent) == _USERS else name.rpartition(b"-")[2]
    is_named = os.path.dirname(parent) == _USERS or parent == _TEMPORARY
    return int(number) if is_named and number.isdigit() and len(number) < 11 else None


def _names_in(directory: bytes) -> list[bytes]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class FoundRecord:
    data: bytes
    owner_id: int
    is_locked: bool  # by the daemon that wrote it


def read_record(directory_fd: int, name: str) -> FoundRecord:
    """A file of the directory, if its owner is the directory's. OSError."""
    while True:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if info.st_uid != os.fstat(directory_fd).st_uid:
                raise PermissionError(errno.EPERM, f"it belongs to user {info.st_uid}, who has no business there")
            if info.st_size > LIMIT_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {LIMIT_BYTES} bytes")
            data = os.read(fd, LIMIT_BYTES)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return FoundRecord(data, info.st_uid, True)
            # An update lets the old file go only when the new one is there: then this is not the record any more.
            if os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_ino == info.st_ino:
                return FoundRecord(data, info.st_uid, False)
        finally:
            os.close(fd)
