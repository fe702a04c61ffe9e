"""Every error has its errno, and nobody gets one by accident."""

from __future__ import annotations

import errno
import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

import cache
import catalog
import cvmfs_py
from cache.errors import CacheError, CacheFullError, CacheReadOnlyError, ObjectCorruptError
from cache.index import IndexBusyError, IndexDamagedError
from cache.ref import NotLocal
from catalog.errors import CatalogError
from cvmfs_py.config.local_paths import HiddenPathError
from cvmfs_py.errors import (
    Attempt,
    ConfigError,
    CvmfsError,
    FetchError,
    FsError,
    IntegrityError,
    MountError,
    ObjectGoneError,
    PublishError,
    Refusal,
    TrustError,
)
from cvmfs_py.fuse.errnos import ERRNOS, errno_of
from cvmfs_py.mount.confinement import ReportedError
from cvmfs_py.mount.daemonize import DaemonError
from cvmfs_py.publish.source_errors import UnreadableSourceError
from tests.house.sources import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES: tuple[type[Exception], ...] = (CvmfsError, CacheError, CatalogError)

# Classes that are meant to have no row of their own, and the one whose row they have.
INHERITED: dict[type[Exception], type[Exception]] = {
    IndexBusyError: CacheError,
    IndexDamagedError: CacheError,
    DaemonError: MountError,
    HiddenPathError: ConfigError,
    ReportedError: CvmfsError,
    UnreadableSourceError: PublishError,
}


def import_everything() -> None:
    """Subclasses are known once their modules are imported."""
    for package in (cache, catalog, cvmfs_py):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != "cvmfs_py.__main__":
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:
                    if error.name != "pyfuse3":  # which not every machine has
                        raise


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_the_table_is_complete() -> None:
    import_everything()
    kinds = {kind for tree in TREES for kind in subclasses(tree) if kind.__module__.partition(".")[0] in PACKAGES}
    assert len(kinds) > 20
    missing = {kind for kind in kinds if kind not in ERRNOS and kind not in INHERITED}
    assert not missing, f"decide which errno these are, or from which class they have it: {missing}"
    assert kinds | {OSError} == set(ERRNOS) | set(INHERITED)
    assert not set(ERRNOS) & set(INHERITED)


def test_what_is_inherited_is_so_from_the_class_that_was_meant() -> None:
    for kind, origin in INHERITED.items():
        assert next(base for base in kind.__mro__ if base in ERRNOS) is origin


def test_every_row_is_a_number_that_the_kernel_takes() -> None:
    assert all(0 < number <= 511 and number in errno.errorcode for number in ERRNOS.values())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FsError(errno.ENOENT, "no such file"), errno.ENOENT),
        (FsError(errno.ENOTDIR, "not a directory"), errno.ENOTDIR),
        (FsError(0, "a mistake"), errno.EIO),
        (FsError(-2, "a mistake"), errno.EIO),
        (FsError(512, "a mistake"), errno.EIO),
        (FetchError("no server", (Attempt("host", "DIRECT", "timed out"),)), errno.EIO),
        (ObjectGoneError("gone"), errno.EIO),
        (TrustError(Refusal.SIGNATURE, "the manifest has an invalid signature"), errno.EIO),
        (IntegrityError("other bytes"), errno.EIO),
        (CatalogError("damaged"), errno.EIO),
        (ObjectCorruptError("damaged"), errno.EIO),
        (CacheFullError("the disk is full"), errno.ENOSPC),
        (CacheReadOnlyError("the cache is read-only"), errno.EROFS),
        (IndexBusyError("somebody else"), errno.EIO),
        (OSError(errno.EMFILE, "too many open files"), errno.EMFILE),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), errno.ETIMEDOUT),
        (OSError("without a number"), errno.EIO),
        (RuntimeError("a bug"), errno.EIO),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else errno.errorcode[value],
)
def test_the_number_of_an_error(error: Exception, expected: int) -> None:
    assert errno_of(error) == expected


def test_not_local_is_no_error() -> None:
    assert NotLocal not in ERRNOS
    assert not issubclass(NotLocal, TREES)
