"""Where the cache of this program is, and whether somebody else could have filled it.

Decides only; creates nothing. The reference client's directories are never used themselves: what is configured for it
gets a sub-directory, so that the two clients never write into each other's files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError
from cvmfs_py.places import NAME, TEMPORARY, can_be_used, find_home, find_stranger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.config.parameters import Parameter

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
    cache_home = environment.get("XDG_CACHE_HOME", "")
    if place.directory == own != system and os.path.isabs(cache_home) and not own.is_relative_to(_normal(cache_home)):
        warning = f"cannot write to {_normal(cache_home, NAME)} (XDG_CACHE_HOME); the cache is in {own}"
        place = CachePlace(own, (*place.warnings, warning))
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
    directory = _find_default(environment, user_id)
    # Who has one directory for everything would find notes, logs and settings among the objects, and the other way.
    others = (environment.get(name, "") for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"))
    if any(os.path.isabs(other) and _normal(other, NAME) == directory for other in others):
        return directory / "cache"
    return directory


def _find_default(environment: Mapping[str, str], user_id: int) -> Path:
    cache_home = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache_home) and can_be_used(_normal(cache_home, NAME)):
        return _normal(cache_home, NAME)
    home = find_home(environment, user_id)
    if home is not None and can_be_used(home / ".cache" / NAME):
        return home / ".cache" / NAME
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


def _temporary_directory(environment: Mapping[str, str], user_id: int) -> Path:
    """Not the one for notes about mounts: a cache is in a directory of its own."""
    parent = environment.get("TMPDIR", "")
    if not os.path.isabs(parent) or not can_be_used(Path(parent)):
        parent = str(TEMPORARY)
    return _normal(parent, f"{NAME}-cache-{user_id}")


def _normal(*parts: str) -> Path:
    """As parameters are read, so that the two can be compared."""
    return Path(os.path.normpath(os.path.join(*parts)))


def _value(parameters: Mapping[str, Parameter], name: str) -> Path | None:
    parameter = parameters.get(name)
    return Path(os.path.abspath(parameter.value)) if parameter is not None and parameter.value else None
