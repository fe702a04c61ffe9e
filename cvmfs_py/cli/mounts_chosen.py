"""The mounts that a command is about: one's own, or those that were named by a mountpoint or by a repository.

Looks at the records of mounts only, never at a mount. MountError for a name of which nothing is mounted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cvmfs_py.config.fqrn import is_valid_name
from cvmfs_py.errors import MountError
from cvmfs_py.fuse.mountinfo import real_path
from cvmfs_py.mount.registry import list_mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfs_py.mount.registry import ListedMount


def chosen_mounts(names: Sequence[str]) -> list[ListedMount]:
    """By each name; without any, one's own."""
    user_id = os.geteuid()
    mounts = list_mounts(os.environ, user_id).mounts
    if not names:
        return [each for each in mounts if each.user_id == user_id]
    chosen: dict[ListedMount, None] = {}
    for name in names:
        chosen.update(dict.fromkeys(mounts_named(mounts, name)))
    return list(chosen)


def mounts_named(mounts: Sequence[ListedMount], name: str) -> list[ListedMount]:
    """A mountpoint before the name of a repository, or of one of its snapshots: FQRN@TAG.

    What is not mounted by itself may be in a mount of every repository.
    """
    place = os.fsencode(real_path(name))
    found = [each for each in mounts if each.record.mountpoint == place]
    if not found:
        fqrn, _, tag = name.partition("@")
        found = [each for each in mounts if each.record.fqrn == fqrn and (not tag or each.record.tag == tag)]
    if not found:
        parent = os.path.dirname(place)
        of_every = [each for each in mounts if each.record.fqrn == "*"]
        is_full_name = "." in name and is_valid_name(name)
        found = [each for each in of_every if each.record.mountpoint == parent or is_full_name]
    if not found:
        raise MountError(f"{name} is not mounted by cvmfs-py; see cvmfs-py list")
    return found
