"""Which errno a program gets for which error: the one place that decides it. Pure; logs nothing.

An error of a class without a row gets that of its nearest base; a test walks all classes and tells of any that does so
without being meant to. `NotLocal` is no error and has no row: an engine that sees one has to wait.
"""

from __future__ import annotations

from errno import EIO, ENOSPC, EROFS
from typing import TYPE_CHECKING

from cache.errors import (
    CacheBusyError,
    CacheError,
    CacheFullError,
    CacheReadOnlyError,
    CacheVanishedError,
    ObjectCorruptError,
)
from catalog.errors import CatalogError
from cvmfs_py.errors import (
    ConfigError,
    CvmfsError,
    FetchError,
    FsError,
    IntegrityError,
    MountError,
    NoProgressError,
    NoSnapshotError,
    ObjectGoneError,
    PublishError,
    TrustError,
    UsageError,
)
from cvmfs_py.fuse.wire import LARGEST_ERRNO

if TYPE_CHECKING:
    from collections.abc import Mapping

# EIO says that it is not the program's fault and that trying again later may help; every cause of it is in the log.
ERRNOS: Mapping[type[Exception], int] = {
    CvmfsError: EIO,
    UsageError: EIO,
    ConfigError: EIO,
    NoSnapshotError: EIO,
    MountError: EIO,
    TrustError: EIO,
    FetchError: EIO,
    ObjectGoneError: EIO,
    IntegrityError: EIO,
    FsError: EIO,  # only when its own number is none
    PublishError: EIO,
    NoProgressError: EIO,
    CacheError: EIO,
    CacheFullError: ENOSPC,
    CacheVanishedError: EIO,
    CacheBusyError: EIO,
    CacheReadOnlyError: EROFS,
    ObjectCorruptError: EIO,
    CatalogError: EIO,
    OSError: EIO,  # only when its own number is none; EMFILE is told as it is
}


def errno_of(error: Exception) -> int:
    """The number for a reply. What has no row at all is a bug of this program, and EIO."""
    if isinstance(error, FsError | OSError) and error.errno is not None and 0 < error.errno <= LARGEST_ERRNO:
        return error.errno
    return next((ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS), EIO)
