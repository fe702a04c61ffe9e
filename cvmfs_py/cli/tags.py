"""`cvmfs-py tags`: lists the snapshots of a repository that have a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import date_text, table, write_json, write_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from catalog.history import Tag
    from cvmfs_py.mount.roots import RootFinder


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "List the named snapshots of a repository, newest revision first. Each can be pinned by --tag NAME.",
        "cvmfs-py tags sft.cern.ch",
    )
    parser.add_argument("repository", metavar="REPO", help="FQRN or URL")
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    common.add_repository_options(parser, pins=False)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_on_finder

    return run_on_finder(options, options.repository, list_tags)


async def list_tags(finder: RootFinder, options: argparse.Namespace) -> None:
    show_tags(await finder.tags(), as_json=options.json)


def tag_record(tag: Tag) -> dict[str, Any]:
    return {
        "name": tag.name,
        "revision": tag.revision,
        "timestamp": tag.timestamp_s,
        "date": date_text(tag.timestamp_s),
        "root_hash": str(tag.root_hash),
        "branch": tag.branch,
        "description": tag.description,
        "root_catalog_size": tag.size_bytes,
    }


def show_tags(unsorted: Iterable[Tag], *, as_json: bool) -> None:
    tags = sorted(unsorted, key=lambda tag: (-tag.revision, tag.name))
    if as_json:
        write_json([tag_record(tag) for tag in tags])
        return
    rows = [["NAME", "REVISION", "DATE (UTC)", "ROOT HASH", "DESCRIPTION"]]
    for tag in tags:
        name = f"{tag.name} (branch {tag.branch})" if tag.branch else tag.name
        rows.append([name, str(tag.revision), date_text(tag.timestamp_s), str(tag.root_hash), tag.description])
    for line in table(rows):
        write_line(line.encode("utf-8", "surrogateescape"))
