"""`cvmfs-py ls`: lists directories and trees, streaming, so that its memory does not grow with what it lists."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import trio

from catalog.errors import CatalogError, show_path
from cvmfs_py.cli import options as common
from cvmfs_py.cli.entry_record import describe_entry
from cvmfs_py.cli.output import counted, write_json_line, write_line
from cvmfs_py.cli.session import run_each, warn
from cvmfs_py.errors import CvmfsError, FetchError, IntegrityError
from cvmfs_py.mount.concurrency import Patience

if TYPE_CHECKING:
    import argparse

    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "List a directory of a repository, sorted by name; with -R everything below it.",
        "cvmfs-py ls -l sft.cern.ch:/lcg",
        more=("cvmfs-py ls -R --json http://localhost:8000/cvmfs/my.test.org --key my.pub",),
    )
    parser.add_argument("targets", metavar="REPO[:PATH]", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("-l", "--long", action="store_true", help="with mode, links, owner, size, time and link target")
    parser.add_argument("-R", "--recursive", action="store_true", help="list the whole tree below")
    parser.add_argument("-d", "--directory", action="store_true", help="list a directory itself, not its contents")
    parser.add_argument("-a", "--all", action="store_true", help="include entries that the repository hides")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line, with -R also for the start itself; paths and other bytes as latin-1",
    )
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    return run_each(options, options.targets, list_target)


async def list_target(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    start = await repository.resolve(path, follow_last=not options.long)
    if not stat.S_ISDIR(start.entry.mode) or options.directory:
        await _show(repository, start, options, start.path.removeprefix(b"/") or b"/")
        return
    if not options.recursive:
        await _show_entries(repository, start.path, options)
        return
    if options.json:
        await _show(repository, start, options, b"")
    headed = False
    failures = 0
    patience = Patience(4)  # what is lost for one directory may be there for the next, but not if it is the network
    walk = repository.walk(start.path, hidden=options.all)
    async for directory in walk:
        if not options.json:
            write_line((b"\n" if headed else b"") + (directory or b"/") + b":")
            headed = True
        try:
            await _show_entries(repository, directory, options)
        except (FetchError, IntegrityError, CatalogError) as error:
            if isinstance(error, FetchError):
                patience.failed(error)
            failures += 1
            warn([f"{show_path(directory)} cannot be listed: {error}"])
            walk.skip()
    if failures:
        raise CvmfsError(f"the listing is incomplete: {counted(failures, 'directory', 'directories')} left out")


async def _show_entries(repository: Repository, directory: bytes, options: argparse.Namespace) -> None:
    async for located in repository.listing(directory, hidden=options.all):
        await trio.lowlevel.checkpoint_if_cancelled()  # of a large directory, too, one may have seen enough
        await _show(repository, located, options, located.entry.name)


async def _show(repository: Repository, located: Located, options: argparse.Namespace, name: bytes) -> None:
    if options.json:
        write_json_line(await describe_entry(repository, located))
    elif options.long:
        write_line(_long_line(repository, located, name))
    else:
        write_line(name)


def _long_line(repository: Repository, located: Located, name: bytes) -> bytes:
    attributes = repository.attributes(located.entry)
    moment = _moment(attributes.mtime_ns // 1_000_000_000)
    size = str(attributes.size_bytes)
    if stat.S_ISCHR(attributes.mode) or stat.S_ISBLK(attributes.mode):
        size = f"{os.major(attributes.rdev)}, {os.minor(attributes.rdev)}"
    line = (
        f"{stat.filemode(attributes.mode)} {attributes.link_count:>3} {attributes.uid:>5} {attributes.gid:>5}"
        f" {size:>12} {moment} "
    ).encode() + name
    if stat.S_ISLNK(attributes.mode):
        line += b" -> " + repository.link_target(located.entry)
    return line


def _moment(timestamp_s: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(timestamp_s))
    except (OverflowError, ValueError, OSError):
        return f"second {timestamp_s}"  # no calendar has it
