"""Exit codes as the programs of the reference client have them, for those who call us by their names. Pure.

| what happened                                          | cvmfs-py | cvmfs2 | mount.cvmfs |
|--------------------------------------------------------|----------|--------|-------------|
| done                                                   | 0        | 0      | 0           |
| wrong usage or configuration (`UsageError`, ...)       | 2        | 2      | 1           |
| the mount point does not exist or is not accessible    | 3        | 3      | 1           |
| a mount of another repository is there                 | 3        | 20     | 1           |
| no such tag, or none as early as the date              | 2        | 22     | 32          |
| the mount failed (`MountError`)                        | 3        | 4      | 32          |
| the cache cannot be used (`CacheError`)                | 5        | 9      | 32          |
| something is not to be trusted (`TrustError`)          | 4        | 15     | 32          |
| ... because its revision is blacklisted                | 4        | 25     | 32          |
| no root catalog (`FetchError`, `CatalogError`, ...)    | 5        | 16     | 32          |
| anything else                                          | 5        | 1      | 32          |

Scripts rely on 0, 1 and 32 of the helper, where 1 is its own refusal and 32 a mount that was tried.
"""

from __future__ import annotations

import enum

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.errors import (
    ConfigError,
    FetchError,
    IntegrityError,
    MountError,
    NoSnapshotError,
    Refusal,
    TrustError,
    UsageError,
)


class Cvmfs2Code(enum.IntEnum):
    """The failures of `cvmfs2` that can happen to this program, too."""

    OK = 0
    UNKNOWN = 1
    OPTIONS = 2
    PERMISSION = 3
    MOUNT = 4
    CACHE = 9
    SIGNATURE = 15
    CATALOG = 16
    OTHER_REPOSITORY = 20
    DOUBLE_MOUNT = 21
    HISTORY = 22
    REVISION_BLACKLISTED = 25

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Cvmfs2Code.OK: "OK",
    Cvmfs2Code.UNKNOWN: "unknown error",
    Cvmfs2Code.OPTIONS: "illegal options",
    Cvmfs2Code.PERMISSION: "permission denied",
    Cvmfs2Code.MOUNT: "failed to mount",
    Cvmfs2Code.CACHE: "cache directory/plugin problem",
    Cvmfs2Code.SIGNATURE: "signature verification failure",
    Cvmfs2Code.CATALOG: "file catalog failure",
    Cvmfs2Code.OTHER_REPOSITORY: "already mounted",
    Cvmfs2Code.DOUBLE_MOUNT: "double mount",
    Cvmfs2Code.HISTORY: "history init failure",
    Cvmfs2Code.REVISION_BLACKLISTED: "revision blacklisted",
}

HELPER_REFUSED = 1
HELPER_FAILED = 32


def cvmfs2_code(error: BaseException) -> Cvmfs2Code:
    """By the class of an error; what a class cannot say (mount point, tag) its raiser knows and chooses itself."""
    if isinstance(error, TrustError):
        is_blacklisted = error.reason is Refusal.REVISION_BLACKLISTED
        return Cvmfs2Code.REVISION_BLACKLISTED if is_blacklisted else Cvmfs2Code.SIGNATURE
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return Cvmfs2Code.UNKNOWN


_CODES: tuple[tuple[tuple[type[Exception], ...], Cvmfs2Code], ...] = (
    ((NoSnapshotError,), Cvmfs2Code.HISTORY),
    ((UsageError, ConfigError), Cvmfs2Code.OPTIONS),
    ((MountError,), Cvmfs2Code.MOUNT),
    ((CacheError,), Cvmfs2Code.CACHE),
    ((FetchError, IntegrityError, CatalogError), Cvmfs2Code.CATALOG),
)


def helper_code(code: Cvmfs2Code) -> int:
    """What mount.cvmfs makes of it: its own refusals are 1, those of a mount that was tried are 32."""
    if code is Cvmfs2Code.OK:
        return 0
    return HELPER_REFUSED if code in _REFUSALS else HELPER_FAILED


_REFUSALS = frozenset({Cvmfs2Code.OPTIONS, Cvmfs2Code.PERMISSION, Cvmfs2Code.OTHER_REPOSITORY, Cvmfs2Code.DOUBLE_MOUNT})


def format_failure(message: str, code: Cvmfs2Code) -> str:
    """`<detail> (<code> - <text>)`, which people search logs for."""
    return f"{message} ({int(code)} - {code.text})"
