"""`cvmfs-py umount`: ends mounts."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.errors import CvmfsError, MountError, UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.registry import ListedMount

END_LIMIT_S = 10.0


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Unmount what cvmfs-py has mounted, and wait for the end of its daemon. Programs that still use it keep what"
        " they have open.",
        "cvmfs-py umount /cvmfs/sft.cern.ch",
        more=("cvmfs-py umount --all",),
    )
    parser.add_argument("mounts", metavar="MOUNT", nargs="*", help="a mountpoint, or the FQRN of what is mounted")
    parser.add_argument("--all", action="store_true", help="all mounts of this user")
    parser.add_argument("-l", "--lazy", action="store_true", help="do not even try to do it at once")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.registry import list_mounts

    if bool(options.mounts) == options.all:
        raise UsageError("name what is to be unmounted, or say --all")
    listed = list_mounts(os.environ, os.geteuid())
    chosen = listed.mounts if options.all else _choose(options.mounts, listed.mounts)
    code = 0
    for mount in chosen:
        try:
            _end(mount, lazily=options.lazy)
        except CvmfsError as error:
            print(f"cvmfs-py umount: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def _choose(names: list[str], mounts: tuple[ListedMount, ...]) -> list[ListedMount]:
    from cvmfs_py.fuse.mountinfo import real_path

    chosen: dict[bytes, ListedMount] = {}
    for name in names:
        place = os.fsencode(real_path(name))
        found = [each for each in mounts if place == each.record.mountpoint or each.record.fqrn == name]
        if not found:
            raise MountError(f"{name} is not mounted by cvmfs-py; see cvmfs-py list")
        chosen.update((each.record.mountpoint, each) for each in found)
    return list(chosen.values())


def _end(mount: ListedMount, *, lazily: bool) -> None:
    """Unmounts, and waits for the daemon: what comes next may need its cache, or the network gone."""
    import signal
    import time

    from cvmfs_py.fuse import mountpoint
    from cvmfs_py.mount.registry import MountState

    record = mount.record
    if mount.state is MountState.ELSEWHERE:
        os.kill(record.process.pid, signal.SIGTERM)
    else:
        mountpoint.unmount(os.fsdecode(record.mountpoint), lazily=lazily)
    deadline = time.monotonic() + END_LIMIT_S
    while record.process.is_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    if record.process.is_running() and not lazily:
        print(
            f"cvmfs-py umount: {os.fsdecode(record.mountpoint)} is unmounted; its daemon (pid {record.process.pid})"
            " stays until the programs that use it have ended",
            file=sys.stderr,
        )
