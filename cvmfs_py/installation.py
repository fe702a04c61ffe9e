"""What to say of an installation of this program that lacks a part. Imports nothing that could be missing itself."""

import sys

OLDEST = (3, 11)


def fault_of_python() -> "str | None":
    """Why this Python cannot run the program; None: it can. To be understood by older ones, too."""
    if sys.version_info[:2] >= OLDEST:
        return None
    needed, found = (".".join(map(str, version)) for version in (OLDEST, sys.version_info[:2]))
    return f"{sys.executable} is Python {found}, and {needed} or newer is needed; install cvmfs-py for such a one"


def fault_of_import(error: BaseException) -> str:
    """A module that is missing, cannot be read, or is of another version than the rest."""
    reason = " ".join(str(error).split())
    return (
        f"the installation for {sys.executable} is not complete ({reason});"
        f" install it again, with its dependencies: {sys.executable} -m pip install --force-reinstall SOURCE-DIRECTORY"
    )
