"""What an error of an operation becomes: an errno for the program, a line in the log, a count. For both engines.

The table of errnos is in `errnos`; this is the one place where it is used. Concurrency: the event loop's thread.
"""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.errors import CvmfsError, FsError, NoProgressError, in_full
from cvmfs_py.fuse.errnos import errno_of

if TYPE_CHECKING:
    from cvmfs_py.stats import Stats

_log = logging.getLogger(__name__)
QUIET_S = 60.0  # until the same trouble is worth another line
_REMEMBERED = 1000
_ORDINARY = frozenset(
    {
        errno.EINVAL,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENODATA,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ERANGE,
        errno.EROFS,
        errno.ESTALE,
    }
)

_KNOWN = (CvmfsError, CacheError, CatalogError, OSError)  # anything else is a bug of this program


class Failures:
    """Judges the errors of one mount."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats
        self._told: dict[str, float] = {}

    def _is_known(self, text: str) -> bool:
        """Whether this was said a moment ago: a program that tries again and again must not fill the log."""
        now = time.monotonic()
        if now - self._told.get(text, -QUIET_S) < QUIET_S:
            return True
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[text] = now
        return False

    def errno_of(self, operation: str, error: Exception) -> int:
        """The number to answer with; everything but ordinary answers is logged with its reason."""
        number = errno_of(error)
        if isinstance(error, FsError) and number in _ORDINARY:
            return number
        if number == errno.EIO:
            self.stats.io_errors += 1
            self.stats.last_io_error_s = int(time.time())
        if self._is_known(f"{operation} {error}"):
            return number
        name = errno.errorcode.get(number, str(number))
        if isinstance(error, NoProgressError) or not isinstance(error, _KNOWN):
            _log.error("%s at %s: %s", name, operation, error, exc_info=error)
        else:
            _log.error("%s at %s: %s", name, operation, in_full(error))
        return number
