"""One publisher at a time: a lock that ends with the process that holds it, however that ends.

Knows nothing of what is protected. Concurrency: locks of several processes, and of several places in one process,
exclude one another.
"""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING, Self

from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from pathlib import Path

_OWNER_BYTES = 300


class PublisherLock:
    """The exclusive lock of a repository, from its making to `close`."""

    def __init__(self, file: Path, fqrn: str) -> None:
        """Takes the lock, or refuses at once, naming who holds it."""
        self._fd = -1
        try:
            # Not inherited: worker processes that outlive a killed publisher must not keep the next one out.
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PublishError(f"{fqrn} cannot be locked with {file}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BlockingIOError:
            owner = os.pread(fd, _OWNER_BYTES, 0).decode("utf-8", "replace") or "another process"
            os.close(fd)
            raise PublishError(
                f"{fqrn} is being changed by {owner}; nothing was done: try again when that has ended"
            ) from None
        except OSError as error:
            os.close(fd)
            raise PublishError(f"{fqrn} cannot be locked with {file}: {error.strerror}") from error
        self._fd = fd

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
