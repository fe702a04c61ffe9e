"""`cvmfs-py umount`: ends mounts."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.errors import CvmfsError, MountError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

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
    parser.add_argument("mounts", metavar="MOUNT", nargs="*", help="a mountpoint, or the FQRN of what you have mounted")
    parser.add_argument("--all", action="store_true", help="all that you have mounted")
    parser.add_argument("-l", "--lazy", action="store_true", help="do not even try to do it at once")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.registry import list_mounts

    if bool(options.mounts) == options.all:
        raise UsageError("name what is to be unmounted, or say --all")
    user_id = os.geteuid()
    mounts = list_mounts(os.environ, user_id).mounts
    chosen = (
        [each for each in mounts if each.user_id == user_id] if options.all else choose(options.mounts, mounts, user_id)
    )
    if options.all and len(chosen) < len(mounts):
        print(
            f"cvmfs-py umount: left alone: {len(mounts) - len(chosen)} of other users; name their mountpoints to end"
            " them, see cvmfs-py list",
            file=sys.stderr,
        )
    code = 0
    for mount in chosen:
        try:
            _end(mount, lazily=options.lazy)
        except CvmfsError as error:
            print(f"cvmfs-py umount: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def choose(names: Sequence[str], mounts: Sequence[ListedMount], user_id: int) -> list[ListedMount]:
    """A mountpoint means whatever is mounted there; the name of a repository means one's own mounts of it."""
    from cvmfs_py.fuse.mountinfo import real_path

    chosen: dict[tuple[bytes, object], ListedMount] = {}
    for name in names:
        place = os.fsencode(real_path(name))
        found = [each for each in mounts if each.record.mountpoint == place]
        of_name = [each for each in mounts if each.record.fqrn == name]
        found += [each for each in of_name if each.user_id == user_id]
        if not found and of_name:
            where = ", ".join(os.fsdecode(each.record.mountpoint) for each in of_name)
            raise MountError(f"{name} is mounted by others only; name the mountpoint to end that: {where}")
        if not found:
            raise MountError(f"{name} is not mounted by cvmfs-py; see cvmfs-py list")
        chosen.update(((each.record.mountpoint, each.record.process), each) for each in found)
    return list(chosen.values())


def _end(mount: ListedMount, *, lazily: bool) -> None:
    """Unmounts, and waits for the daemon: what comes next may need its cache, or the network gone."""
    import signal
    import time

    from cvmfs_py.fuse import mountpoint
    from cvmfs_py.mount.registry import MountState

    record = mount.record
    if mount.state is MountState.ELSEWHERE:
        if not record.process.is_running():  # its number means another process here, or none
            raise MountError(
                f"{os.fsdecode(record.mountpoint)} is mounted in another container or namespace, and so is its daemon"
                f" (pid {record.process.pid} there); end it from there"
            )
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
