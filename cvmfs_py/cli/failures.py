"""Turns an error into what the user sees: one line on standard error and an exit code. Tracebacks go to the log."""

from __future__ import annotations

import errno
import logging
import os
import sys

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py import logs
from cvmfs_py.cli.output import one_line
from cvmfs_py.errors import CvmfsError

_log = logging.getLogger(__name__)
EXIT_FAILURE = 5


def unwrap(error: BaseException) -> BaseException:
    """The first error inside the groups that concurrent tasks wrap around theirs; an interrupt goes before all."""
    if isinstance(error, BaseExceptionGroup):
        inner = [unwrap(each) for each in error.exceptions]
        return min(inner, key=lambda each: not isinstance(each, KeyboardInterrupt))
    return error


def describe(error: BaseException) -> str:
    """What happened, in one line."""
    if isinstance(error, CvmfsError | CacheError | CatalogError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno is not None:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        text = f"{where}{error.strerror or errno.errorcode.get(error.errno, 'system error')}"
    else:
        text = f"internal error, please report it: {type(error).__name__}: {error} (details in {logs.log_path()})"
    return one_line(text)


def report(command: str, error: BaseException) -> int:
    """Prints the error; gives the exit code."""
    error = unwrap(error)
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):
        return 0
    print(f"cvmfs-py {command}: {describe(error)}", file=sys.stderr)
    _log.debug("%s failed", command, exc_info=error)
    if not isinstance(error, CvmfsError | CacheError | CatalogError | OSError):
        logs.write_traceback(error)
    return error.exit_code if isinstance(error, CvmfsError) else EXIT_FAILURE
