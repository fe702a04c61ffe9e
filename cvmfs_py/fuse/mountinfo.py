"""What is mounted, and where: /proc/self/mountinfo, and the mount that a path leads to. Mounts and unmounts nothing.

A path is never asked for its attributes to find its mount, because a file system without a living daemon would answer
with an error, and one with a stopped daemon not at all.

Concurrency: pure functions of the moment; others mount and unmount at any time.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

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
