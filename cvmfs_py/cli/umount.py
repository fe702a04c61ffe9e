"""`cvmfs-py umount`: ends mounts, one's own unless a mountpoint is named."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import one_line
from cvmfs_py.errors import CvmfsError, MountError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from cvmfs_py.mount.registry import ListedMount, MountRecord


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Unmount what cvmfs-py has mounted, and wait for the end of its daemon. Programs that still use it keep what"
        " they have open; a daemon that does not answer is told to end, and killed if need be. FQRN means what follows"
        " new revisions, FQRN@TAG what is pinned to that tag, at whatever mountpoint; a snapshot that was pinned by"
        " date or root hash is named by its mountpoint. Names and --all mean mounts of one's own; root ends those of"
        " others by their mountpoint.",
        "cvmfs-py umount /cvmfs/sft.cern.ch",
        more=("cvmfs-py umount sft.cern.ch@v1", "cvmfs-py umount --all"),
    )
    parser.add_argument("mounts", metavar="MOUNT", nargs="*", help="a mountpoint, FQRN or FQRN@TAG")
    parser.add_argument("--all", action="store_true", help="all mounts of this user")
    parser.add_argument("-l", "--lazy", action="store_true", help="do not even try to do it at once")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.registry import list_mounts

    if bool(options.mounts) == options.all:
        raise UsageError("name what is to be unmounted, or say --all")
    user_id = os.geteuid()
    mounts = list_mounts(os.environ, user_id).mounts
    code = 0
    chosen: dict[ListedMount, None] = {}
    if options.all:
        chosen.update(dict.fromkeys(mount for mount in mounts if mount.user_id == user_id))
        if user_id == 0:  # nobody else could do anything about them
            _tell_left_alone(mount for mount in mounts if mount.user_id != user_id)
    for name in options.mounts:
        try:
            if not _end_unrecorded(name, mounts, user_id):
                chosen.update(dict.fromkeys(_choose(name, mounts, user_id)))
        except MountError as error:
            code = _complain(error)
    for mount in chosen:
        try:
            _end(mount, lazily=options.lazy)
        except CvmfsError as error:
            code = _complain(error)
    if chosen:
        list_mounts(os.environ, user_id)  # removes the record of a daemon that was killed
    return code


def _choose(name: str, mounts: tuple[ListedMount, ...], user_id: int) -> list[ListedMount]:
    """A mountpoint means what is seen there. What is elsewhere is no business of others than its owner."""
    from cvmfs_py.fuse.mountinfo import real_path
    from cvmfs_py.mount.ending import is_unmounted_from_here
    from cvmfs_py.mount.registry import named_mounts

    place = os.fsencode(real_path(name))
    at_place = [each for each in mounts if each.record.mountpoint == place]
    seen = [each for each in at_place if is_unmounted_from_here(each) and user_id in (0, each.user_id)]
    if seen:
        return seen
    fqrn, at, tag = name.partition("@")
    found = at_place or named_mounts(mounts, fqrn, tag if at else None)
    own = [each for each in found if each.user_id == user_id]
    others = [each for each in found if each.user_id != user_id]
    if own:
        _tell_left_alone(others)
        return own
    if others:
        raise MountError("; ".join(_left_alone(each, user_id) for each in others))
    raise MountError(_not_mounted(name, [each for each in mounts if each.record.fqrn == fqrn]))


def _end_unrecorded(name: str, mounts: tuple[ListedMount, ...], user_id: int) -> bool:
    """One of ours of which no record tells, at a mountpoint; whether there is one. MountError for one of others."""
    from cvmfs_py.fuse import mountpoint
    from cvmfs_py.fuse.mountinfo import load_mounts, real_path
    from cvmfs_py.mount.unrecorded import find_unrecorded

    place, recorded = real_path(name), [each.record.mountpoint for each in mounts]
    for mount in find_unrecorded(load_mounts(), recorded, user_id):
        if mount.mountpoint == place:
            if mount.is_ours and user_id in (0, mount.user_id):
                mountpoint.unmount(place)
                return True
            command = mountpoint.unmount_command(place, lazily=mount.life is not mountpoint.Life.ALIVE)
            raise MountError(f"{place} is mounted by {mount.program} and left alone; to end it: {command}")
    return False


def _not_mounted(name: str, others: list[ListedMount]) -> str:
    """Other snapshots of the repository, or the newest one, are not what was meant."""
    if not others:
        return f"{name} is not mounted by cvmfs-py; see cvmfs-py list"
    places = [shlex.quote(os.fsdecode(each.record.mountpoint)) for each in others]
    what = ", ".join(f"{snapshot_name(each.record)} at {place}" for each, place in zip(others, places, strict=True))
    return f"{name} is not mounted; {what} is left alone: cvmfs-py umount {places[0]}"


def snapshot_name(record: MountRecord) -> str:
    if not record.is_pinned:
        return record.fqrn
    return f"{record.fqrn}@{record.tag}" if record.tag else f"{record.fqrn} (root hash {record.root_hash})"


def _end(mount: ListedMount, *, lazily: bool) -> None:
    from cvmfs_py.mount.ending import Ending, end_mount

    place, pid = os.fsdecode(mount.record.mountpoint), mount.record.process.pid
    ending = end_mount(mount, lazily=lazily)
    if ending in (Ending.TOLD, Ending.KILLED):
        _tell(f"the daemon of {place} (pid {pid}) {ending.value}")
    if ending is Ending.UNMOUNTED and not lazily:
        _tell(f"{place} is unmounted; its daemon (pid {pid}) stays until the programs that use it have ended")


def _left_alone(mount: ListedMount, user_id: int) -> str:
    """Whose it is, and how it can be ended."""
    from contextlib import closing

    from cvmfs_py.cli.list import user_name
    from cvmfs_py.mount.ending import is_unmounted_from_here, open_daemon

    record, owner = mount.record, user_name(mount.user_id)
    place = os.fsdecode(record.mountpoint)
    text = f"{place} ({record.fqrn}) of user {owner} is left alone"
    if user_id != 0:
        return f"{text}; only {'' if mount.user_id == 0 else f'{owner} and '}root can end it"
    if is_unmounted_from_here(mount):
        return f"{text}; to end it: cvmfs-py umount {shlex.quote(place)}"
    daemon = open_daemon(mount)
    if daemon is None:
        return f"{text}; it is in another namespace, where it has to be ended, or with its container"
    with closing(daemon):
        return f"{text}; it is in another namespace, to end it: kill {record.process.pid}"


def _tell_left_alone(mounts: Iterable[ListedMount]) -> None:
    for mount in mounts:
        _tell(_left_alone(mount, os.geteuid()))


def _complain(error: CvmfsError) -> int:
    _tell(str(error))
    return error.exit_code


def _tell(text: str) -> None:
    print(f"cvmfs-py umount: {one_line(text)}", file=sys.stderr)  # it quotes records that others have written
