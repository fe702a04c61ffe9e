"""What is concluded from the facts of a machine: every refusal that is known, with the cure that helps against it."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from cvmfs_py.mount.diagnosis import Check, Outcome, Way, can_mount, check_machine, find_ways
from cvmfs_py.mount.machine import DeviceFacts, HelperFacts, MachineFacts
from cvmfs_py.mount.repository_diagnosis import duration_text, judge_clock
from cvmfs_py.mount.room_diagnosis import judge_descriptors
from cvmfs_py.mount.trial import Step, TrialResult
from cvmfs_py.network.server_time import ServerTime, parse_date

WORKS = TrialResult()
HELPER = HelperFacts("/usr/bin/fusermount3", True, False)
USER = MachineFacts(
    user_id=1000,
    device=DeviceFacts(0, mode="crw-rw-rw-"),
    has_mount_right=False,
    can_gain_mount_right=True,
    direct=None,
    in_user_namespace=WORKS,
    helper=HELPER,
    users_may_allow_other=False,
    no_new_privileges=False,
    has_seccomp_filter=False,
    max_user_namespaces=1000,
)
ROOT = replace(USER, user_id=0, has_mount_right=True, direct=WORKS)


def refused(step: Step, number: int) -> TrialResult:
    return TrialResult(step, number)


NO_NAMESPACE = refused(Step.USER_NAMESPACE, errno.EPERM)
ALONE = replace(USER, helper=None, in_user_namespace=NO_NAMESPACE)
CONTAINER = replace(ALONE, user_id=0, container="docker", has_seccomp_filter=True)


def checks_of(facts: MachineFacts) -> dict[str, Check]:
    return {check.name: check for check in check_machine(facts)}


@pytest.mark.parametrize(
    ("facts", "ways"),
    [
        (ROOT, (Way.DIRECT, Way.NAMESPACE)),
        (replace(ROOT, in_user_namespace=NO_NAMESPACE, helper=None), (Way.DIRECT,)),
        (USER, (Way.HELPER, Way.NAMESPACE)),
        (replace(USER, helper=None), (Way.NAMESPACE,)),
        (replace(USER, helper=replace(HELPER, is_setuid=False)), (Way.NAMESPACE,)),
        (replace(USER, helper=replace(HELPER, is_on_nosuid=True)), (Way.NAMESPACE,)),
        (replace(USER, no_new_privileges=True, can_gain_mount_right=False), (Way.NAMESPACE,)),
        (replace(USER, can_gain_mount_right=False), (Way.NAMESPACE,)),
        (replace(USER, in_user_namespace=NO_NAMESPACE), (Way.HELPER,)),
        (replace(CONTAINER, in_user_namespace=WORKS), (Way.NAMESPACE,)),
        (replace(CONTAINER, helper=HELPER), ()),
        (ALONE, ()),
    ],
)
def test_ways(facts: MachineFacts, ways: tuple[Way, ...]) -> None:
    assert find_ways(facts) == ways
    assert can_mount(check_machine(facts)) == bool(ways)


def test_all_is_well() -> None:
    for facts in (ROOT, USER):
        outcomes = {check.outcome for check in check_machine(facts)}
        assert outcomes <= {Outcome.OK, Outcome.NOT_NEEDED}
        assert not any(check.cure for check in check_machine(facts))


@pytest.mark.parametrize(
    ("device", "container", "found", "cure"),
    [
        (DeviceFacts(errno.ENOENT, False, False), "", "no /dev/fuse", "mknod -m 666 /dev/fuse c 10 229"),
        (DeviceFacts(errno.ENOENT, False, False, "", False), "", "no /dev/fuse", "modprobe fuse"),
        (DeviceFacts(errno.ENOENT, False, False), "docker", "no /dev/fuse", "--device /dev/fuse"),
        (DeviceFacts(errno.ENOENT, False, False), "kubernetes", "no /dev/fuse", "device plugin"),
        (DeviceFacts(errno.ENODEV, True, False, "-rw-r--r--"), "", "not the device 10:229", "mknod"),
        (DeviceFacts(errno.EACCES, True, True, "crw-------"), "", "Permission denied (crw-------)", "chmod 666"),
        (DeviceFacts(errno.EPERM, True, True, "crw-rw-rw-"), "podman", "Operation not permitted", "--device /dev/fuse"),
        (DeviceFacts(errno.ENODEV, True, True, "crw-rw-rw-"), "", "No such device", "modprobe fuse"),
    ],
)
def test_the_device(device: DeviceFacts, container: str, found: str, cure: str) -> None:
    no_device = refused(Step.OPEN, device.open_errno)
    for facts in (ROOT, USER):
        direct = None if facts.direct is None else no_device
        facts = replace(facts, device=device, container=container, direct=direct, in_user_namespace=no_device)
        check = checks_of(facts)["device"]
        assert check.outcome is Outcome.FAILED
        assert found in check.found
        assert cure in check.cure
        assert not can_mount(check_machine(facts))
        failed = [check.name for check in check_machine(facts) if check.outcome is Outcome.FAILED]
        assert failed[0] == "device"
        assert set(failed) <= {"device", "fusermount3", "ways to mount"}


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        (
            {"max_user_namespaces": 0, "in_user_namespace": refused(Step.USER_NAMESPACE, errno.ENOSPC)},
            "max_user_namespaces",
        ),
        ({"unprivileged_userns_clone": 0}, "kernel.unprivileged_userns_clone=1"),
        (
            {"apparmor_restricts_userns": 1, "in_user_namespace": refused(Step.PROPAGATION, errno.EACCES)},
            "apparmor_restrict_unprivileged_userns=0",
        ),
        ({"has_seccomp_filter": True}, "seccomp=unconfined"),
        ({"in_user_namespace": refused(Step.MOUNT, errno.EPERM)}, "Linux 4.18"),
        ({"in_user_namespace": refused(Step.MOUNT, errno.EACCES)}, "apparmor=unconfined"),
        ({}, "chroot"),
    ],
)
def test_cures_for_user_namespaces(changes: dict[str, Any], cure: str) -> None:
    facts = replace(ALONE, **changes)
    check = checks_of(facts)["user namespace"]
    assert check.outcome is Outcome.FAILED
    assert cure in check.cure
    with_helper = checks_of(replace(facts, helper=HELPER))["user namespace"]
    assert with_helper.outcome is Outcome.WARNING
    assert cure in with_helper.cure
    as_root = checks_of(replace(facts, user_id=0, direct=WORKS, has_mount_right=True))["user namespace"]
    assert as_root.outcome is Outcome.NOT_NEEDED


@pytest.mark.parametrize(
    ("facts", "cure"),
    [
        (CONTAINER, "--cap-add SYS_ADMIN"),
        (replace(CONTAINER, has_mount_right=True, direct=refused(Step.MOUNT, errno.EACCES)), "apparmor=unconfined"),
    ],
)
def test_root_without_all_rights(facts: MachineFacts, cure: str) -> None:
    check = checks_of(facts)["mount rights"]
    assert check.outcome is Outcome.FAILED
    assert cure in check.cure
    assert checks_of(replace(facts, in_user_namespace=WORKS))["mount rights"].outcome is Outcome.NOT_NEEDED


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"helper": None}, "install the package fuse3"),
        ({"helper": replace(HELPER, is_setuid=False)}, "chmod u+s /usr/bin/fusermount3"),
        ({"helper": replace(HELPER, is_on_nosuid=True)}, "without nosuid"),
        ({"no_new_privileges": True, "can_gain_mount_right": False}, "without no-new-privileges"),
        ({"can_gain_mount_right": False}, "--cap-add SYS_ADMIN"),
    ],
)
def test_a_helper_that_does_not_help(changes: dict[str, Any], cure: str) -> None:
    check = checks_of(replace(USER, **changes))["fusermount3"]
    assert (check.outcome, cure in check.cure) == (Outcome.WARNING, True)
    check = checks_of(replace(USER, in_user_namespace=NO_NAMESPACE, **changes))["fusermount3"]
    assert (check.outcome, cure in check.cure) == (Outcome.FAILED, True)
    check = checks_of(replace(ROOT, **changes))["fusermount3"]
    assert check.outcome is Outcome.NOT_NEEDED


def test_restrictions_are_told() -> None:
    check = checks_of(replace(CONTAINER, no_new_privileges=True))["restrictions"]
    assert check.outcome is Outcome.WARNING
    assert "no_new_privs" in check.found
    assert "seccomp" in check.found
    assert checks_of(replace(USER, has_seccomp_filter=True))["restrictions"].outcome is Outcome.OK


def test_other_users() -> None:
    assert "user_allow_other" in checks_of(USER)["other users"].found
    assert checks_of(replace(USER, users_may_allow_other=True))["other users"].outcome is Outcome.OK


@pytest.mark.parametrize(
    ("ahead_s", "is_expired", "outcome", "found"),
    [
        (0.2, False, Outcome.OK, "agrees with h to 1 s"),
        (-59, True, Outcome.OK, "agrees with h to 59 s"),
        (90, False, Outcome.WARNING, "90 seconds ahead of the one of h"),
        (-7200, False, Outcome.WARNING, "2 hours behind the one of h"),
        (86400 * 400, True, Outcome.FAILED, "400 days ahead of the one of h"),
    ],
)
def test_the_clock(ahead_s: float, is_expired: bool, outcome: Outcome, found: str) -> None:
    check = judge_clock(ServerTime("h", ahead_s), is_expired=is_expired)
    assert (check.outcome, check.found) == (outcome, found)
    assert bool(check.cure) == (outcome is not Outcome.OK)


def test_a_server_without_a_clock() -> None:
    assert judge_clock(None, is_expired=True).outcome is Outcome.NOT_NEEDED
    assert duration_text(150) == "2 minutes"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"date": "Thu, 01 Jan 1970 00:01:00 GMT"}, 60),
        ({"date": "Thu, 01 Jan 1970 00:01:00 GMT", "age": "30"}, 90),
        ({"date": "Thu, 01 Jan 1970 00:01:00 GMT", "age": "x"}, 60),
        ({"date": "Thursday, 01-Jan-70 00:01:00 GMT"}, 60),
        ({}, None),
        ({"date": "yesterday"}, None),
        ({"date": "Thu, 99 Jan 1970 00:01:00 GMT"}, None),
        ({"date": "Thu, 01 Jan 99999 00:01:00 GMT"}, None),
    ],
)
def test_dates_of_servers(headers: dict[str, str], expected: float | None) -> None:
    assert parse_date(headers) == expected


def test_few_descriptors() -> None:
    assert judge_descriptors(1024, 4096).outcome is Outcome.OK
    assert judge_descriptors(-1, -1) == Check("open files", Outcome.OK, "unlimited open files, at most unlimited")
    check = judge_descriptors(256, 4096)
    assert check.outcome is Outcome.WARNING
    assert "ulimit -n 1024" in check.cure
