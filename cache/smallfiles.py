"""Small named files, replaced all or nothing: state of other layers, and named pins on disk.

No fsync: these files may be lost or empty after a power cut (never after a crash of the process), and an empty one
reads as absent. Waiting for a sick disk would be worse than forgetting the last breadcrumb.

Concurrency: any process; the last writer wins.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cache.errors import CacheError
from cache.layout import write_error
from cache.lockfile import create_locked, remove_file

if TYPE_CHECKING:
    from cache.layout import Layout

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+=,-]{0,199}\Z")


def is_name(name: str) -> bool:
    """Whether a name is a plain file name everywhere."""
    return _NAME.match(name) is not None


def require_name(name: str) -> str:
    if not is_name(name):
        raise CacheError(f"{name!r} cannot be used as a name in the cache: use letters, digits and . _ @ : + = , -")
    return name


def read_small(directory: str, name: str) -> bytes | None:
    """The content of a small file; None where there is none."""
    try:
        with open(os.path.join(directory, require_name(name)), "rb") as file:
            return file.read() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CacheError(f"cannot read {os.path.join(directory, name)}: {error.strerror}") from error


def write_small(layout: Layout, directory: str, name: str, data: bytes) -> None:
    """Replace a small file. Raises CacheReadOnlyError, CacheError."""
    path = os.path.join(directory, require_name(name))
    try:
        _replace(layout, path, data)
    except FileNotFoundError:  # the directory was deleted under us
        layout.create()
        try:
            _replace(layout, path, data)
        except OSError as error:
            raise write_error(layout.directory, error) from error
    except OSError as error:
        raise write_error(layout.directory, error) from error


def remove_small(layout: Layout, directory: str, name: str) -> bool:
    try:
        return remove_file(os.path.join(directory, require_name(name)))
    except OSError as error:
        raise write_error(layout.directory, error) from error


def _replace(layout: Layout, path: str, data: bytes) -> None:
    fd, temporary = create_locked(layout.txn, "small")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.rename(temporary, path)
    except OSError:
        remove_file(temporary)
        raise
    finally:
        os.close(fd)
