"""Real containers for tests: podman with runc over a Debian of their own, which shows our tree and its libraries.

The Debian is made once by debootstrap and kept in the user's cache; containers never change it. What a machine lacks is
told as the reason for a skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mount.mounting import why_no_mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP = Path(__file__).parents[2]
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}  # compiled libraries need the Python that they were made for
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
BUILD_S = 600
RUN_S = 120
_PACKAGES = "python3,ca-certificates"


@cache
def why_no_containers() -> str:
    if why_no_mounts():
        return why_no_mounts()
    if sys.version_info[:2] not in SUITES:
        return "needs a Debian that has this Python"
    missing = [name for name in ("podman", "runc", "debootstrap") if shutil.which(name, path=PATH) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@cache
def root_directory() -> Path:
    """The Debian, made when it is not there yet."""
    suite = SUITES[sys.version_info[:2]]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(home) / "cvmfs-py-tests" / f"debian-{suite}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)]
        done = subprocess.run(
            command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, timeout=BUILD_S, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        (root / "usr/lib/python3/dist-packages/cvmfs-py.pth").write_text("/opt/cvmfs-py\n/opt/site-packages\n")
        (root / "complete").touch()
    return root


def container_command(options: Sequence[str], words: Sequence[str]) -> list[str]:
    """A command in a new container; `/program` there is cvmfs-py."""
    shown = {TOP: "/opt/cvmfs-py", Path(sysconfig.get_path("purelib")): "/opt/site-packages"}
    volumes = [word for place, inside in shown.items() for word in ("-v", f"{place}:{inside}:ro")]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    runtime = shutil.which("runc", path=PATH) or "runc"
    command = ["podman", "--runtime", runtime, "run", "--rm", "--network", "host", *limits, *volumes, *options]
    return [*command, "--rootfs", f"{root_directory()}:O", *words]


def run_in_container(options: Sequence[str], script: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a new container, in which `cvmfs-py` is this tree's."""
    program = "alias cvmfs-py='python3 -I -m cvmfs_py'\n"
    command = container_command(options, ["sh", "-c", program + script])
    return subprocess.run(
        command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, timeout=RUN_S, check=False
    )
