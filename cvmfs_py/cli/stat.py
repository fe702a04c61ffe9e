"""`cvmfs-py stat`: shows everything known about entries."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.entry_record import describe_entry
from cvmfs_py.cli.output import date_text, write_json, write_line

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.repository import Repository

_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show everything known about entries of a repository; a link is shown itself, not what it leads to.",
        "cvmfs-py stat --json sft.cern.ch:/lcg/README",
    )
    parser.add_argument("targets", metavar="REPO[:PATH]", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("-L", "--follow", action="store_true", help="follow a link at the end of the path")
    parser.add_argument("--json", action="store_true", help="as JSON; paths and other bytes as latin-1")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_each

    return run_each(options, options.targets, show_entry)


async def show_entry(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    located = await repository.resolve(path, follow_last=options.follow)
    record = await describe_entry(repository, located)
    if options.json:
        write_json(record)
        return
    kind = stat.S_IFMT(record["mode"])
    seconds, fraction_ns = divmod(record["mtime_ns"], 1_000_000_000)
    lines: list[tuple[str, str | bytes]] = [
        ("path", located.path or b"/"),
        ("kind", _KINDS[kind]),
        ("mode", f"{stat.filemode(record['mode'])} ({stat.S_IMODE(record['mode']):04o})"),
        ("size", f"{record['size']} {'byte' if record['size'] == 1 else 'bytes'}"),
        ("links", str(record["nlink"])),
        ("owner", f"{record['uid']}:{record['gid']}"),
        ("modified", f"{date_text(seconds).removesuffix('Z').replace('T', ' ')}.{fraction_ns:09d} UTC"),
    ]
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        lines.append(("device", f"{os.major(record['rdev'])}:{os.minor(record['rdev'])}"))
    if kind == stat.S_IFLNK:
        lines.append(("target", record["target"].encode("latin-1")))
        if record["raw_target"] != record["target"]:
            lines.append(("stored target", record["raw_target"].encode("latin-1")))
    if kind == stat.S_IFREG:
        lines.append(("hash", record["hash"] or "none (the chunks have)"))
        lines.append(("chunks", str(record["chunks"])))
        lines.append(("compression", record["compression"]))
        lines.append(("external", "yes" if record["external"] else "no"))
    lines.append(("catalog", record["catalog"] + (" (root of it)" if record["nested_catalog"] else "")))
    for name, value in lines:
        write_line(f"{name + ':':<14} ".encode() + _as_bytes(value))
    for name, value in record["xattrs"].items():
        write_line(f"xattr {name}: {value}".encode("latin-1"))


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
