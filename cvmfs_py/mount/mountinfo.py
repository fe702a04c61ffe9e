"""What /proc/PID/mountinfo says about mounts. Parsing is pure; one function reads the file. Asks no file system.

A mount that does not answer is in the list like any other, and reading the list never waits for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

MOUNTINFO = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount of the namespace."""

    mount_id: int
    parent_id: int
    device: str  # MAJOR:MINOR, which no other file system has while this one is mounted
    mountpoint: bytes
    options: tuple[bytes, ...]  # of this mount
    file_system: bytes  # such as fuse or fuse.name
    source: bytes
    super_options: tuple[bytes, ...]  # of the file system


def read_mounts(path: str = MOUNTINFO) -> tuple[MountEntry, ...]:
    """The mounts of this process's namespace, in the order in which they were made."""
    with open(path, "rb") as stream:
        return parse_mountinfo(stream.read())


def parse_mountinfo(data: bytes) -> tuple[MountEntry, ...]:
    """Every line that can be read; one that cannot says nothing about the others."""
    return tuple(entry for line in data.splitlines() if (entry := _parse_line(line)) is not None)


def _parse_line(line: bytes) -> MountEntry | None:
    before, separator, after = line.partition(b" - ")
    fields, rest = before.split(b" "), after.split(b" ")
    if not separator or len(fields) < 6 or len(rest) < 3 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    return MountEntry(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2].decode("ascii", "replace"),
        mountpoint=_unescape(fields[4]),
        options=tuple(fields[5].split(b",")),
        file_system=_unescape(rest[0]),
        source=_unescape(rest[1]),
        super_options=tuple(_unescape(rest[2]).split(b",")),
    )


def _unescape(text: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), text)


def find_mount(mounts: tuple[MountEntry, ...], mountpoint: bytes) -> MountEntry | None:
    """The mount whose root one sees at a path; None: nothing is mounted there, or it is covered by another one."""
    entry = find_file_system(mounts, mountpoint)
    return entry if entry is not None and entry.mountpoint == mountpoint else None


def find_file_system(mounts: tuple[MountEntry, ...], path: bytes) -> MountEntry | None:
    """The mount that a path, which must be absolute and without links, is on. The way the kernel walks there."""
    known = {entry.mount_id for entry in mounts}
    children = {(entry.parent_id, entry.mountpoint): entry for entry in mounts if entry.parent_id != entry.mount_id}
    roots = [entry for entry in mounts if entry.mountpoint == b"/" and (entry.parent_id not in known or _is_top(entry))]
    current = roots[0] if roots else None
    parts = [part for part in path.split(b"/") if part]
    for length in range(len(parts) + 1):
        place = b"/" + b"/".join(parts[:length])
        while True:
            # In a changed root directory the first mount is not in the list: any parent will do for those below.
            found = _any_at(mounts, place) if current is None else children.get((current.mount_id, place))
            if found is None:
                break
            current = found
    return current


def _is_top(entry: MountEntry) -> bool:
    return entry.parent_id == entry.mount_id


def _any_at(mounts: tuple[MountEntry, ...], place: bytes) -> MountEntry | None:
    return next((entry for entry in mounts if entry.mountpoint == place), None)


def real_path(path: bytes) -> bytes:
    """A mount point as the kernel lists it. Only its parents are looked at: it may be a mount that does not answer."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(parent), name) if name else parent
