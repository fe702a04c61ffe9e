"""`cvmfs-py cat`: prints files."""

from __future__ import annotations

import errno
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.cli import options as common
from cvmfs_py.errors import FsError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.repository import Repository

PIECE_BYTES = 1 << 20


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Print files of a repository on standard output.",
        "cvmfs-py cat sft.cern.ch:/README",
    )
    parser.add_argument("targets", metavar="REPO:PATH", nargs="+", help="FQRN or URL, and the path of a file inside")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_each

    return run_each(options, options.targets, print_file)


async def print_file(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    del options
    located = await repository.resolve(path)
    if located.entry.is_directory:
        raise FsError(errno.EISDIR, f"{show_path(located.path)} is a directory; list it with cvmfs-py ls")
    if not located.entry.is_regular:
        raise FsError(errno.EINVAL, f"{show_path(located.path)} is a special file and has no content")
    output = sys.stdout.buffer
    async with repository.read_windows(await repository.content_windows(located)) as ready:
        async for pins in ready:
            with ExitStack() as held:
                for pin in pins:
                    held.enter_context(pin)
                for pin in pins:
                    for offset in range(0, pin.size_bytes, PIECE_BYTES):
                        output.write(pin.read(PIECE_BYTES, offset))
    output.flush()
