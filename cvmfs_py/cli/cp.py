"""`cvmfs-py cp`: the command line of copying out of a repository; `mount.copying` does the work."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, one_line, size_text
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.mount.copying import CopyReport
    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.totals import Totals

DEFAULT_JOBS = 32
SHOWN_FAILURES = 50
INTERRUPTED = "the same command goes on with the copy where it was stopped"


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Copy files, or with -r trees, out of repositories. As with cp, a DEST that is a directory gets the copy"
        " inside, and several copies need one. *, ? and [...] in a path stand for names in the repository: quote them."
        " Modes, times, hard links and user attributes are kept. An interrupted copy is resumed by the same command.",
        "cvmfs-py cp -r sft.cern.ch:/lcg/releases/ROOT ./ROOT",
        more=("cvmfs-py cp 'sft.cern.ch:/lcg/lib/*.so' sft.cern.ch:/lcg/README /tmp",),
    )
    parser.add_argument("targets", metavar="REPO:PATH", nargs="+", help="FQRN or URL, with a path inside")
    parser.add_argument("destination", metavar="DEST", type=common.given, help="a local path")
    parser.add_argument("-r", "-R", "--recursive", action="store_true", help="copy directories with all below")
    parser.add_argument("-a", "--archive", action="store_true", help="like -r, and keep owners and all attributes")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    parser.add_argument(
        "-j", "--jobs", metavar="N", type=int, default=DEFAULT_JOBS, help="files in flight (default %(default)s)"
    )
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.cli.session import run_together
    from cvmfs_py.mount.copying import CopyReport

    if options.jobs < 1:
        raise UsageError("--jobs must be at least 1")
    if len(options.targets) > 1:
        _require_directory(options.destination, len(options.targets))
    report = CopyReport()
    with Progress("copied", quiet=options.quiet, interrupted=INTERRUPTED) as progress:
        copying = _Copying(progress, report)
        code = run_together(options, options.targets, copying.copy)
    if report.failures:
        _tell_failures(report, is_single=copying.is_single)
    if not options.quiet and not (code and not report.files):
        kept = f", {report.resumed_files} were there already" if report.resumed_files else ""
        print(
            f"{counted(report.files, 'file')}, {counted(report.directories, 'directory', 'directories')},"
            f" {counted(report.links, 'link')},"
            f" {size_text(report.size_bytes)} in {progress.elapsed_s:.1f} s{kept}",
            file=sys.stderr,
        )
    return code


class _Copying:
    """The copies of one command line."""

    def __init__(self, progress: Progress, report: CopyReport) -> None:
        self._progress = progress
        self._report = report
        self._taken: dict[bytes, str] = {}
        self.is_single = True  # one file or tree, so that its failure needs no count

    async def copy(self, repository: Repository, paths: Sequence[bytes], options: argparse.Namespace) -> None:
        from cvmfs_py.errors import FsError
        from cvmfs_py.mount.copying import CopyRequest, copy_out
        from cvmfs_py.mount.copying_several import copy_several
        from cvmfs_py.mount.totals import totals_told

        sources = await self._expand(repository, paths)
        request = CopyRequest(
            source=b"",
            destination=options.destination,
            recursive=options.recursive or options.archive,
            archive=options.archive,
            jobs=options.jobs,
        )
        self.is_single = len(options.targets) == len(sources) == 1
        progress, report = self._progress, self._report
        try:
            with totals_told(repository, sources, progress, _copied_of, is_watched=progress.is_drawn):
                if self.is_single:
                    await copy_out(repository, replace(request, source=sources[0]), progress, report)
                else:
                    _require_directory(options.destination, len(sources))
                    await copy_several(repository, sources, request, progress, report, self._taken)
        except OSError as error:
            raise FsError(
                error.errno or errno.EIO,
                f"cannot copy to {options.destination}: {error.strerror}; choose a place in an existing directory",
            ) from error

    async def _expand(self, repository: Repository, paths: Sequence[bytes]) -> list[bytes]:
        from cvmfs_py.errors import FsError
        from cvmfs_py.mount.globbing import expand

        sources: list[bytes] = []
        for path in paths:
            try:
                sources += await expand(repository, path)
            except FsError as error:
                if len(paths) == 1:
                    raise
                self._report.failures.append(str(error))
        return list(dict.fromkeys(sources))


def _require_directory(destination: str, count: int) -> None:
    if not os.path.isdir(destination):
        raise UsageError(f"{destination} is no directory, and {count} copies need one: make it first")


def _copied_of(totals: Totals) -> tuple[int, int]:
    return totals.files + totals.others, totals.size_bytes


def _tell_failures(report: CopyReport, *, is_single: bool) -> None:
    from cvmfs_py.errors import CvmfsError

    if len(report.failures) == 1 and is_single and not report.directories:
        raise CvmfsError(report.failures[0])  # it was one file, so that there is nothing to count
    for failure in report.failures[:SHOWN_FAILURES]:
        print(f"cvmfs-py: {one_line(failure)}", file=sys.stderr)
    if len(report.failures) > SHOWN_FAILURES:
        print(f"cvmfs-py: and {len(report.failures) - SHOWN_FAILURES:,} more", file=sys.stderr)
    raise CvmfsError(
        f"{counted(len(report.failures), 'entry', 'entries')} could not be copied,"
        f" {counted(report.files, 'file')} could; the same command tries the rest again"
    )
