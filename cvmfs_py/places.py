"""Where a user's own files may be: in a home directory that is the user's, else among temporary files.

Set-up scripts, `su`, cron and containers leave HOME unset, at `/`, or at somebody else's. What is put among temporary
files has a name that everybody knows, a directory for each purpose: `find_stranger` tells whether one can be trusted.
Looks only; creates nothing.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "cvmfs-py"
TEMPORARY = Path("/tmp")  # the same for every process of a user, whatever TMPDIR says


def find_home(environment: Mapping[str, str], user_id: int) -> Path | None:
    """HOME, or what the list of users says, if it belongs to this user and can be written to."""
    home = _usable_home(environment.get("HOME", ""), user_id)
    return home if home is not None else _usable_home(_listed_home(user_id), user_id)


def state_directory(environment: Mapping[str, str], user_id: int) -> Path:
    """For logs: below XDG_STATE_HOME, else the user's home, else among temporary files, beside the notes of mounts."""
    state = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(state) and can_be_used(Path(state, NAME)):
        return Path(state, NAME)
    home = find_home(environment, user_id)
    if home is not None and can_be_used(home / ".local" / "state" / NAME):
        return home / ".local" / "state" / NAME
    return temporary_directory(user_id)


def temporary_directory(user_id: int) -> Path:
    """For what lives as long as the machine runs: notes of mounts, and logs where there is no home."""
    return TEMPORARY / f"{NAME}-{user_id}"


def can_be_used(directory: Path) -> bool:
    """Whether the directory is there and writable, or could be made. Looks, does not try."""
    if own_mounts.find_own_mount(directory) is not None:
        return False
    for place in (directory, *directory.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


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


def _usable_home(home: str, user_id: int) -> Path | None:
    place = Path(os.path.normpath(home))
    if not place.is_absolute() or place.parent == place:
        return None
    return place if can_be_used(place) and _owner_of(place) == user_id else None


def _listed_home(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_dir
    except KeyError:
        return ""


def _owner_of(directory: Path) -> int | None:
    """Of the directory, or of the one in which it would be made."""
    for place in (directory, *directory.parents):
        try:
            return place.stat().st_uid
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
