"""The demonstration on machines that cannot mount: some can use namespaces, and some can do neither."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.simulator.command import PROGRAM, ROOT, as_nobody, in_mount_namespace

HELPER = "$(command -v fusermount3 || echo /dev/zero)"
WITHOUT_DEVICE = "mount --bind /dev/null /dev/fuse"
WITHOUT_HELPER = f"chmod 666 /dev/fuse; mount --bind /dev/null {HELPER}"


def demonstrate(home: Path, wrapper: list[str]) -> tuple[int, str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*wrapper, *PROGRAM, "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.needs("other users", "user namespaces", "fuse")
def test_without_the_right_to_mount_it_uses_namespaces() -> None:
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-public-", dir="/tmp") as place:
        home = Path(place) / "home"
        home.mkdir()
        home.chmod(0o777)
        Path(place).chmod(0o755)
        wrapper = [*in_mount_namespace(WITHOUT_HELPER), *as_nobody(Path(place) / "state")]
        code, text = demonstrate(home, wrapper)
        assert list(home.iterdir()) == []
    assert "cvmfs-py mount: " in text
    assert "side by side below /cvmfs" in text
    assert "That was the whole way" in text
    assert code == 0


@pytest.mark.needs("mount namespaces", "fuse")
def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    code, text = demonstrate(tmp_path, in_mount_namespace(WITHOUT_DEVICE))
    assert "Nothing can be mounted on this machine, as said above: this is left out." in text
    assert "everything is right" in text  # the rest was shown
    assert "That was all but mounting it, and running programs from it" in text
    assert code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("mounting")
def test_nothing_of_it_stays(tmp_path: Path) -> None:
    log, home = tmp_path / "log", tmp_path / "home"
    log.mkdir()
    home.mkdir()
    code, text = demonstrate(home, in_mount_namespace(f"mount --bind {log} /var/log"))
    assert (code, "Mount both releases side by side" in text) == (0, True)
    assert list(home.iterdir()) == []
    assert [*log.rglob("*.log*")] == []
