"""What this machine lets the tests do, each right tried once: mount, make namespaces and devices, become others.

    @pytest.mark.needs("mounting", "nginx")     # a right, or the name of a program
    require("mount namespaces")                 # the same in the middle of a test

Tried, not guessed: a container's root may do less than root, and an ordinary user of another machine more. Decides
nothing: who needs what is declared where it is needed, and the tests' own settings skip and count.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Servers and makers of file systems live in sbin directories, which are not on every user's PATH.
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
NO_DEVICE = (10, 251)  # nobody answers there; where devices are restricted it is another error
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if IS_ROOT else []


def require(*names: str) -> None:
    """Skips the test where one of these is missing."""
    for name in names:
        if reason := why_not(name):
            pytest.skip(reason)


@cache
def why_not(name: str) -> str:
    """Why a right is missing here, or a program: a reason for a skip; empty when it is there."""
    return RIGHTS[name]() if name in RIGHTS else _why_no_program(name)


def unshare_command() -> list[str]:
    """A mount namespace of its own; where we are not root also a user namespace."""
    return ["unshare", "-m"] if IS_ROOT else ["unshare", "-U", "-r", "-m"]


# --- the rights


def _why_not_root() -> str:
    return "" if IS_ROOT else "needs root"


def _why_no_fuse() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"needs /dev/fuse ({error.strerror})"
    return ""


def _why_no_mount_namespaces() -> str:
    return _try("needs to mount", [*unshare_command(), "mount", "-t", "tmpfs", "tmpfs", "/tmp"])


def _why_no_mounting() -> str:
    return why_not("root") or why_not("fuse") or why_not("mount namespaces")


def _why_no_namespaces_in_namespaces() -> str:
    return _try("needs process namespaces", [*unshare_command(), "-p", "-f", "--mount-proc", "true"])


def _why_no_user_namespaces() -> str:
    return _try("needs user namespaces", [*AS_NOBODY, "unshare", "-U", "-r", "-m", "mount", "-t", "tmpfs", "x", "/tmp"])


def _why_no_other_users() -> str:
    if why_not("root"):
        return why_not("root")
    with tempfile.TemporaryDirectory() as directory:
        try:
            os.chown(directory, NOBODY, NOBODY)
        except OSError as error:
            return f"needs root that may give files away ({error.strerror})"
    return _try("needs root that may become others", [*AS_NOBODY, "true"])


def _why_no_device_files() -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "device")
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*NO_DEVICE))
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                return f"needs root that may make devices ({error.strerror})"
    return why_not("other users")


def _why_no_trusted_attributes() -> str:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "trusted.tried", b"it")
        except OSError as error:
            return f"needs root that may set trusted attributes ({error.strerror})"
    return ""


def _why_no_loop_devices() -> str:
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices (/dev/loop-control)"
    return why_not("root") or why_not("mount namespaces") or why_not("mkfs.ext2") or why_not("device files")


def _why_no_user_mounts() -> str:
    """Tried with fusermount3 itself, by an ordinary user."""
    if reason := why_not("fusermount3") or (IS_ROOT and why_not("other users")) or "":
        return reason
    program = shutil.which("fusermount3", path=SEARCH_PATH) or ""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        if IS_ROOT:
            os.chown(directory, NOBODY, NOBODY)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            environment = os.environ | {"_FUSE_COMMFD": str(theirs.fileno())}
            tried = [*AS_NOBODY, program, "-o", "ro", "--", directory]
            reason = _try("needs mounts of ordinary users", tried, environment, theirs.fileno())
        if not reason:
            subprocess.run([*AS_NOBODY, program, "-u", "-z", "--", directory], check=True)
    return reason


def _why_no_containers() -> str:
    from tests.mount.containers import why_no_containers

    return why_not("mounting") or why_not("podman") or why_not("runc") or why_not("debootstrap") or why_no_containers()


RIGHTS: dict[str, Callable[[], str]] = {
    "root": _why_not_root,
    "fuse": _why_no_fuse,
    "mounting": _why_no_mounting,
    "mount namespaces": _why_no_mount_namespaces,
    "process namespaces": _why_no_namespaces_in_namespaces,
    "user namespaces": _why_no_user_namespaces,
    "other users": _why_no_other_users,
    "device files": _why_no_device_files,
    "trusted attributes": _why_no_trusted_attributes,
    "loop devices": _why_no_loop_devices,
    "user mounts": _why_no_user_mounts,
    "containers": _why_no_containers,
}


def _try(
    what: str, command: Sequence[str], environment: dict[str, str] | None = None, descriptor: int | None = None
) -> str:
    if reason := _why_no_program(command[0]):
        return reason
    done = subprocess.run(
        command,
        env=environment,
        pass_fds=[] if descriptor is None else [descriptor],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{what}: {' '.join(done.stderr.split()) or 'refused'}" if done.returncode else ""


def _why_no_program(name: str) -> str:
    return "" if shutil.which(name, path=SEARCH_PATH) else f"needs {name}"
