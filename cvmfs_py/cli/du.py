"""`cvmfs-py du`: how large directories of a repository are, mostly from what its catalogs count themselves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, latin1, write_json_line, write_line
from cvmfs_py.errors import CvmfsError, UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.usage import Usage

_UNITS = "KMGTPE"


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show how large the directories of a repository are, in KiB: the content of the files below, one with several"
        " names once. With -s and -d a catalog nested below is believed what it counts, without fetching those further"
        " down; there a file counts for each of its names, unless --exact is given.",
        "cvmfs-py du -sh sft.cern.ch:/lcg/releases",
        more=("cvmfs-py du -h -d 1 sft.cern.ch:/lcg",),
    )
    parser.add_argument("targets", metavar="REPO[:PATH]", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("-s", "--summarize", action="store_true", help="only the total of each PATH")
    parser.add_argument("-d", "--max-depth", metavar="N", dest="depth", help="show directories so far down; 0: as -s")
    parser.add_argument("-a", "--all", action="store_true", help="show files, too")
    parser.add_argument("--exact", action="store_true", help="count everything, whatever has to be fetched")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, in bytes and with the number of entries"
    )
    # Here -h is for people, as in du(1); --help stays.
    sizes = parser.add_argument_group("how sizes are written (default: KiB, rounded up)", conflict_handler="resolve")
    sizes.add_argument("-h", "--human-readable", dest="human", action="store_true", help="for people: 1.2G")
    sizes.add_argument("-b", "--bytes", action="store_true", help="in bytes")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_each

    options.depth = _depth(options)
    return run_each(options, options.targets, show_usage)


def _depth(options: argparse.Namespace) -> int:
    text: str | None = options.depth
    if options.summarize and (options.all or text not in (None, "0")):
        raise UsageError("-s shows the total only: leave out -a and -d")
    if options.summarize:
        return 0
    if text is None:
        return sys.maxsize
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"-d {text}: write a number of levels, 0 for the total only")
    return int(text)


async def show_usage(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    from cvmfs_py.cli.session import warn
    from cvmfs_py.mount.usage import Survey, survey

    def show(usage: Usage) -> None:
        if usage.depth <= options.depth and (usage.is_directory or options.all or usage.depth == 0):
            _show(usage, options)

    wanted = Survey(show, lambda text: warn([text]), options.depth, options.exact)
    failures = await survey(repository, path, wanted)
    if failures:
        raise CvmfsError(f"the sizes are incomplete: {counted(failures, 'directory', 'directories')} left out")


def _show(usage: Usage, options: argparse.Namespace) -> None:
    if options.json:
        write_json_line(
            {
                "path": latin1(usage.path.removeprefix(b"/")),
                "size_bytes": usage.size_bytes,
                "files": usage.files,
                "directories": usage.directories,
                "links": usage.links,
                "exact": usage.is_exact,
            }
        )
        return
    if options.bytes:
        size = str(usage.size_bytes)
    elif options.human:
        size = short_size(usage.size_bytes)
    else:
        size = str(-(-usage.size_bytes // 1024))
    write_line(size.encode() + b"\t" + (usage.path or b"/"))


def short_size(size_bytes: int) -> str:
    """As du -h and ls -h write it, rounded up: 812, 1.5K, 23M."""
    if size_bytes < 1024:
        return str(size_bytes)
    scale = 1
    for unit in _UNITS:
        scale *= 1024
        tenths = -(-size_bytes * 10 // scale)
        if tenths < 100:
            return f"{tenths // 10}.{tenths % 10}{unit}"
        if -(-size_bytes // scale) < 1024 or unit == _UNITS[-1]:
            return f"{-(-size_bytes // scale)}{unit}"
    raise AssertionError("unreachable")
