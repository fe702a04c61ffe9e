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

    from cvmfs_py.mount.registry import ListedMount

COLOURS = {"mounted": Colour.GOOD, "broken": Colour.BAD}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "List what is mounted by cvmfs-py: the mounts of this user and of the system; for root, of everybody.",
        "cvmfs-py list",
    )
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.registry import list_mounts

    listed = list_mounts(os.environ, os.geteuid())
    for warning in listed.warnings:
        print(f"cvmfs-py list: {warning}", file=sys.stderr)
    if options.json:
        write_json([_value(mount) for mount in listed.mounts])
        return 0
    states = ["", *(mount.state.value for mount in listed.mounts)]
    for line, state in zip(_table(listed.mounts), states, strict=False):
        cell, colour = (state, COLOURS.get(state, Colour.DOUBTFUL)) if state else ("STATE", Colour.TITLE)
        write_line(line.encode("utf-8", "surrogateescape"), cell, colour)
    return 0


def _value(mount: ListedMount) -> dict[str, Any]:
    record = mount.record
    return {
        "fqrn": record.fqrn,
        "mountpoint": record.mountpoint.decode("latin-1"),
        "state": mount.state.value,
        "revision": record.revision,
        "root_hash": record.root_hash,
        "tag": record.tag,
        "user": mount.user_id,
        "pid": record.process.pid,
        "engine": record.engine,
        "cache": record.cache_dir.decode("latin-1"),
        "since": date_text(int(record.started_at_s)),
    }


def _table(mounts: tuple[ListedMount, ...]) -> list[str]:
    if not mounts:
        return []
    rows = [("REPOSITORY", "REVISION", "TAG", "USER", "PID", "UP", "STATE", "MOUNTPOINT")]
    rows += [
        (
            mount.record.fqrn,
            str(mount.record.revision),
            mount.record.tag or "-",
            user_name(mount.user_id),
            str(mount.record.process.pid),
            _since(mount.record.started_at_s),
            mount.state.value,
            os.fsdecode(mount.record.mountpoint),
        )
        for mount in mounts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


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
