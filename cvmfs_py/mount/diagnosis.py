"""Why a mount does not work here, or that it does: one check after the other, each with what was found and a cure.

Here: the checks of the machine, judged from facts. Pure. The checks of a repository are in `repository_diagnosis`,
those of cache and limits in `room_diagnosis`.
"""

from __future__ import annotations

import enum
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.mount.trial import Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cvmfs_py.mount.machine import MachineFacts


class Outcome(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_NEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    found: str
    cure: str = ""  # one line, where there is something to do


class Way(enum.Enum):
    """How a mount can come to be."""

    DIRECT = "by the rights of this process"
    HELPER = "by fusermount3"
    NAMESPACE = "in a user namespace"


def find_ways(facts: MachineFacts) -> tuple[Way, ...]:
    """The ways that work here, best first."""
    ways = []
    if facts.direct is not None and facts.direct.failed_at is None:
        ways.append(Way.DIRECT)
    helper = facts.helper
    may_help = helper is not None and helper.is_setuid and not helper.is_on_nosuid and facts.can_gain_mount_right
    if may_help and not facts.device.open_errno and Way.DIRECT not in ways and facts.user_id != 0:
        ways.append(Way.HELPER)
    if facts.in_user_namespace.failed_at is None:
        ways.append(Way.NAMESPACE)
    return tuple(ways)


def can_mount(checks: Iterable[Check]) -> bool:
    """Whether nothing that is needed has failed."""
    return all(check.outcome is not Outcome.FAILED for check in checks)


def check_machine(facts: MachineFacts) -> list[Check]:
    ways = find_ways(facts)
    return [
        _check_device(facts),
        _check_direct(facts, ways),
        _check_helper(facts, ways),
        _check_other_users(facts, ways),
        _check_user_namespace(facts, ways),
        _check_restrictions(facts, ways),
        _check_ways(ways),
    ]


def _check_device(facts: MachineFacts) -> Check:
    name, device = "device", facts.device
    if not device.open_errno:
        return Check(name, Outcome.OK, f"/dev/fuse can be opened ({device.mode})")
    if not device.is_there:
        found = "there is no /dev/fuse"
        if device.open_errno != errno.ENOENT:
            found = f"/dev/fuse cannot be looked at: {os.strerror(device.open_errno)}"
        module = "mknod -m 666 /dev/fuse c 10 229" if device.is_in_kernel else "modprobe fuse"
        cure = (
            _device_option(facts) if facts.container else f"as root: {module}; in a container: {_device_option(facts)}"
        )
        return Check(name, Outcome.FAILED, found, cure)
    if not device.is_right:
        found = f"/dev/fuse is not the device 10:229 ({device.mode})"
        return Check(name, Outcome.FAILED, found, "as root: rm /dev/fuse; mknod -m 666 /dev/fuse c 10 229")
    found = f"/dev/fuse cannot be opened: {os.strerror(device.open_errno)} ({device.mode})"
    cures = {
        errno.EACCES: "as root: chmod 666 /dev/fuse",
        errno.EPERM: f"the device cgroup forbids it: {_device_option(facts)}",
        errno.ENODEV: "as root: modprobe fuse",
        errno.ENXIO: "as root: modprobe fuse",
    }
    return Check(name, Outcome.FAILED, found, cures.get(device.open_errno, "ask the administrator of this machine"))


def _device_option(facts: MachineFacts) -> str:
    if facts.container == "kubernetes":
        return "give the pod the device /dev/fuse (a device plugin, or a privileged container)"
    return "start the container with --device /dev/fuse"


def _check_direct(facts: MachineFacts, ways: tuple[Way, ...]) -> Check:
    name = "mount rights"
    if Way.DIRECT in ways:
        return Check(name, Outcome.OK, "this process may mount (CAP_SYS_ADMIN, tried)")
    found, cure = "an ordinary user, without CAP_SYS_ADMIN", ""
    if facts.direct is not None:
        found = f"CAP_SYS_ADMIN is there, but refused when {facts.direct.reason}"
        cure = "a security module forbids it; in a container: --security-opt apparmor=unconfined (or label=disable)"
    elif facts.user_id == 0:
        found, cure = "root without CAP_SYS_ADMIN", "start the container with --cap-add SYS_ADMIN"
    # Without the device nobody can tell yet whether a user namespace is enough.
    if ways or not cure or facts.device.open_errno:
        return Check(name, Outcome.NOT_NEEDED, found)
    return Check(name, Outcome.FAILED, found, cure)


def _check_helper(facts: MachineFacts, ways: tuple[Way, ...]) -> Check:
    name, helper = "fusermount3", facts.helper
    if helper is None and not facts.can_gain_mount_right:
        return Check(name, Outcome.NOT_NEEDED, "there is no fusermount3, and it would get no rights here")
    if helper is None:
        found, cure = "there is no fusermount3", "install the package fuse3"
    elif not helper.is_setuid:
        found, cure = f"{helper.path} is not setuid root", f"as root: chmod u+s {helper.path}"
    elif helper.is_on_nosuid:
        found, cure = f"{helper.path} is on a file system without setuid", "mount it without nosuid, as root"
    elif facts.no_new_privileges:
        found, cure = f"{helper.path} gets no rights here (no_new_privs)", "start without no-new-privileges"
    elif not facts.can_gain_mount_right:
        found = f"{helper.path} cannot get CAP_SYS_ADMIN here"
        cure = "start the container with --cap-add SYS_ADMIN"
    else:
        found, cure = f"{helper.path} is setuid root", ""
    if not cure and (Way.HELPER in ways or Way.DIRECT in ways):
        return Check(name, Outcome.OK, found)
    if facts.user_id == 0 or Way.DIRECT in ways:
        return Check(name, Outcome.NOT_NEEDED, f"{found}; it is for ordinary users")
    if not cure:
        return Check(name, Outcome.FAILED, f"{found}, but /dev/fuse cannot be opened", "see device")
    return Check(name, Outcome.WARNING if ways else Outcome.FAILED, found, cure)


def _check_other_users(facts: MachineFacts, ways: tuple[Way, ...]) -> Check:
    name = "other users"
    if Way.DIRECT in ways:
        return Check(name, Outcome.OK, "a mount can be opened to other users (allow_other)")
    if facts.users_may_allow_other:
        return Check(name, Outcome.OK, "/etc/fuse.conf has user_allow_other")
    found = "only the user who mounts sees the files: /etc/fuse.conf has no user_allow_other"
    return Check(name, Outcome.NOT_NEEDED, found)


def _check_user_namespace(facts: MachineFacts, ways: tuple[Way, ...]) -> Check:
    name, trial = "user namespace", facts.in_user_namespace
    if trial.failed_at is None:
        return Check(name, Outcome.OK, "a mount in a user namespace of its own works (tried)")
    found = f"refused when {trial.reason}"
    if trial.failed_at is Step.OPEN:
        return Check(name, Outcome.NOT_NEEDED, "one can be made, but is of no use without the device")
    if Way.DIRECT in ways:
        return Check(name, Outcome.NOT_NEEDED, found)
    if Way.HELPER in ways:
        return Check(name, Outcome.WARNING, f"{found}; exec and shell need it", _cure_namespace(facts))
    return Check(name, Outcome.FAILED, found, _cure_namespace(facts))


def _cure_namespace(facts: MachineFacts) -> str:
    trial = facts.in_user_namespace
    if facts.max_user_namespaces == 0 or trial.error_number in (errno.ENOSPC, errno.EUSERS):
        return "as root: sysctl user.max_user_namespaces=15000"
    if facts.unprivileged_userns_clone == 0:
        return "as root: sysctl kernel.unprivileged_userns_clone=1"
    if trial.failed_at is Step.USER_MAP and facts.user_id == 0 and not facts.may_map_root:
        return (
            "give root of the container the capability for it, --cap-add SETFCAP, or be an ordinary user: --user 1000"
        )
    if facts.apparmor_restricts_userns and trial.failed_at is not Step.USER_NAMESPACE:
        return "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns"
    if facts.has_seccomp_filter and trial.failed_at in _FILTERED:
        return "a seccomp filter forbids it: start the container with --security-opt seccomp=unconfined"
    if trial.failed_at is Step.MOUNT and trial.error_number == errno.EPERM:
        return "Linux 4.18 or newer is needed; in a container: --security-opt apparmor=unconfined"
    if trial.error_number == errno.EACCES or facts.container:
        return "a security module forbids it; in a container: --security-opt seccomp=unconfined,apparmor=unconfined"
    return "the kernel may lack user namespaces, or this is a changed root directory (chroot)"


_FILTERED = (Step.USER_NAMESPACE, Step.MOUNT_NAMESPACE, Step.ANSWER)  # what seccomp filters refuse


def _check_restrictions(facts: MachineFacts, ways: tuple[Way, ...]) -> Check:
    restrictions = []
    if facts.no_new_privileges:
        restrictions.append("no_new_privs is set, so that fusermount3 has no effect")
    if facts.has_seccomp_filter:
        restrictions.append("a seccomp filter is active")
    if not restrictions:
        return Check("restrictions", Outcome.OK, "no seccomp filter, no no_new_privs")
    found = "; ".join(restrictions)
    if ways:
        return Check("restrictions", Outcome.OK, f"{found}; a mount works all the same")
    cures = []
    if facts.has_seccomp_filter and facts.in_user_namespace.failed_at in _FILTERED:
        cures.append("--security-opt seccomp=unconfined")
    if facts.no_new_privileges and facts.helper is not None and facts.user_id != 0:
        cures.append("without no-new-privileges")
    if facts.device.open_errno or not cures:
        return Check("restrictions", Outcome.OK, f"{found}; that may do no harm")
    return Check("restrictions", Outcome.WARNING, found, f"in a container: {', and '.join(cures)}")


def _check_ways(ways: tuple[Way, ...]) -> Check:
    if ways:
        return Check("ways to mount", Outcome.OK, "; ".join(way.value for way in ways))
    cure = "cure one of the above; looking and copying (ls, cat, cp) work without a mount"
    return Check("ways to mount", Outcome.FAILED, "none works here", cure)
