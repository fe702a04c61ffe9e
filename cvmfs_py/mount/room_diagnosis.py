"""The checks of room: for the cache on its disk, and for open files. Writes one file into the cache and removes it.

Synchronous, and reads the cache's index: to be called in a thread, or where nobody waits.
"""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import CacheError
from cvmfs_py.fuse.mountinfo import find_file_system, load_mounts
from cvmfs_py.mount import wiring
from cvmfs_py.mount.diagnosis import Check, Outcome
from cvmfs_py.numerals import counted
from cvmfs_py.places import can_be_used

if TYPE_CHECKING:
    from cvmfs_py.config.settings import Settings

MINIMUM_FREE_BYTES = 128 << 20
MINIMUM_FREE_INODES = 10_000
FEW_FDS = 1024
_REMOTE = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "ceph",
    "beegfs",
    "9p",
    "afs",
    "glusterfs",
    "panfs",
    "pvfs2",
)
_VOLATILE = ("tmpfs", "ramfs")


def check_cache(settings: Settings) -> Check:
    name, directory = "cache", settings.cache_dir
    cure = "choose another directory with --cache-dir or CVMFS_PY_CACHE_DIR"
    place = _existing(directory)
    try:
        if directory.is_dir():
            with tempfile.TemporaryFile(dir=directory) as stream:
                stream.write(b"x")
                stream.flush()
            with wiring.open_store(settings) as store:
                status = store.status()
                used_bytes, pinned_bytes = status.used_bytes, status.pinned_bytes
        elif can_be_used(directory):
            used_bytes = pinned_bytes = 0
        else:
            return Check(name, Outcome.FAILED, f"{directory} cannot be made or written", cure)
        room = os.statvfs(place)
    except OSError as error:
        return Check(name, Outcome.FAILED, f"{directory} cannot be written: {error.strerror}", cure)
    except CacheError as error:
        return Check(name, Outcome.FAILED, str(error), cure)
    kind = _file_system_of(place)
    free_bytes = room.f_bavail * room.f_frsize
    quota = settings.quota_limit_bytes
    limit = "without a limit" if quota is None else f"limit {_mib(quota)}"
    found = f"{directory} on {kind}: {_mib(used_bytes)} used, {limit}, {_mib(free_bytes)} free on the disk"
    problems: list[tuple[str, str]] = []
    if free_bytes + used_bytes < MINIMUM_FREE_BYTES:
        return Check(name, Outcome.FAILED, f"{found}, which is too little", cure)
    if quota is not None and free_bytes + used_bytes < quota:
        at_most = max(64, (free_bytes + used_bytes) * 9 // 10 >> 20)
        problems.append(("less than the limit", f"set CVMFS_QUOTA_LIMIT to {at_most} or less, or {cure}"))
    if quota is not None and pinned_bytes > quota * 9 // 10:
        cure_pins = "raise CVMFS_QUOTA_LIMIT, or let go of a pin: `cvmfs-py cache pins`, `cvmfs-py cache unpin`"
        problems.append((f"{_mib(pinned_bytes)} of it pinned, so that nothing else stays in it for long", cure_pins))
    if room.f_files and room.f_favail < MINIMUM_FREE_INODES:
        problems.append((f"only {counted(room.f_favail, 'more file')}", cure))
    if kind in _REMOTE or kind.startswith("fuse"):
        problems.append(("a network file system is slow for this", "put it on a local disk (CVMFS_PY_CACHE_DIR)"))
    if kind in _VOLATILE:
        problems.append(("it takes memory and is gone after a restart", cure))
    if problems:
        return Check(name, Outcome.WARNING, "; ".join([found, *(text for text, _ in problems)]), problems[0][1])
    return Check(name, Outcome.OK, found)


def check_descriptors() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_descriptors(soft, hard)


def judge_descriptors(soft: int, hard: int) -> Check:
    def text(limit: int) -> str:
        return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)

    found = f"{text(soft)} open files, at most {text(hard)}"
    if soft != resource.RLIM_INFINITY and soft < FEW_FDS:
        cure = f"ulimit -n {FEW_FDS} before, or in /etc/security/limits.conf; in a container: --ulimit nofile={FEW_FDS}"
        return Check("open files", Outcome.WARNING, f"{found}: few, programs that keep many files open may fail", cure)
    return Check("open files", Outcome.OK, found)


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above that is there."""
    return next(place for place in (directory, *directory.parents, Path("/")) if place.exists())


def _file_system_of(place: Path) -> str:
    try:
        entry = find_file_system(load_mounts(), os.path.realpath(place))
    except OSError:
        entry = None
    return "an unknown file system" if entry is None else entry.kind


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20:,} MiB"
