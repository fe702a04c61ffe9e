"""What this machine, container and user are allowed, as facts: for judging whether and how a mount can work here.

Looks and tries, changes nothing, judges nothing. Reads /proc and /dev; forks (`trial`), so it is to be called before an
event loop or a thread is started.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass

from cvmfs_py.mount.trial import DEVICE, TrialResult, try_mount

_CAP_SYS_ADMIN = 21
_CAP_SETFCAP = 31
_PROGRAMS = ("fusermount3", "fusermount")
_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_FUSE_CONFIGURATION = "/etc/fuse.conf"
_FUSE_NUMBER = os.makedev(10, 229)
_CONTAINER_FILES = {"/run/.containerenv": "podman", "/.dockerenv": "docker", "/.singularity.d": "apptainer"}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device node."""

    open_errno: int  # 0: it can be opened
    is_there: bool = True
    is_right: bool = True  # a character device of the right number
    mode: str = ""  # as ls shows it
    is_in_kernel: bool = True  # the kernel knows the file system now, without loading a module


@dataclass(frozen=True, slots=True)
class HelperFacts:
    """fusermount3, which mounts for ordinary users."""

    path: str
    is_setuid: bool
    is_on_nosuid: bool  # on a file system where that counts for nothing


@dataclass(frozen=True, slots=True)
class MachineFacts:
    user_id: int
    device: DeviceFacts
    has_mount_right: bool  # CAP_SYS_ADMIN, of whichever user namespace
    can_gain_mount_right: bool  # a setuid program could have it
    direct: TrialResult | None  # None: not tried without the right
    in_user_namespace: TrialResult
    helper: HelperFacts | None
    users_may_allow_other: bool
    no_new_privileges: bool
    has_seccomp_filter: bool
    max_user_namespaces: int | None = None  # None: the kernel has no such setting
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: int | None = None
    container: str = ""
    may_map_root: bool = True  # CAP_SETFCAP: without it root is not taken into a user namespace


def gather_facts() -> MachineFacts:
    status = _status_fields()
    has_mount_right = _holds(_CAP_SYS_ADMIN, status.get("CapEff", "0"))
    return MachineFacts(
        user_id=os.geteuid(),
        device=look_at_device(),
        has_mount_right=has_mount_right,
        can_gain_mount_right=status.get("NoNewPrivs") != "1" and _holds(_CAP_SYS_ADMIN, status.get("CapBnd", "0")),
        direct=try_mount(in_user_namespace=False) if has_mount_right else None,
        in_user_namespace=try_mount(in_user_namespace=True),
        helper=find_helper(),
        users_may_allow_other=_users_may_allow_other(),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        has_seccomp_filter=status.get("Seccomp") == "2",
        max_user_namespaces=_setting("user/max_user_namespaces"),
        unprivileged_userns_clone=_setting("kernel/unprivileged_userns_clone"),
        apparmor_restricts_userns=_setting("kernel/apparmor_restrict_unprivileged_userns"),
        container=_container(),
        may_map_root=_holds(_CAP_SETFCAP, status.get("CapEff", "0")),
    )


def look_at_device(path: bytes = DEVICE) -> DeviceFacts:
    is_in_kernel = b"\tfuse\n" in _read("/proc/filesystems")
    try:
        info = os.stat(path)
    except OSError as error:
        return DeviceFacts(error.errno or errno.ENOENT, is_there=False, is_right=False, is_in_kernel=is_in_kernel)
    mode = stat.filemode(info.st_mode)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != _FUSE_NUMBER:
        return DeviceFacts(errno.ENODEV, is_right=False, mode=mode, is_in_kernel=is_in_kernel)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return DeviceFacts(error.errno or errno.EIO, mode=mode, is_in_kernel=is_in_kernel)
    return DeviceFacts(0, mode=mode, is_in_kernel=is_in_kernel)


def find_helper() -> HelperFacts | None:
    """The first fusermount; a user's PATH may lack the system's directories."""
    search_path = f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"
    for name in _PROGRAMS:
        path = shutil.which(name, path=search_path)
        if path is not None:
            with suppress(OSError):
                info = os.stat(path)
                is_setuid = bool(info.st_mode & stat.S_ISUID) and info.st_uid == 0
                return HelperFacts(path, is_setuid, bool(os.statvfs(path).f_flag & os.ST_NOSUID))
    return None


def _users_may_allow_other() -> bool:
    return any(line.strip() == b"user_allow_other" for line in _read(_FUSE_CONFIGURATION).splitlines())


def _container() -> str:
    """What kind of container this looks like; empty for an ordinary machine."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    for path, name in _CONTAINER_FILES.items():
        if os.path.exists(path):
            return name
    return os.environ.get("container", "")  # noqa: SIM112  # as systemd and the runtimes spell it


def _status_fields() -> dict[str, str]:
    lines = _read("/proc/self/status").decode("latin-1").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _holds(capability: int, capabilities: str) -> bool:
    return bool(int(capabilities, 16) >> capability & 1)


def _setting(name: str) -> int | None:
    text = _read(f"/proc/sys/{name}").strip()
    return int(text) if text.isdigit() else None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 20)
    except OSError:
        return b""
