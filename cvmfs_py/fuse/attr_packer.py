"""Entries of a catalog straight into the kernel's attributes: `pack_attr(ino, attributes(entry, view))`, but faster.

For lookups and listings, where nothing else wants the value in between. Pure; one for each view, used by anybody.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from cvmfs_py.fuse.wire_attrs import ATTR, pack_attr
from cvmfs_py.vfs.attrs import BLOCK_BYTES, PREFERRED_IO_BYTES, attributes
from cvmfs_py.vfs.links import expand_target

if TYPE_CHECKING:
    from catalog.entry import Entry
    from cvmfs_py.config.id_map import IdMap
    from cvmfs_py.vfs.attrs import View

_REGULAR = stat.S_IFREG >> 12
_DIRECTORY = stat.S_IFDIR >> 12
_LINK = stat.S_IFLNK >> 12
_DEVICES = frozenset((stat.S_IFCHR >> 12, stat.S_IFBLK >> 12))
_U32_MASK = (1 << 32) - 1

_pack = ATTR.pack


class AttrPacker:
    """The attributes of entries under one view's rules."""

    __slots__ = ("_as_stored", "_expand_links", "_gid", "_link_variables", "_uid", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._uid = view.uid
        self._gid = view.gid
        self._expand_links = view.expand_links
        self._link_variables = view.link_variables
        # The usual case, and the one that must be fast: stored owners and modes are shown as they are.
        self._as_stored = not view.claim_ownership and not view.world_readable
        self._as_stored = self._as_stored and not _changes(view.uid_map) and not _changes(view.gid_map)

    def pack(self, ino: int, entry: Entry) -> bytes:
        _, _, mode, size_bytes, mtime_s, mtime_ns, uid, gid, hardlinks, _, _, symlink, _ = entry
        kind = mode >> 12
        rdev = 0
        if kind != _REGULAR and kind != _DIRECTORY:
            if kind == _LINK:
                size_bytes = len(expand_target(symlink, self._link_variables) if self._expand_links else symlink)
            elif kind in _DEVICES:
                rdev = size_bytes & _U32_MASK
                size_bytes = 0
        if self._as_stored:
            if uid is None:
                uid = self._uid
            if gid is None:
                gid = self._gid
        else:
            view = self._view
            uid = view.uid if view.claim_ownership or uid is None else view.uid_map.map(uid)
            gid = view.gid if view.claim_ownership or gid is None else view.gid_map.map(gid)
            if view.world_readable:
                mode |= 0o555 if kind == _DIRECTORY else 0o444
        if not size_bytes >> 63:
            try:
                return _pack(
                    ino,
                    size_bytes,
                    1 + size_bytes // BLOCK_BYTES,
                    mtime_s,
                    mtime_s,
                    mtime_s,
                    mtime_ns,
                    mtime_ns,
                    mtime_ns,
                    mode,
                    hardlinks & _U32_MASK,
                    uid,
                    gid,
                    rdev,
                    PREFERRED_IO_BYTES,
                    0,
                )
            except struct.error:
                pass  # something is too large for its field
        return pack_attr(ino, attributes(entry, self._view))


def _changes(id_map: IdMap) -> bool:
    return id_map.default is not None or bool(id_map.numbers)
