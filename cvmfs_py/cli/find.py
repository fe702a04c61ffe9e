"""`cvmfs-py find`: finds entries of a repository in the words of find(1), from its catalogs alone, streaming."""

from __future__ import annotations

import stat
import sys
import time
from typing import TYPE_CHECKING

import trio

from catalog.errors import CatalogError, show_path
from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, write_json_line, write_line
from cvmfs_py.cli.parser import Parser
from cvmfs_py.cli.search import Condition, are_named, are_of_age, are_of_kinds, are_of_size, are_younger
from cvmfs_py.errors import CvmfsError, FetchError, IntegrityError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

_WORDS = (
    "name",
    "iname",
    "path",
    "type",
    "size",
    "mtime",
    "newer",
    "newermt",
    "maxdepth",
    "mindepth",
    "print0",
)


class _FindParser(Parser):
    """Takes the words of find(1) with one dash or two, and values such as -4M."""

    def parse_intermixed_args(self, args: Sequence[str] | None = None, namespace: object = None) -> argparse.Namespace:  # type: ignore[override]
        return super().parse_intermixed_args(_as_options(list(args or ())))


def _as_options(words: list[str]) -> list[str]:
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or name not in _WORDS:
            found.append(word)
            continue
        if not equals and name != "print0":
            given = next(rest, None)
            if given is None:
                found.append(f"-{name}")  # the parser says what is missing
                continue
            equals, value = "=", given
        found.append(f"-{name}{equals}{value}")
    return found


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = _FindParser(
        prog,
        "Find entries at and below a path of a repository in the words of find(1). All conditions must hold; of several"
        " -name, -iname and -path, one. A link at the end of PATH is followed, no other one. What is printed are paths"
        " in the repository; no file is fetched.",
        (
            "cvmfs-py find sft.cern.ch:/lcg -name '*.py'",
            "cvmfs-py find sft.cern.ch@v1:/lcg -type f -size +10M -print0",
            "cvmfs-py find sft.cern.ch -maxdepth 2 -type d",
        ),
    )
    parser.add_argument("--debug", action="store_true", help="tell on standard error what is done and tried")
    parser.add_argument("targets", metavar="REPO[:PATH]", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("-name", metavar="GLOB", action="append", help="its name matches; * ? [] are wildcards")
    parser.add_argument("-iname", metavar="GLOB", action="append", help="the same without regard to case")
    parser.add_argument("-path", metavar="GLOB", action="append", help="its whole path matches; here * matches / too")
    parser.add_argument(
        "-type",
        metavar="KINDS",
        dest="kinds",
        help="f file, d directory, l link, p fifo, s socket, b c device; several as f,l",
    )
    parser.add_argument(
        "-size",
        metavar="[+-]N[ckMG]",
        action="append",
        help="larger (+), smaller (-) or exactly so large, rounded up to the unit: c bytes, k, M, G; else 512 bytes",
    )
    parser.add_argument(
        "-mtime", metavar="[+-]DAYS", action="append", help="modified more (+), less (-) or exactly so many days ago"
    )
    parser.add_argument("-newer", metavar="FILE", action="append", help="modified after this file here was")
    parser.add_argument("-newermt", metavar="TIME", action="append", help="modified after YYYY-MM-DD[THH:MM:SSZ], UTC")
    parser.add_argument("-maxdepth", metavar="N", help="go down so far; 0: only the path itself")
    parser.add_argument("-mindepth", metavar="N", help="leave out what is not so far down; 1: not the path itself")
    parser.add_argument("-print0", action="store_true", help="end each path with a zero byte, for xargs -0")
    parser.add_argument("-a", "--all", action="store_true", help="include entries that the repository hides")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, as ls --json; paths and other bytes as latin-1"
    )
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_each

    options.conditions = _conditions(options)
    for name in ("maxdepth", "mindepth"):
        setattr(options, name, _depth(name, getattr(options, name)))
    return run_each(options, options.targets, find_below)


def _conditions(options: argparse.Namespace) -> tuple[Condition, ...]:
    now_s = time.time()
    found: list[Condition] = []
    if options.name or options.iname or options.path:
        found.append(are_named(options.name or (), options.iname or (), options.path or ()))
    if options.kinds is not None:
        found.append(are_of_kinds(options.kinds))
    found += [are_of_size(text) for text in options.size or ()]
    found += [are_of_age(text, now_s) for text in options.mtime or ()]
    found += [are_younger(file, is_file=True) for file in options.newer or ()]
    found += [are_younger(text, is_file=False) for text in options.newermt or ()]
    return tuple(found)


def _depth(name: str, text: str | None) -> int | None:
    from cvmfs_py.errors import UsageError

    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"-{name} {text}: write a number of levels, 0 for the path itself")
    return int(text)


async def find_below(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    start = await repository.resolve(path)
    finder = _Finder(repository, options)
    await finder.look_at(start, 0)
    if stat.S_ISDIR(start.entry.mode) and options.maxdepth != 0:
        await finder.look_below(start.path)


class _Finder:
    """One search on its way."""

    def __init__(self, repository: Repository, options: argparse.Namespace) -> None:
        self._repository = repository
        self._hidden: bool = options.all
        self._conditions: tuple[Condition, ...] = options.conditions
        self._most: int = sys.maxsize if options.maxdepth is None else options.maxdepth
        self._least: int = options.mindepth or 0
        self._as_json: bool = options.json
        self._with_zero: bool = options.print0

    async def look_below(self, top: bytes) -> None:
        from cvmfs_py.cli.session import warn
        from cvmfs_py.mount.concurrency import Patience

        depth_of_top = top.count(b"/")
        # A directory is entered when what is in it is not too deep.
        walk = self._repository.walk(
            top, hidden=self._hidden, wanted=lambda _, below: below.count(b"/") - depth_of_top < self._most
        )
        failures = 0
        patience = Patience(4)  # what is lost for one directory may be there for the next, but not if it is the network
        async for directory in walk:
            depth = directory.count(b"/") - depth_of_top + 1
            try:
                async for located in self._repository.listing(directory, hidden=self._hidden):
                    await trio.lowlevel.checkpoint_if_cancelled()
                    await self.look_at(located, depth)
            except (FetchError, IntegrityError, CatalogError) as error:
                if isinstance(error, FetchError):
                    patience.failed(error)
                failures += 1
                warn([f"{show_path(directory)} cannot be searched: {error}"])
                walk.skip()
            else:
                if depth >= self._most:
                    walk.skip()
        if failures:
            raise CvmfsError(f"the search is incomplete: {counted(failures, 'directory', 'directories')} left out")

    async def look_at(self, located: Located, depth: int) -> None:
        if depth < self._least or not all(holds(located) for holds in self._conditions):
            return
        if self._as_json:
            from cvmfs_py.cli.entry_record import describe_entry

            write_json_line(await describe_entry(self._repository, located))
        elif self._with_zero:
            sys.stdout.buffer.write((located.path or b"/") + b"\0")
        else:
            write_line(located.path or b"/")
