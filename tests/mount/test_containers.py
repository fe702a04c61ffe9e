"""In containers: with and without rights; mounted inside, outside, or by somebody else; and what is said of a lack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse import syscalls
from tests.compat.zoo_goldens import FQRN, KEY, ZOO, make_document_root
from tests.mount.containers import TOP, container_command, run_in_container
from tests.rights import SEARCH_PATH
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("containers"),
    pytest.mark.needs("nginx"),
]
DEVICE = ("--device", "/dev/fuse")
LAUNCHER = """
import ctypes, os, sys
place, uid, *command = sys.argv[1:]
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id={uid},group_id={uid},allow_other".encode()
if libc.mount(b"/dev/fuse", place.encode(), b"fuse", 6, options) != 0:
    raise OSError(ctypes.get_errno(), "mount")
os.set_inheritable(fd, True)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
os.execvp(command[0], [word.replace("/dev/fd/N", f"/dev/fd/{fd}") for word in command])
"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(make_document_root(tmp_path_factory.mktemp("www") / "www")) as server:
        yield server


@pytest.fixture
def setup(web: Nginx, tmp_path: Path) -> list[str]:
    """Options of a container: what an administrator has put into /etc/cvmfs."""
    etc = tmp_path / "etc-cvmfs"
    etc.mkdir()
    (etc / "default.conf").write_text(
        f"CVMFS_SERVER_URL={web.url}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY=/keys/{KEY.name}\n"
        "CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CONFIG_REPOSITORY=\n"
    )
    return ["-v", f"{etc}:/etc/cvmfs:ro", "-v", f"{ZOO}:/keys:ro", "-e", "HOME=/tmp"]


def test_root_with_the_right_to_mount(setup: list[str]) -> None:
    done = run_in_container(
        [*setup, *DEVICE, "--cap-add", "SYS_ADMIN"],
        f"""set -e
        mkdir -p /cvmfs/{FQRN}
        cvmfs-py mount {FQRN}
        cat /cvmfs/{FQRN}/hello.txt
        cvmfs-py list
        cvmfs-py umount --all
        ls -A /cvmfs/{FQRN}""",
    )
    assert done.returncode == 0, done
    mounted, content, _, listed = done.stdout.splitlines()
    assert mounted == f"{FQRN} is mounted at /cvmfs/{FQRN} (revision 7)"
    assert content == "hello, world"
    assert FQRN in listed
    assert done.stderr == ""


