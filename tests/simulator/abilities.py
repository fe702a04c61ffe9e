"""What this machine lets the tests do: mount, use loop devices, make device files. Tried, not guessed.

A container's root may do less than root, and an ordinary user of another machine more. Each answer is the reason why
not, for a skipped test, or an empty text.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from functools import cache


def unshare_command() -> list[str]:
    """A mount namespace of its own; where we are not root also a user namespace."""
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-U", "-r", "-m"]


@cache
def why_no_mounts() -> str:
    return _try([*unshare_command(), "mount", "-t", "tmpfs", "tmpfs", "/tmp"])


@cache
def why_no_loop_devices() -> str:
    if os.geteuid() != 0:
        return "needs root for loop devices"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices (/dev/loop-control)"
    return why_no_mounts() or _needs("mkfs.ext2")


@cache
def why_no_device_files() -> str:
    with tempfile.TemporaryDirectory() as directory:
        try:
            os.mknod(os.path.join(directory, "device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(directory, 12345, 12345)
        except OSError as error:
            return f"needs root with all its rights: cannot make a device file or give files away ({error.strerror})"
    return ""


def _try(command: list[str]) -> str:
    missing = _needs(command[0])
    if missing:
        return missing
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"needs to mount: {' '.join(done.stderr.split()) or 'refused'}" if done.returncode else ""


def _needs(program: str) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return "" if shutil.which(program, path=path) else f"needs {program}"
