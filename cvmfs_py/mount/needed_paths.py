"""What a daemon needs while it serves, and the refusal of a mountpoint that would hide it.

To be asked when the mountpoint is noted as one's own and nothing is mounted yet: then it can be said to who mounts.
Looks at no file below the mountpoint but for its being there. Synchronous.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.config.load import ETC_DIR
from cvmfs_py.config.local_paths import HiddenPathError, check_path, kept_paths, paths_read_once
from cvmfs_py.config.sources import default_user_dir
from cvmfs_py.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.mount.assemble import Wanted

_SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/proc", "/usr")
_TEMPORARY = ("TMPDIR", "SQLITE_TMPDIR")


def check_nothing_hidden(wanted: Wanted, settings: Settings) -> None:
    """MountError for the first thing that a mount in which this process is noted as the server would hide from it."""
    try:
        for name, path in _needed_paths(wanted, settings):
            check_path(name, path)
    except HiddenPathError as error:
        raise MountError(str(error)) from error


def _needed_paths(wanted: Wanted, settings: Settings) -> Iterator[tuple[str, Path]]:
    yield from kept_paths(settings)
    yield "this program in", Path(__file__)
    for path in dict.fromkeys((sys.prefix, sys.base_prefix)):
        yield "the Python of this program in", Path(path)
    for path in _SYSTEM:
        yield "the directory of the system", Path(path)
    for name in _TEMPORARY:
        if os.environ.get(name):
            yield f"the directory for temporary files ({name})", Path(os.environ[name])
    if not wanted.name:  # of every repository the settings are loaded when it is asked for
        yield from _read_later(wanted, settings)


def _read_later(wanted: Wanted, settings: Settings) -> Iterator[tuple[str, Path]]:
    yield from paths_read_once(settings)
    if wanted.config_files is not None:
        for path in wanted.config_files:
            yield "the configuration file", path
        return
    for path in (ETC_DIR, default_user_dir(os.environ)):
        if path.is_dir():
            yield "the configuration in", path
