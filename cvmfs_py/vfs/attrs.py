"""The attributes that programs see: a catalog entry under the view's rules for owners and modes. Pure."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvmfs_py.config.id_map import IdMap
from cvmfs_py.vfs.links import expand_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catalog.entry import Entry

BLOCK_BYTES = 512
PREFERRED_IO_BYTES = 4096
SAME_IDS = IdMap({})
_DEVICE_MASK = (1 << 64) - 1  # a device number has 64 bits without a sign, a column of a catalog has one


@dataclass(frozen=True, slots=True)
class View:
    """How one client shows a repository: owners, modes and the values of variant symlinks."""

    uid: int
    gid: int
    claim_ownership: bool = False
    uid_map: IdMap = SAME_IDS
    gid_map: IdMap = SAME_IDS
    world_readable: bool = False
    link_variables: Mapping[bytes, bytes] = field(default_factory=dict)
    expand_links: bool = True


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat answers, without the inode number."""

    mode: int
    link_count: int
    uid: int
    gid: int
    size_bytes: int
    rdev: int  # 0 for everything but devices
    mtime_ns: int

    @property
    def blocks(self) -> int:
        return 1 + self.size_bytes // BLOCK_BYTES


def link_target(entry: Entry, view: View) -> bytes:
    return expand_target(entry.symlink, view.link_variables) if view.expand_links else entry.symlink


def attributes(entry: Entry, view: View) -> Attributes:
    mode = entry.mode
    if view.world_readable:
        mode |= 0o555 if stat.S_ISDIR(mode) else 0o444
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    size_bytes = 0 if is_device else entry.size
    if stat.S_ISLNK(mode):
        size_bytes = len(link_target(entry, view))
    return Attributes(
        mode=mode,
        link_count=entry.link_count,
        uid=view.uid if view.claim_ownership or entry.uid is None else view.uid_map.map(entry.uid),
        gid=view.gid if view.claim_ownership or entry.gid is None else view.gid_map.map(entry.gid),
        size_bytes=size_bytes,
        rdev=entry.size & _DEVICE_MASK if is_device else 0,
        mtime_ns=entry.mtime_s * 1_000_000_000 + entry.mtime_ns,
    )
