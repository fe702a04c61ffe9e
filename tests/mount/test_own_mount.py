"""A daemon never asks its own mount: whatever is configured ends with an answer or an error in time."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.mount.private_machine import GOOD, PrivateMachine, private_machine
from tests.simulator.command import PROGRAM
from tests.simulator.fault_server import refused_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting", "nginx")
CONFIG = "config.test.org"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PrivateMachine]:
    with private_machine(tmp_path) as machine:
        yield machine


def test_the_configuration_repository_without_any_configuration(world: PrivateMachine) -> None:
    """The first thing that people try: the daemon looks for the configuration repository below its own mount."""
    lines = world.run(
        f"client mount --all $MNT >/dev/null; see {GOOD}; see cvmfs-config.cern.ch; client umount $MNT; client list",
        **world.good,
        CVMFS_PY_CACHE_DIR=str(world.directory / "cache"),
    )
    assert lines[-2] == f"{GOOD} 0 name", lines
    assert lines[-1].startswith("cvmfs-config.cern.ch 2 "), lines


def test_the_configuration_repository_of_the_machine(world: PrivateMachine) -> None:
    """Files of /etc/cvmfs lean on the mount of the configuration repository, which nobody can read."""
    shared = f"$CVMFS_MOUNT_DIR/{CONFIG}/etc/cvmfs/common.conf"
    refused = f"CVMFS_SERVER_URL=http://127.0.0.1:{refused_port()}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY={world.key}\n"
    good = "".join(f"{name}={value}\n" for name, value in world.good.items())
    world.configure(
        {
            "default.conf": f"CVMFS_CONFIG_REPOSITORY={CONFIG}\nCVMFS_PY_CACHE_DIR={world.directory}/cache\n",
            f"config.d/{CONFIG}.conf": refused,
            f"config.d/{GOOD}.conf": f"{good}CVMFS_BLACKLIST=\n",
            "config.d/leaning.test.org.conf": f"if [ -r {shared} ]; then . {shared}; fi\n{good}",
        }
    )
    lines = world.run(
        f"client mount --all $MNT >/dev/null; see {GOOD}; see leaning.test.org; see {GOOD}; client umount $MNT"
    )
    assert lines[0] == f"{GOOD} 0 name", lines
    assert lines[1].startswith("leaning.test.org 2 "), lines
    assert lines[2:] == [f"{GOOD} 0 name"], lines


BELOW = {
    "cache": "CVMFS_PY_CACHE_DIR=$MNT/x/cache",
    "base": "CVMFS_PY_CACHE_DIR=\nCVMFS_CACHE_BASE=$MNT/x/base",
    "lower": "CVMFS_PY_LOWER_CACHES=$MNT/x/lower",
    "alien": "CVMFS_ALIEN_CACHE=$MNT/x/alien",
    "key": "CVMFS_PUBLIC_KEY=$MNT/x/key.pub",
    "keys": "CVMFS_PUBLIC_KEY=\nCVMFS_KEYS_DIR=$MNT/x/keys",
    "blacklist": "CVMFS_BLACKLIST=$MNT/x/blacklist",
    "users": "CVMFS_UID_MAP=$MNT/x/users",
    "groups": "CVMFS_GID_MAP=$MNT/x/groups",
    "bundle": "X509_CERT_BUNDLE=$MNT/x/bundle",
    "authorities": "X509_CERT_DIR=$MNT/x/authorities",
    "aliases": "HOST_ALIASES=$MNT/x/hosts",
    "server": "CVMFS_SERVER_URL=file://$MNT/x/@fqrn@",
    "pac": "CVMFS_HTTP_PROXY=auto\nCVMFS_PAC_URLS=file://$MNT/x/pac",
    "linked": "CVMFS_PUBLIC_KEY=$PWD/link/key.pub",
    "bound": "CVMFS_PUBLIC_KEY=$PWD/bound/good.test.org/key.pub",
    "dots": "CVMFS_PUBLIC_KEY=$PWD/tree/../cvmfs/./x/key.pub",
}
LATER = {name: f"{name}.test.org" for name in BELOW}


def test_what_leads_into_the_mount_is_refused_when_it_is_met(world: PrivateMachine) -> None:
    """Each repository has one setting that leads into the mount that shows it; the others do not suffer."""
    good = "".join(f"{name}={value}\n" for name, value in world.good.items())
    values = {"$MNT": str(world.top), "$PWD": str(world.directory)}
    for name, text in BELOW.items():
        for variable, value in values.items():
            text = text.replace(variable, value)
        world.configure({f"config.d/{LATER[name]}.conf": f"{good}{text}\n"})
    cache = f"CVMFS_PY_CACHE_DIR={world.directory}/cache\n"
    world.configure({"default.conf": f"CVMFS_CONFIG_REPOSITORY=\n{cache}", f"config.d/{GOOD}.conf": good})
    (world.directory / "link").symlink_to(world.top / "x")
    (world.directory / "bound").mkdir()
    lines = world.run(
        f"""
        client mount --all $MNT >/dev/null; mount --bind $MNT bound
        for each in {" ".join(LATER.values())}; do see $each; done
        see {GOOD}; log; umount bound; client umount $MNT; client list"""
    )
    seen = {line.split()[0]: line.split()[1] for line in lines[: len(BELOW) + 1]}
    assert seen == {**dict.fromkeys(LATER.values(), "2"), GOOD: "0"}, lines
    log = "\n".join(lines)
    for name in set(LATER) - {"base"}:  # another place is chosen for that one, and there is no such repository
        place = f"{world.directory}/bound" if name == "bound" else str(world.top)
        assert f"lies below the mountpoint {place}" in log, name


HIDDEN = {  # said before anything is mounted, or without any effect on what can be seen
    "XDG_RUNTIME_DIR": "0",
    "XDG_STATE_HOME": "0",
    "HOME": "0",
    "TMPDIR": "3",
    "XDG_CONFIG_HOME": "3",
    "CVMFS_PY_CACHE_DIR": "3",
    "CVMFS_KEYS_DIR": "3",
}


def test_the_environment_leads_into_the_mount(world: PrivateMachine) -> None:
    """What the mount would hide, and is needed, is named before it is there. All else goes on without it."""
    good = world.good | {"CVMFS_CONFIG_REPOSITORY": "", "CVMFS_CACHE_BASE": str(world.directory / "cache")}
    (world.top / "x" / "cvmfs-py").mkdir(parents=True)
    lines = world.run(
        f"""
        try() {{
            code=0; env "$@" {shlex.join(PROGRAM)} mount --all $MNT >said 2>&1 || code=$?
            echo "${{1%%=*}} $code $(wc -l <said) $(head -n1 said)"
            if [ $code = 0 ]; then see {GOOD}; env "$@" {shlex.join(PROGRAM)} umount $MNT; fi
        }}
        for each in {" ".join(HIDDEN)}; do
            if [ $each = CVMFS_KEYS_DIR ]; then try $each=$MNT/x CVMFS_PUBLIC_KEY=; else try $each=$MNT/x; fi
        done""",
        **good,
    )
    found = [line.split(" ", 3) for line in lines]
    assert {words[0]: words[1] for words in found} == HIDDEN | {GOOD: "0"}, lines
    assert sum(words[0] == GOOD for words in found) == list(HIDDEN.values()).count("0")
    for name, code, count, text in (words for words in found if words[0] != GOOD):
        assert count == "1", (name, text)
        assert code == "0" or f"lies below the mountpoint {world.top}" in text, (name, text)


def test_a_mount_inside_and_one_outside(world: PrivateMachine) -> None:
    """Daemons of their own, one below the mount of the other: each answers, and is ended."""
    good = world.good | {"CVMFS_CONFIG_REPOSITORY": "", "CVMFS_PY_CACHE_DIR": str(world.directory / "cache")}
    lines = world.run(
        f"""
        client mount --all $MNT >/dev/null; see {GOOD}
        client mount {GOOD} $MNT/{GOOD} >/dev/null 2>&1; see {GOOD}
        client list | wc -l; client umount $MNT/{GOOD}; client umount $MNT; client list""",
        **good,
    )
    assert lines == [f"{GOOD} 0 name", f"{GOOD} 0 name", "3"]
