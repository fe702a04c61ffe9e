"""Repositories that are mounted here and of which no daemon tells: those of other programs, and what a daemon left.

Found in the kernel's list; mounts of ours by their type, those of the C++ client by their source, and whatever else of
type fuse is below /cvmfs. Whether they answer is asked by children, because an answer may never come and nobody is to
wait for it: a child that waits inside the kernel is left to itself.

Concurrency: blocking, with one deadline for all; forks, so there must be one thread only.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cvmfs_py.fuse.mountinfo import find_mount
from cvmfs_py.fuse.mountpoint import GONE, OUR_KIND, REFERENCE_SOURCE, SUBTYPE, TOP, Life
from cvmfs_py.mount import child

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cvmfs_py.fuse.mountinfo import Mount

_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class UnrecordedMount:
    """One that is seen at its mountpoint."""

    mountpoint: str
    fqrn: str  # as far as that can be told; * for all of them
    kind: str  # this and the source: of the kernel's list
    source: str
    is_ours: bool
    user_id: int | None  # who mounted it
    life: Life

    @property
    def program(self) -> str:
        """Whose it is, in words."""
        if self.is_ours:
            return "cvmfs-py"
        return "the C++ client" if self.source == REFERENCE_SOURCE else f"another program ({self.kind})"


def find_unrecorded(mounts: Sequence[Mount], recorded: Iterable[bytes], user_id: int) -> list[UnrecordedMount]:
    """Those of this user and of root, for root those of everybody, sorted by mountpoint; never one that is covered."""
    known = {os.fsdecode(place) for place in recorded}
    places = {mount.mountpoint for mount in mounts if _is_of_interest(mount, user_id)} - known
    seen = [find_mount(tuple(mounts), place) for place in sorted(places)]
    found = {mount.mountpoint: mount for mount in seen if mount is not None and _is_of_interest(mount, user_id)}
    lives = ask(list(found))
    return [
        UnrecordedMount(
            place, _fqrn_of(mount), mount.kind, mount.source, _is_ours(mount), _user_of(mount), lives[place]
        )
        for place, mount in found.items()
    ]


def ask(mountpoints: Sequence[str]) -> dict[str, Life]:
    """What became of the daemons behind mounts; all are asked at once."""
    waiting: dict[int, tuple[str, int]] = {}
    lives = dict.fromkeys(mountpoints, Life.SILENT)
    for place in mountpoints:
        reading, writing = os.pipe()
        pid = child.fork(partial(_ask_one, place, writing))
        os.close(writing)
        waiting[reading] = place, pid
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline_s = time.monotonic() + _DEADLINE_S
    while waiting and (left_s := deadline_s - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            place, pid = waiting.pop(fd)
            lives[place] = Life.DEAD if os.read(fd, 1) == b"d" else Life.ALIVE
            poll.unregister(fd)
            os.close(fd)
            os.waitpid(pid, 0)
    for fd, (_, pid) in waiting.items():
        os.close(fd)
        os.kill(pid, signal.SIGKILL)  # it may go on to wait inside the kernel
    return lives


def _ask_one(place: str, answer: int) -> int:
    child.silence(0, 1, 2)
    try:
        os.statvfs(place)  # the kernel never keeps it
    except OSError as error:
        os.write(answer, b"d" if error.errno in GONE else b"a")
    else:
        os.write(answer, b"a")
    return 0


def _is_of_interest(mount: Mount, user_id: int) -> bool:
    if not mount.is_fuse or (user_id not in (0, _user_of(mount)) and _user_of(mount) not in (0, None)):
        return False
    is_below = mount.mountpoint == TOP or mount.mountpoint.startswith(f"{TOP}/")
    return _is_ours(mount) or mount.source == REFERENCE_SOURCE or is_below


def _is_ours(mount: Mount) -> bool:
    return mount.kind == OUR_KIND


def _fqrn_of(mount: Mount) -> str:
    """The C++ client does not tell, but its mounts bear the name."""
    if _is_ours(mount):
        return "*" if mount.source == SUBTYPE else mount.source
    return os.path.basename(mount.mountpoint)


def _user_of(mount: Mount) -> int | None:
    for option in mount.file_system_options:
        name, _, value = option.partition("=")
        if name == "user_id" and value.isdigit():
            return int(value)
    return None
