"""What statfs says of a mounted repository: the size and use of its cache, the number of its entries. Pure.

Space is that of the cache, because nothing else can become full; inodes that are free are entries of catalogs that are
not attached, so that their use tells how much of the repository was looked at. Concurrency: one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.vfs.attrs import BLOCK_BYTES
from cvmfs_py.vfs.files import NAME_LIMIT_BYTES

if TYPE_CHECKING:
    from catalog.opened import OpenObject
    from cvmfs_py.vfs.snapshot import Snapshot

_COUNT_LIMIT = (1 << 63) - 1  # counters of a catalog are anything that 64 bits can hold; the kernel takes no sign


@dataclass(frozen=True, slots=True)
class FileSystemStatus:
    """The numbers of statfs. Free ones are available to everybody."""

    blocks: int = 0
    free_blocks: int = 0
    files: int = 0
    free_files: int = 0
    block_bytes: int = BLOCK_BYTES  # also that of fragments
    name_limit_bytes: int = NAME_LIMIT_BYTES  # the reference client leaves it at 0, which no name can keep


def file_system_status(
    snapshot: Snapshot, limit_bytes: int | None, used_bytes: int | None, open_object: OpenObject
) -> FileSystemStatus:
    """The status of a repository whose cache may grow to `limit_bytes` (None: without limit) and holds `used_bytes`.

    `used_bytes` is None where nobody keeps account of the cache; then nothing is counted. May raise NotLocal.
    """
    if used_bytes is None:
        return FileSystemStatus()
    capacity_bytes = used_bytes if limit_bytes is None else limit_bytes
    tree = snapshot.tree
    files = _clamp(tree.catalog_for(b"", open_object).counters().entries)
    return FileSystemStatus(
        blocks=capacity_bytes // BLOCK_BYTES,
        free_blocks=max(0, capacity_bytes - used_bytes) // BLOCK_BYTES,  # what is pinned may exceed the limit
        files=files,
        free_files=_clamp(files - _clamp(tree.attached_entry_count)),
    )


def _clamp(count: int) -> int:
    return min(max(count, 0), _COUNT_LIMIT)
