"""What is mounted, and where: /proc/self/mountinfo, and the mount that a path leads to. Mounts and unmounts nothing.

The list is read without asking any file system, so one that does not answer holds up nobody.

A path is never asked for its attributes to find its mount, because a file system without a living daemon would answer
with an error, and one with a stopped daemon not at all.

Concurrency: pure functions of the moment; others mount and unmount at any time.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from cvmfs_py.own_mounts import resolve_until

_REPOSITORIES = ("fuse.cvmfs-py", "fuse")  # the second is how the C++ client mounts
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    device: str  # major:minor, of the file system
    root: str  # the part of the file system that is mounted
    mountpoint: str
    options: frozenset[str]
    kind: str  # with its subtype: fuse.cvmfs-py
    source: str
    file_system_options: frozenset[str]

    @property
    def is_fuse(self) -> bool:
        return self.kind in ("fuse", "fuseblk") or self.kind.startswith("fuse.")


def parse_mountinfo(text: bytes) -> tuple[Mount, ...]:
    """All mounts of a namespace. Lines that are not understood are left out: the format may grow."""
    return tuple(mount for line in text.splitlines() if (mount := _parse_line(line)) is not None)


def load_mounts(path: str = "/proc/self/mountinfo") -> tuple[Mount, ...]:
    """Those of this process. None where there is no /proc."""
    try:
        with open(path, "rb") as file:
            return parse_mountinfo(file.read())
    except FileNotFoundError:
        return ()


def mount_at(path: str) -> Mount | None:
    """The mount whose top is at this path, the last one if there are several; None: it is no mountpoint."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        mount_id = _mount_id(fd)
        place = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None  # no /proc
    finally:
        os.close(fd)
    return next((mount for mount in load_mounts() if mount.mount_id == mount_id and mount.mountpoint == place), None)


def find_mount(mounts: tuple[Mount, ...], mountpoint: str) -> Mount | None:
    """The mount whose root one sees at a path; None: nothing is mounted there, or it is covered by another one."""
    entry = find_file_system(mounts, mountpoint)
    return entry if entry is not None and entry.mountpoint == mountpoint else None


def find_file_system(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """The mount that a path, which must be absolute and without links, is on. The way the kernel walks there."""
    known = {entry.mount_id for entry in mounts}
    children = {(entry.parent_id, entry.mountpoint): entry for entry in mounts if entry.parent_id != entry.mount_id}
    roots = [entry for entry in mounts if entry.mountpoint == "/" and (entry.parent_id not in known or _is_top(entry))]
    current = roots[0] if roots else None
    parts = [part for part in path.split("/") if part]
    for length in range(len(parts) + 1):
        place = "/" + "/".join(parts[:length])
        while True:
            # In a changed root directory the first mount is not in the list: any parent will do for those below.
            found = _any_at(mounts, place) if current is None else children.get((current.mount_id, place))
            if found is None:
                break
            current = found
    return current


def _is_top(entry: Mount) -> bool:
    return entry.parent_id == entry.mount_id


def _any_at(mounts: tuple[Mount, ...], place: str) -> Mount | None:
    return next((entry for entry in mounts if entry.mountpoint == place), None)


def real_path(path: str) -> str:
    """A mount point as the kernel lists it. Nothing at or below a mount of repositories is asked: it may not answer."""
    return find_mount_around(path)[0]


def find_mount_around(path: str) -> tuple[str, Mount | None]:
    """The same, and the first mount of repositories on the way there."""
    mounts = {mount.mountpoint: mount for mount in load_mounts() if mount.kind in _REPOSITORIES}
    real, place = resolve_until(path, mounts)
    return real, None if place is None else mounts[place]


def find_places(device: str | None) -> tuple[str, ...]:
    """Where a FUSE file system is mounted in this namespace now, as a whole or a part of it."""
    return tuple(mount.mountpoint for mount in load_mounts() if mount.device == device and mount.is_fuse)


def _mount_id(fd: int) -> int | None:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.partition(":")[2])
    return None


def _parse_line(line: bytes) -> Mount | None:
    """36 35 98:0 /root /mountpoint rw,noatime master:1 - ext3 /dev/root rw,errors=continue"""
    left, separator, right = line.partition(b" - ")
    words, rest = left.split(b" "), right.split(b" ")
    if not separator or len(words) < 6 or len(rest) < 3:
        return None
    try:
        mount_id, parent_id = int(words[0]), int(words[1])
    except ValueError:
        return None
    return Mount(
        mount_id=mount_id,
        parent_id=parent_id,
        device=_plain(words[2]),
        root=_plain(words[3]),
        mountpoint=_plain(words[4]),
        options=frozenset(_plain(words[5]).split(",")),
        kind=_plain(rest[0]),
        source=_plain(rest[1]),
        file_system_options=frozenset(_plain(rest[2]).split(",")),
    )


def _plain(word: bytes) -> str:
    """Blanks, tabs, line ends and backslashes are written as three octal digits."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word))
