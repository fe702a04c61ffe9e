"""Where the cache of this program is, and whether somebody else could have filled it.

Decides only; creates nothing. The reference client's directories are never used themselves: what is configured for it
gets a sub-directory, so that the two clients never write into each other's files.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.config.parameters import Parameter

NAME = "cvmfs-py"
_SYSTEM_DIRECTORY = Path("/var/lib/cvmfs-py")
_REFERENCE_DIRECTORY = Path("/var/lib/cvmfs")


@dataclass(frozen=True, slots=True)
class CachePlace:
    """The directory, and what the user should know about the choice."""

    directory: Path
    warnings: tuple[str, ...] = ()


def choose_cache_place(
    parameters: Mapping[str, Parameter], environment: Mapping[str, str], user_id: int, system: Path = _SYSTEM_DIRECTORY
) -> CachePlace:
    """CVMFS_PY_CACHE_DIR exactly; else cvmfs-py below CVMFS_CACHE_DIR or CVMFS_CACHE_BASE; else the user's own."""
    exact = _value(parameters, "CVMFS_PY_CACHE_DIR")
    if exact is not None:
        return CachePlace(exact)
    own = default_cache_directory(environment, user_id, system)
    place = _choose(parameters, own)
    check_temporary_place(place.directory, environment, user_id)
    return place


def _choose(parameters: Mapping[str, Parameter], own: Path) -> CachePlace:
    given, base = _value(parameters, "CVMFS_CACHE_DIR"), _value(parameters, "CVMFS_CACHE_BASE")
    name, directory = ("CVMFS_CACHE_DIR", given) if given is not None else ("CVMFS_CACHE_BASE", base)
    if directory is None:
        return CachePlace(own)
    if not directory.is_relative_to(own):
        directory = directory / NAME
    if can_be_used(directory):
        return CachePlace(directory)
    # every installation says /var/lib/cvmfs, and only its own account may write there: no news for anybody else
    if directory.parent == _REFERENCE_DIRECTORY:
        return CachePlace(own)
    return CachePlace(own, (f"cannot write to {directory} ({name}); the cache is in {own}",))


def default_cache_directory(environment: Mapping[str, str], user_id: int, system: Path = _SYSTEM_DIRECTORY) -> Path:
    """The system's for root, the user's otherwise; one for temporary files where a user has no home."""
    if user_id == 0 and can_be_used(system):
        return system
    cache_home = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache_home):
        return _normal(cache_home, NAME)
    home = environment.get("HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~")
    directory = _normal(home, ".cache", NAME)
    if os.path.isabs(home) and can_be_used(directory):
        return directory
    return _temporary_directory(environment, user_id)


def check_temporary_place(directory: Path, environment: Mapping[str, str], user_id: int) -> None:
    """Refuses the cache among temporary files when somebody else can write to it.

    Everybody knows its name and may have made it before, with objects of their own. To be asked before it is read, and
    again when it has been made. A directory that somebody chose is that person's business.
    """
    if directory != _temporary_directory(environment, user_id):
        return
    fault = find_stranger(directory, user_id)
    if fault is not None:
        raise ConfigError(
            f"the cache directory {directory}, used because there is no home directory to write to, {fault}; choose"
            " another one with --cache-dir"
        )


def find_stranger(directory: Path, user_id: int) -> str | None:
    """Who besides this user and root can put something into a directory, in words; None: nobody, or it is not there."""
    own = own_mounts.find_own_mount(directory)
    if own is not None:
        return f"leads into {own}, which this very process serves"
    try:
        found = os.lstat(directory)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return "is a link or a file"
    if found.st_uid not in (user_id, 0):
        return f"belongs to the user with the number {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by others"
    return None


def _temporary_directory(environment: Mapping[str, str], user_id: int) -> Path:
    parent = environment.get("TMPDIR", "")
    return _normal(parent if os.path.isabs(parent) else "/tmp", f"{NAME}-{user_id}")


def _normal(*parts: str) -> Path:
    """As parameters are read, so that the two can be compared."""
    return Path(os.path.normpath(os.path.join(*parts)))


def can_be_used(directory: Path) -> bool:
    """Whether the directory is there and writable, or could be made. Looks, does not try."""
    if own_mounts.find_own_mount(directory) is not None:
        return False
    for place in (directory, *directory.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _value(parameters: Mapping[str, Parameter], name: str) -> Path | None:
    parameter = parameters.get(name)
    return Path(os.path.abspath(parameter.value)) if parameter is not None and parameter.value else None
