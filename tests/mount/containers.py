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
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rights import SEARCH_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP = Path(__file__).parents[2]
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}  # compiled libraries need the Python that they were made for
BUILD_S = 600
RUN_S = 120
_PACKAGES = "python3,ca-certificates"


@cache
def why_no_containers() -> str:
    if sys.version_info[:2] not in SUITES:
        return "needs a Debian that has this Python"
    try:
        done = run_in_container([], "true")
    except OSError as error:
        return f"needs a Debian for containers: {error}"
    return f"needs to run containers: {' '.join(done.stderr.split())}" if done.returncode else ""


@cache
def root_directory() -> Path:
    """The Debian, made when it is not there yet; two who make it at the same time do not disturb each other."""
    suite = SUITES[sys.version_info[:2]]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(home) / "cvmfs-py-tests" / f"debian-{suite}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
        try:
            _make_debian(suite, draft)
            draft.chmod(0o755)
            draft.rename(root)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not (root / "complete").exists():
                raise
    return root


def _make_debian(suite: str, root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)]
    environment = {**os.environ, "PATH": SEARCH_PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode:
        raise OSError(f"debootstrap has failed: {' '.join((done.stdout + done.stderr)[-2000:].split())}")
    (root / "usr/lib/python3/dist-packages/cvmfs-py.pth").write_text("/opt/cvmfs-py\n/opt/site-packages\n")
    (root / "complete").touch()


def container_command(options: Sequence[str], words: Sequence[str]) -> list[str]:
    """A command in a new container; `/program` there is cvmfs-py."""
    shown = {TOP: "/opt/cvmfs-py", Path(sysconfig.get_path("purelib")): "/opt/site-packages"}
    volumes = [word for place, inside in shown.items() for word in ("-v", f"{place}:{inside}:ro")]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    runtime = shutil.which("runc", path=SEARCH_PATH) or "runc"
    # What podman itself thinks of this machine is not what the tests look at.
    podman = ["podman", "--log-level=error", "--runtime", runtime, "run", "--rm", "--network", "host"]
    return [*podman, *limits, *volumes, *options, "--rootfs", f"{root_directory()}:O", *words]


def run_in_container(options: Sequence[str], script: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a new container, in which `cvmfs-py` is this tree's."""
    program = "alias cvmfs-py='python3 -I -m cvmfs_py'\n"
    command = container_command(options, ["sh", "-c", program + script])
    return subprocess.run(
        command, env={**os.environ, "PATH": SEARCH_PATH}, capture_output=True, text=True, timeout=RUN_S, check=False
    )
