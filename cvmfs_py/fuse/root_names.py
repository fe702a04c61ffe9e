"""What the kernel was told of the names in the root of a repository for good, and how that is taken back.

All other inodes are bound to content: what a name in them means never changes, so it may be believed for ever by every
kernel. A new revision changes only what the names in the root lead to, and with a name the kernel drops all that is
below it. One notice makes every name stale where the kernel has INC_EPOCH (Linux 6.16). An older one is told name by
name; of those beyond a limit it was told that they hold for a bounded time only. Until the last of them is written,
some milliseconds later, one name may lead to the new revision and the next one to the old.

What changed from one revision to the next is not asked for: that would take both catalogs, and everything in the root
has new numbers anyway. Pure; for tasks of one event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.fuse.wire import InitFlag
from cvmfs_py.fuse.wire_notices import pack_inc_epoch, pack_inval_entry, pack_inval_inode

if TYPE_CHECKING:
    from cvmfs_py.fuse.wire_init import Negotiation

NAMES = 4096  # some 5 us each, when they are taken back
_NO_NAME = b".cvmfs-py"


class RootNames:
    """The names of one root."""

    def __init__(self, agreed: Negotiation, limit: int = NAMES) -> None:
        self._has_epochs = agreed.has_inc_epoch
        self._is_expiring = InitFlag.HAS_EXPIRE_ONLY in agreed.flags
        self._limit = limit
        self._told: set[bytes] = set()

    def may_last(self, name: bytes) -> bool:
        """Whether the kernel, which is told of this name now, may believe it until it is taken back."""
        if self._has_epochs or name in self._told:
            return True
        if len(self._told) >= self._limit:
            return False
        self._told.add(name)
        return True

    def take_back(self, root: int) -> tuple[list[bytes], list[bytes]]:
        """The notices for a new revision: those to be written at once, and then those for which the root is locked."""
        if self._has_epochs:
            # The kernel numbers the names of a listing when it has taken the answer apart: one of the old revision that
            # is under way counts as told in the new epoch. A notice about a name waits until no listing is under way.
            at_once = [pack_inc_epoch(), pack_inval_inode(root)]
            return at_once, [pack_inval_entry(root, _NO_NAME), pack_inc_epoch()]
        notices = [pack_inval_entry(root, name, expire_only=self._is_expiring) for name in self._told]
        self._told.clear()
        return [pack_inval_inode(root)], notices
