"""`cvmfs-py list`: what is mounted, by whom, at which revision."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.colours import Colour
from cvmfs_py.cli.output import date_text, write_json, write_line

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.fuse.mountpoint import Life
    from cvmfs_py.mount.registry import ListedMount
    from cvmfs_py.mount.unrecorded import UnrecordedMount

COLOURS = {"mounted": Colour.GOOD, "broken": Colour.BAD}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "List what is mounted: the mounts of this user and of the system; for root, of everybody. Those of other"
        " programs below /cvmfs, and of the C++ client anywhere, are shown as such; a mount is broken when its daemon"
        " is gone: cvmfs-py umount ends it, cvmfs-py mount over it repairs it.",
        "cvmfs-py list",
    )
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.fuse.mountinfo import load_mounts
    from cvmfs_py.mount.registry import MountState, list_mounts
    from cvmfs_py.mount.unrecorded import ask, find_unrecorded

    user_id = os.geteuid()
    listed = list_mounts(os.environ, user_id)
    for warning in listed.warnings:
        print(f"cvmfs-py list: {warning}", file=sys.stderr)
    seen = [each.record.mountpoint for each in listed.mounts if each.state is not MountState.ELSEWHERE]
    lives = ask([os.fsdecode(place) for place in seen])
    others = find_unrecorded(load_mounts(), seen, user_id)
    values = [_value(mount, lives.get(os.fsdecode(mount.record.mountpoint))) for mount in listed.mounts]
    values += [_unrecorded_value(other) for other in others]
    values.sort(key=lambda value: str(value["mountpoint"]))
    if options.json:
        write_json([value | {"since": value["since"] and date_text(int(value["since"]))} for value in values])
        return 0
    states = ["", *(value["state"] for value in values)]
    for line, state in zip(_table(values), states, strict=False):
        cell, colour = (state, COLOURS.get(state, Colour.DOUBTFUL)) if state else ("STATE", Colour.TITLE)
        write_line(line.encode("utf-8", "surrogateescape"), cell, colour)
    return 0


def _value(mount: ListedMount, life: Life | None) -> dict[str, Any]:
    from cvmfs_py.fuse.mountpoint import Life

    record = mount.record
    states = {Life.DEAD: "broken", Life.SILENT: Life.SILENT.value}
    return {
        "fqrn": record.fqrn,
        "mountpoint": record.mountpoint.decode("latin-1"),
        "program": "cvmfs-py",
        "state": mount.state.value if life is None else states.get(life, mount.state.value),
        "revision": record.revision,
        "root_hash": record.root_hash,
        "tag": record.tag,
        "is_pinned": record.is_pinned,
        "user": mount.user_id,
        "pid": record.process.pid,
        "engine": record.engine,
        "cache": record.cache_dir.decode("latin-1"),
        "since": record.started_at_s,
    }


def _unrecorded_value(mount: UnrecordedMount) -> dict[str, Any]:
    """What nobody tells of is null."""
    from cvmfs_py.fuse.mountpoint import Life

    states = {Life.ALIVE: "mounted", Life.DEAD: "broken", Life.SILENT: Life.SILENT.value}
    unknown = ("revision", "root_hash", "tag", "is_pinned", "pid", "engine", "cache", "since")
    return {
        "fqrn": mount.fqrn,
        "mountpoint": os.fsencode(mount.mountpoint).decode("latin-1"),
        "program": mount.program,
        "state": states[mount.life],
        "user": mount.user_id,
        **dict.fromkeys(unknown),
    }


def _table(values: list[dict[str, Any]]) -> list[str]:
    if not values:
        return []
    rows = [("REPOSITORY", "REVISION", "TAG", "USER", "PID", "UP", "STATE", "MOUNTPOINT")]
    rows += [
        (
            value["fqrn"],
            _shown(value["revision"]),
            value["tag"] or "-",
            "-" if value["user"] is None else user_name(value["user"]),
            _shown(value["pid"]),
            "-" if value["since"] is None else _since(value["since"]),
            value["state"] if value["program"] == "cvmfs-py" else f"{value['state']} by {value['program']}",
            os.fsdecode(value["mountpoint"].encode("latin-1")),
        )
        for value in values
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)


def _since(started_at_s: float) -> str:
    minutes = int((time.time() - started_at_s) // 60)
    hours, minutes = divmod(max(minutes, 0), 60)
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days else f"{hours}h{minutes:02}m"


def user_name(user_id: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
