"""`cvmfs-py diff`: what changed from one snapshot of a repository to another, as far as their catalogs differ."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    from cvmfs_py.cli.options import Request

NEWEST = "HEAD"


def build_parser(prog: str) -> argparse.ArgumentParser:
    from cvmfs_py.cli.change_record import LETTERS, add_options

    parser = common.new_parser(
        prog,
        f"List what changed from one snapshot of a repository to another: {LETTERS}. Only the catalogs that differ are"
        " fetched, and no file. A snapshot is a tag, a root hash, or HEAD for the newest revision; of the first one"
        " also what --tag, --date or --root-hash says.",
        "cvmfs-py diff sft.cern.ch@v1 sft.cern.ch@v2",
        more=("cvmfs-py diff --stat sft.cern.ch@v1 sft.cern.ch :/lcg", "cvmfs-py diff --date 2024-05-01 sft.cern.ch"),
    )
    parser.add_argument("old", metavar="OLD", help="FQRN@TAG or URL@TAG: the snapshot before")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the one after it (default: the newest of OLD)")
    parser.add_argument("path", metavar=":PATH", nargs="?", help="only what is there and below")
    add_options(parser)
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_async

    new_text, path_text = options.new, options.path
    if new_text is not None and new_text.startswith(":"):  # NEW was left out
        if path_text is not None:
            raise UsageError(f"{path_text}: the path in the repository comes last")
        new_text, path_text = None, new_text
    if path_text is not None and not path_text.startswith(":"):
        raise UsageError(f"{path_text}: write a path in the repository as :/PATH")
    old = _request(options, options.old)
    if new_text is None:
        new_text = old.target.url or old.target.name
    unpinned = argparse.Namespace(**{**vars(options), "tag": None, "date": None, "root_hash": None})
    new = _request(unpinned, new_text)
    if old.overrides == new.overrides and old.target.name == new.target.name:
        raise UsageError("the two snapshots are the same; write for example sft.cern.ch@v1 sft.cern.ch@v2")
    run_async(_compare, options, old, new, _path(old, new, path_text))
    return 0


def _request(options: argparse.Namespace, text: str) -> Request:
    """As for other commands, but that what stands after the @ may be a root hash, or HEAD."""
    from cache.address import Algorithm, parse_hash

    request = common.request_of(options, text)
    tag = request.target.tag
    if tag == NEWEST:
        pins = dict.fromkeys(("CVMFS_ROOT_HASH", "CVMFS_REPOSITORY_TAG", "CVMFS_REPOSITORY_DATE"), "")
        return replace(request, overrides=request.overrides | pins)
    root_hash = None if tag is None else parse_hash(tag)
    if tag is not None and root_hash is not None and root_hash.algorithm is not Algorithm.MD5:
        return replace(request, overrides=request.overrides | {"CVMFS_REPOSITORY_TAG": "", "CVMFS_ROOT_HASH": tag})
    return request


def _path(old: Request, new: Request, text: str | None) -> bytes:
    """The one path that is compared, however often it was written."""
    from cvmfs_py.config.target import normalise

    given = {old.target.path, new.target.path, normalise(os.fsencode((text or ":")[1:]))} - {b""}
    if len(given) > 1:
        raise UsageError("the path must be the same in both snapshots: write it once, at the end, as :/PATH")
    return given.pop() if given else b""


async def _compare(options: argparse.Namespace, old: Request, new: Request, path: bytes) -> None:
    from cvmfs_py.cli.change_record import ChangeWriter
    from cvmfs_py.cli.session import wanted, warn
    from cvmfs_py.mount.assemble import open_repository
    from cvmfs_py.mount.comparing import compare_snapshots

    writer = ChangeWriter(options)
    async with open_repository(wanted(old)) as before, open_repository(wanted(new)) as after:
        warn([*before.warnings, *after.warnings])
        await compare_snapshots(before, after, path, writer.show)
    writer.finish()
