"""Asks mounts about themselves, by their extended attributes and statvfs; one that does not answer is not waited for.

Each is asked by a child process, because nothing can take back a question that a stopped daemon has taken: such a child
is left behind, holding nothing, and ends when the mount does. All are asked at once.

Concurrency: for processes with one thread, because it forks. Blocking, with a deadline.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvmfs_py.mount import child
from cvmfs_py.vfs.facts import REPOSITORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PAGE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What one directory at the top of a repository says; or why it says nothing."""

    values: dict[str, str] = field(default_factory=dict)  # by the names of attributes without `user.`
    cache_used_bytes: int | None = None
    cache_limit_bytes: int | None = None
    trouble: str = ""


@dataclass(slots=True)
class _Asked:
    pid: int
    fd: int
    data: bytes = b""
    is_done: bool = False


def ask_mounts(mountpoints: Sequence[bytes], names: Sequence[str], limit_s: float) -> list[dict[str, Answer]]:
    """The answers of each mount by the name of the repository, that of a mount of only one under the empty name."""
    asked = [_ask(mountpoint, names) for mountpoint in mountpoints]
    _hear(asked, time.monotonic() + limit_s)
    found = []
    for each in asked:
        os.close(each.fd)
        found.append(_parse(each, limit_s))
    return found


def _ask(mountpoint: bytes, names: Sequence[str]) -> _Asked:
    reading, writing = os.pipe()

    def tell() -> int:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        child.silence(0, 1, 2)  # or whoever reads them waits for the child
        for repository, answer in _answers(mountpoint, names):
            data = json.dumps([repository, answer]).encode() + b"\n"
            while data:
                data = data[os.write(writing, data) :]
        os.write(writing, b"\n")
        return 0

    pid = child.fork(tell)
    os.close(writing)
    os.set_blocking(reading, False)
    return _Asked(pid, reading)


def _answers(mountpoint: bytes, names: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    try:
        listed = os.getxattr(mountpoint, REPOSITORIES)
    except OSError:  # it has only one
        yield "", _ask_one(mountpoint, names)
        return
    for name in filter(None, listed.split(b"\n")):
        yield name.decode("latin-1"), _ask_one(os.path.join(mountpoint, name), names)


def _ask_one(directory: bytes, names: Sequence[str]) -> dict[str, object]:
    values = {}
    try:
        for name in names:
            try:
                values[name] = os.getxattr(directory, f"user.{name}").decode("utf-8", "replace")
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                    raise
        space = os.statvfs(directory)
    except OSError as error:
        return {"values": values, "trouble": error.strerror or str(error)}
    limit_bytes = space.f_blocks * space.f_frsize
    used_bytes = (space.f_blocks - space.f_bfree) * space.f_frsize
    return {"values": values, "cache_used_bytes": used_bytes, "cache_limit_bytes": limit_bytes}


def _hear(asked: Sequence[_Asked], deadline: float) -> None:
    poll = select.poll()
    by_fd = {each.fd: each for each in asked}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    left = len(by_fd)
    while left and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            data = os.read(fd, _PAGE_BYTES)
            each = by_fd[fd]
            each.data += data
            if not data or each.data.endswith(b"\n\n"):
                each.is_done = True
                poll.unregister(fd)
                left -= 1
    for each in asked:
        if not each.is_done:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # without waiting: it may hang where no signal reaches it
            os.waitpid(each.pid, 0 if each.is_done else os.WNOHANG)


def _parse(each: _Asked, limit_s: float) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for line in each.data.split(b"\n")[:-1]:
        if line:
            repository, answer = json.loads(line)
            found[repository] = Answer(**answer)
    if not each.is_done:
        found[""] = Answer(trouble=f"it has not answered within {limit_s:g} s")
    return found
