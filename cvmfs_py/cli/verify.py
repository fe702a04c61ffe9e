"""`cvmfs-py verify`: the command line of verifying; `mount.verifying` does the work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, one_line, size_text, write_json

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.totals import Totals

SHOWN_PROBLEMS = 50


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Check the signature chain and walk all catalogs of a snapshot, or those below a path; with --data check"
        " every object too, fetching what is not in the cache.",
        "cvmfs-py verify --data sft.cern.ch:/lcg/releases",
        more=("cvmfs-py verify --data --fresh sft.cern.ch  # past the cache",),
    )
    parser.add_argument("targets", metavar="REPO[:PATH]", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("--data", action="store_true", help="also every object")
    parser.add_argument("--fresh", action="store_true", help="do not use the cache: fetch everything into memory anew")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import run_each

    return run_each(options, options.targets, verify, fresh=options.fresh)


async def verify(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.errors import IntegrityError
    from cvmfs_py.mount.totals import totals_told
    from cvmfs_py.mount.verifying import verify_snapshot

    interrupted = "the same command begins anew" + ("" if options.fresh else ", with what it has fetched in the cache")
    with Progress("verified", quiet=options.quiet or options.json, interrupted=interrupted) as progress:
        wanted = _data_of if options.data else _entries_of
        with totals_told(repository, [path], progress, wanted, is_watched=progress.is_drawn):
            report = await verify_snapshot(repository, path, progress, data=options.data)
    trusted = repository.root.trusted
    if options.json:
        write_json(
            {
                "fqrn": repository.fqrn,
                "root_hash": str(repository.root_hash),
                "signed": trusted is not None,
                "catalogs": report.catalogs,
                "entries": report.entries,
                "objects": report.objects,
                "size_bytes": report.size_bytes,
                "problems": report.problems,
            }
        )
    else:
        for problem in report.problems[:SHOWN_PROBLEMS]:
            print(f"cvmfs-py: {one_line(problem)}", file=sys.stderr)
        chain = "signed by a configured master key" if trusted is not None else repository.root.origin.value
        checked = f", {counted(report.objects, 'object')} with {size_text(report.size_bytes)}" if options.data else ""
        verdict = "everything is right" if not report.problems else "see above"
        print(
            f"{repository.fqrn}, root {repository.root_hash}, {chain}: {counted(report.catalogs, 'catalog')},"
            f" {counted(report.entries, 'entry', 'entries')}{checked}: {verdict}"
        )
    if report.problems:
        raise IntegrityError(f"{counted(len(report.problems), 'problem')} in {repository.fqrn}")


def _entries_of(totals: Totals) -> tuple[int, int]:
    return totals.entries, 0


def _data_of(totals: Totals) -> tuple[int, int]:
    return totals.entries, totals.size_bytes
