"""`cvmfs-py umount` with real mounts: one's own, those of others, and those of other namespaces."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import why_no_mounts
from tests.simulator.command import PROGRAM, Client, in_mount_namespace
from tests.simulator.publisher import OwnRepository, write_tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(why_no_mounts()), reason=why_no_mounts())
FQRN = "umount.test.org"
OTHER = 12345


@pytest.fixture
def client(tmp_path: Path) -> Client:
    (tmp_path / "own").mkdir()
    own = OwnRepository(tmp_path / "own", FQRN)
    write_tree(tmp_path / "tree", {"a": b"a\n"})
    own.publish_directory(tmp_path / "tree")
    served = tmp_path / "www" / "cvmfs"
    served.mkdir(parents=True)
    (served / FQRN).symlink_to(own.storage)
    return Client(tmp_path / "client", FQRN, [(tmp_path / "www").as_uri()], own.place.public_key_file)


def in_namespace(client: Client, place: Path, script: str) -> str:
    """What a shell says that finds one mount and no others, whatever else is mounted on this machine."""
    place.mkdir()
    words = {
        "mount": shlex.join(client.command("mount", FQRN, str(place))),
        "umount": f"told {shlex.join([*PROGRAM, 'umount'])}",
        "inside": f"unshare -m -p -f --kill-child {shlex.join(client.command('mount', '-f', FQRN, str(place)))}",
    }
    functions = f"""
        told() {{ "$@" 2>&1; echo "code $?"; mountpoint -q {place} && echo mounted || echo not mounted; }}
        {words["mount"] if "inside" not in script else ""}
    """
    lines = functions + script.format(place=place, **words)
    done = subprocess.run(
        [*in_mount_namespace("mount -t tmpfs tmpfs /run"), "/bin/sh", "-uc", lines],
        env=client.environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr
    return done.stdout.decode()


def test_what_others_have_mounted_is_ended_only_by_its_place(client: Client, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    said = in_namespace(
        client,
        place,
        f"""
        mkdir -p /run/user/{OTHER} && mv /run/cvmfs-py /run/user/{OTHER}/  # who has written it down has mounted it
        chown -R {OTHER}:{OTHER} /run/user/{OTHER}
        {{umount}} --all
        {{umount}} {FQRN}
        {{umount}} {{place}}
        """,
    )
    left = "cvmfs-py umount: left alone: 1 of other users; name their mountpoints to end them, see cvmfs-py list"
    others = f"cvmfs-py umount: {FQRN} is mounted by others only; name the mountpoint to end that: {place}"
    lines = said.splitlines()[-8:]
    assert lines == [left, "code 0", "mounted", others, "code 3", "mounted", "code 0", "not mounted"]


@pytest.mark.parametrize("words", [FQRN, "--all"])
def test_ones_own_are_ended_by_name_and_all_at_once(client: Client, tmp_path: Path, words: str) -> None:
    said = in_namespace(client, tmp_path / "mnt", f"{{umount}} {words}; ls /run/cvmfs-py")
    assert said.splitlines()[-2:] == ["code 0", "not mounted"]


def test_a_daemon_of_another_pid_namespace_gets_no_signal(client: Client, tmp_path: Path) -> None:
    """Its number means somebody else here."""
    place = tmp_path / "mnt"
    said = in_namespace(
        client,
        place,
        """
        {inside} > /run/ready & while ! [ -s /run/ready ]; do sleep 0.05; done
        {umount} --all
        kill -0 $! && echo alive
        kill -9 $!; wait
        """,
    )
    elsewhere = f"{place} is mounted in another container or namespace, and so is its daemon (pid 1 there)"
    assert said.splitlines() == [
        f"cvmfs-py umount: {elsewhere}; end it from there",
        "code 3",
        "not mounted",
        "alive",
    ]
