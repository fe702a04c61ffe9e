"""Where the configuration repository is: its name, its mount, or a local tree that stands in for the mount.

Fetches nothing: a caller above the network makes the tree. Looks at a mount from a child process only, because a mount
can hang, and because the automounter ignores processes of its own group; at one that this process serves not at all.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PROBE_TIMEOUT_S = 5.0
_SILENT_S = 60.0  # for which nobody waits again for what has not answered
_silent_until_s: dict[Path, float] = {}


@dataclass(frozen=True, slots=True)
class ConfigTree:
    """A directory that holds a copy of the configuration repository, as the mount directory would.

    `root` is the parent of the directory that is named after the repository: `root/<fqrn>/etc/cvmfs/default.conf`. The
    files of the repository find each other below it through $CVMFS_MOUNT_DIR.
    """

    root: Path

    def directory(self, name: str) -> Path:
        return self.root / name / "etc" / "cvmfs"


@dataclass(frozen=True, slots=True)
class ConfigRepository:
    """The configuration repository that applies to some repository."""

    name: str
    directory: Path  # of its files, were it mounted
    is_mounted: bool
    is_builtin: bool  # nobody configured it: this program's own choice on a machine without /etc/cvmfs
    is_needed: bool  # False where built-in knowledge is enough without it
    is_spared: bool = False  # files of the repository's own say all that matters: no server is asked for this one


def is_directory_visible(path: Path, environment: Mapping[str, str]) -> bool | None:
    """Whether the directory exists; None when the answer does not come. What this process serves itself is not seen."""
    if own_mounts.find_own_mount(path) is not None:
        return False
    if time.monotonic() < _silent_until_s.get(path, 0.0):
        return None
    found = ask_for_directory(path, environment)
    if found is None:
        _silent_until_s[path] = time.monotonic() + _SILENT_S
    return found


def ask_for_directory(path: Path, environment: Mapping[str, str]) -> bool | None:
    """The same of any directory, asked by a child in a session of its own."""
    import contextlib
    import signal
    import subprocess

    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'test -d "$0"', str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError:  # a container without a shell has no automounter either
        return _is_directory_in_time(path)
    try:
        return process.wait(_PROBE_TIMEOUT_S) == 0
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)


def _is_directory_in_time(path: Path) -> bool | None:
    found: list[bool] = []
    waiter = threading.Thread(target=lambda: found.append(path.is_dir()), name=f"look at {path}", daemon=True)
    waiter.start()
    waiter.join(_PROBE_TIMEOUT_S)
    return found[0] if found else None
