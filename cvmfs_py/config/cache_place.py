"""Where the cache of this program is.

Decides only; creates nothing. The reference client's directories are never used themselves: what is configured for it
gets a sub-directory, so that the two clients never write into each other's files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
        return Path(cache_home, NAME)
    home = environment.get("HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~")
    directory = Path(home, ".cache", NAME)
    if os.path.isabs(home) and can_be_used(directory):
        return directory
    return Path(environment.get("TMPDIR") or "/tmp", f"{NAME}-{user_id}")


def can_be_used(directory: Path) -> bool:
    """Whether the directory is there and writable, or could be made. Looks, does not try."""
    for place in (directory, *directory.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _value(parameters: Mapping[str, Parameter], name: str) -> Path | None:
    parameter = parameters.get(name)
    return Path(os.path.abspath(parameter.value)) if parameter is not None and parameter.value else None
