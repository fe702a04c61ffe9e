"""Patterns of paths in a repository, as a shell has them: `*`, `?` and `[...]` within a name.

A name that begins with a dot is meant only where the pattern does, too. What exists by the very name of the pattern is
meant itself.

Concurrency: operations of the repository, one after the other.
"""

from __future__ import annotations

import errno
import fnmatch
import re
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import FsError

if TYPE_CHECKING:
    from cvmfs_py.mount.repository import Repository

_WILD = re.compile(rb"[*?\[]")
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


async def expand(repository: Repository, pattern: bytes) -> list[bytes]:
    """The paths that a pattern means, by name. Raises FsError when there is none."""
    if _WILD.search(pattern) is None or await _exists(repository, pattern):
        return [pattern]
    found = [b""]
    for component in pattern.split(b"/")[1:]:
        if _WILD.search(component) is None:
            found = [path + b"/" + component for path in found]
        else:
            found = [inside for path in found for inside in await _matching(repository, path, component)]
    found = [path for path in found if await _exists(repository, path)]
    if not found:
        raise FsError(errno.ENOENT, f"nothing in {repository.fqrn} matches {show_path(pattern)}")
    return found


async def _matching(repository: Repository, path: bytes, pattern: bytes) -> list[bytes]:
    """The entries of a directory, if it is one, whose names match."""
    # As text, so that ? is a character; what is no UTF-8 counts by the byte.
    matches = re.compile(fnmatch.translate(_text(pattern).replace("[^", "[!"))).match
    try:
        located = await repository.resolve(path)
    except FsError as error:
        if error.errno in _ABSENT:
            return []
        raise
    if not located.entry.is_directory:
        return []
    with_dots = pattern.startswith(b".")
    names = [entry.entry.name async for entry in repository.listing(located.path)]
    return [path + b"/" + name for name in names if (with_dots or not name.startswith(b".")) and matches(_text(name))]


async def _exists(repository: Repository, path: bytes) -> bool:
    try:
        await repository.resolve(path, follow_last=False)
    except FsError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