@pytest.mark.parametrize(
    "rights",
    [(), ("--user", "1000"), ("--user", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")],
    ids=["root", "user", "user without any rights"],
)
@pytest.mark.parametrize("more", [(), ("--read-only", "--tmpfs", "/tmp")], ids=["", "read-only"])
def test_no_right_but_the_device(setup: list[str], rights: Sequence[str], more: Sequence[str]) -> None:
    done = run_in_container(
        [*setup, *DEVICE, *rights, *more],
        f"cvmfs-py exec {FQRN} -- sh -c 'cat /cvmfs/{FQRN}/hello.txt; id -u; grep CapEff /proc/self/status; exit 7'",
    )
    assert (done.returncode, done.stderr) == (7, "")
    content, uid, capabilities = done.stdout.splitlines()
    assert (content, uid) == ("hello, world", "1000" if rights else "0")
    if rights:
        assert int(capabilities.split()[1], 16) == 0


def test_every_repository_without_rights(setup: list[str]) -> None:
    done = run_in_container(
        [*setup, *DEVICE, "--user", "1000"],
        f"cvmfs-py exec --all -- sh -c 'cat /cvmfs/{FQRN}/hello.txt; ls /cvmfs'",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hello, world\n{FQRN}\n", "")


@pytest.mark.parametrize(
    ("more", "command", "cure"),
    [
        ((), f"exec {FQRN} -- true", "in a container add --device /dev/fuse"),
        (DEVICE, f"mount {FQRN} /mnt", "cvmfs-py exec"),
        ((*DEVICE, "--cap-drop", "ALL"), f"exec {FQRN} -- true", "--cap-add SETFCAP"),
        ((*DEVICE, "--cap-drop", "ALL"), f"mount {FQRN} /mnt", "start the container with --cap-add SYS_ADMIN\n"),
        ((*DEVICE, "--user", "1000"), f"mount {FQRN} /tmp/mnt", "mounting needs rights that no program can have here"),
        (("--cap-add", "SYS_ADMIN"), f"mount {FQRN} /mnt", "--device /dev/fuse"),
    ],
    ids=["no device", "no right to mount", "weak root", "weak root mounts", "user", "a right, but no device"],
)
def test_what_is_missing_is_named(setup: list[str], more: Sequence[str], command: str, cure: str) -> None:
    done = run_in_container([*setup, *more], f"cvmfs-py {command}")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert cure in done.stderr


def test_the_cures_for_a_root_without_capabilities(setup: list[str]) -> None:
    """None of those that are named fails as well, and seccomp is not to blame."""
    weak = [*setup, *DEVICE, "--cap-drop", "ALL"]
    told = run_in_container(weak, "cvmfs-py doctor")
    assert told.returncode == 3
    assert "seccomp=" not in told.stdout
    assert "security module" not in told.stdout
    for cure in (["--cap-add", "SETFCAP"], ["--cap-add", "SYS_ADMIN"], ["--user", "1000"]):
        assert " ".join(cure) in told.stdout
        done = run_in_container([*weak, *cure], f"cvmfs-py exec {FQRN} -- cat /cvmfs/{FQRN}/hello.txt")
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello, world\n", "")


def test_mounted_outside(web: Nginx, setup: list[str], tmp_path: Path) -> None:
    """Also what is mounted when the container runs already."""
    place = tmp_path / "cvmfs"
    (place / FQRN).mkdir(parents=True)
    (place / "go").mkdir()
    syscalls.mount(str(place), str(place), "", syscalls.MountFlag.BIND)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": SEARCH_PATH}
    configuration = tmp_path / "outside.conf"
    configuration.write_text(
        f"CVMFS_SERVER_URL={web.url}/cvmfs/{FQRN}\nCVMFS_PUBLIC_KEY={KEY}\nCVMFS_HTTP_PROXY=DIRECT\n"
    )
    try:
        syscalls.mount("", str(place), "", syscalls.MountFlag.SHARED)
        script = f"until test -e /cvmfs/{FQRN}/hello.txt; do sleep 0.1; done; cat /cvmfs/{FQRN}/hello.txt"
        volume = [*setup, "-v", f"{place}:/cvmfs:rslave"]
        inside = subprocess.Popen(
            container_command(volume, ["sh", "-c", f"echo up; {script}"]), stdout=subprocess.PIPE, env=environment
        )
        with inside:
            assert inside.stdout is not None
            assert inside.stdout.readline() == b"up\n"
            mount = [sys.executable, "-I", "-m", "cvmfs_py", "mount", "--config", str(configuration), FQRN]
            mount.append(str(place / FQRN))
            done = subprocess.run(mount, cwd=TOP, env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done
            assert inside.communicate(timeout=60)[0] == b"hello, world\n"
    finally:
        for path in (place / FQRN, place):
            syscalls.unmount(str(path), lazily=True)


@pytest.mark.parametrize("form", ["foreground", "daemon"])
@pytest.mark.parametrize("program", ["cvmfs2", "mount"])
def test_a_descriptor_that_was_mounted_by_somebody_else(
    setup: list[str], tmp_path: Path, form: str, program: str
) -> None:
    """As a container runtime does it: it opens and mounts, drops all rights, and gives /dev/fd/N for a mountpoint."""
    words = ["python3", "-I", "-m", "cvmfs_py", program, FQRN, "/dev/fd/N", *(["-f"] if form == "foreground" else [])]
    script = f"""set -e
    mkdir -p /srv/{FQRN}
    python3 -c '{LAUNCHER}' /srv/{FQRN} 1000 {" ".join(words)} {"&" if form == "foreground" else ""}
    until grep -q /srv/{FQRN} /proc/mounts; do sleep 0.05; done
    cat /srv/{FQRN}/hello.txt
    grep /srv /proc/mounts | wc -l
    umount /srv/{FQRN}
    wait
    echo ended"""
    done = run_in_container([*setup, *DEVICE, "--cap-add", "SYS_ADMIN"], script)
    assert done.returncode == 0, done
    said = [line for line in done.stdout.splitlines() if "pre-mounted" not in line]
    assert said == ["hello, world", "1", "ended"], done
    assert done.stderr == ""


def test_a_killed_container_leaves_no_mount(setup: list[str]) -> None:
    name = f"cvmfs-py-test-{os.getpid()}"
    place = f"/srv/{name}"
    command = container_command(
        [*setup, *DEVICE, "--cap-add", "SYS_ADMIN", "--name", name],
        ["sh", "-c", f"mkdir {place} && python3 -I -m cvmfs_py mount {FQRN} {place} && echo up && sleep 1000"],
    )
    environment = {**os.environ, "PATH": SEARCH_PATH}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as container:
        assert container.stdout is not None
        assert b"is mounted at" in container.stdout.readline()
        assert container.stdout.readline() == b"up\n"
        container.send_signal(signal.SIGTERM)
        container.kill()
    end_s = time.monotonic() + 30
    while _daemons(place) and time.monotonic() < end_s:
        subprocess.run(["podman", "kill", name], capture_output=True, env=environment, check=False)
        time.sleep(0.1)
    assert not _daemons(place)


def _daemons(place: str) -> list[str]:
    """Processes that serve a mount there."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[-3:-1] == [FQRN.encode(), place.encode()]:
            found.append(name)
    return found
