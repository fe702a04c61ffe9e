"""Locks that end with their process: flock on files, and temporary files that are locked by their writer.

A lock says "somebody alive works here"; after kill -9 the kernel drops it, so that leftovers can be told from work
in progress. Where the file system has no flock (some Lustre mounts), nothing is claimed to be dead.

Concurrency: locks are held per open file; processes and threads exclude each other alike.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import itertools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LOCKS_HERE = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})
_serial = itertools.count()


class Grip(enum.Enum):
    """The answer to an attempt to lock."""

    HELD = "held"
    BUSY = "busy"
    UNSUPPORTED = "unsupported"


def try_lock(fd: int) -> Grip:
    """Lock an open file exclusively, without waiting."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Grip.BUSY
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            return Grip.UNSUPPORTED
        raise
    return Grip.HELD


@contextlib.contextmanager
def sole_worker(path: str) -> Iterator[bool]:
    """Whether this block alone works under the lock file; never waits. True where there are no locks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(fd) is not Grip.BUSY
    finally:
        os.close(fd)


def create_locked(directory: str, prefix: str) -> tuple[int, str]:
    """A new file that no other process takes for a leftover while it is open: (fd, path)."""
    while True:
        # A process id alone is not unique: containers that share a directory count their own.
        name = f"{prefix}-{os.getpid()}-{next(_serial)}-{os.urandom(4).hex()}"
        path = os.path.join(directory, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            grip = try_lock(fd)
            if grip is Grip.UNSUPPORTED or (grip is Grip.HELD and os.fstat(fd).st_nlink):
                return fd, path
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # someone cleaned up between open and flock, and took the file for a leftover
        remove_file(path)


def dead_files(directory: str) -> list[str]:
    """Files in `directory` whose writer is gone."""
    try:
        with os.scandir(directory) as listing:
            paths = [item.path for item in listing if item.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [path for path in paths if _is_dead(path)]


def remove_file(path: str) -> bool:
    """Unlink, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _is_dead(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or not ours: in both cases nothing to clean up
        return False
    try:
        return try_lock(fd) is Grip.HELD
    finally:
        os.close(fd)
