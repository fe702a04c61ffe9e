"""`cvmfs-py cp`: the command line of copying out of a repository; `mount.copying` does the work."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, one_line, size_text
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.repository import Repository

DEFAULT_JOBS = 32


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Copy a file, or with -r a tree, out of a repository. As with cp, a DEST that is a directory gets the copy"
        " inside. Modes, times, hard links and user attributes are kept. An interrupted copy is resumed by the same"
        " command.",
        "cvmfs-py cp -r sft.cern.ch:/lcg/releases/ROOT ./ROOT",
    )
    parser.add_argument("source", metavar="REPO:PATH", help="FQRN or URL, with a path inside")
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
    from cvmfs_py.cli.session import run_each

    if options.jobs < 1:
        raise UsageError("--jobs must be at least 1")
    return run_each(options, [options.source], copy)


async def copy(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.errors import CvmfsError, FsError
    from cvmfs_py.mount.copying import CopyRequest, copy_out

    request = CopyRequest(
        source=path,
        destination=options.destination,
        recursive=options.recursive or options.archive,
        archive=options.archive,
        jobs=options.jobs,
    )
    with Progress("copied", quiet=options.quiet) as progress:
        try:
            report = await copy_out(repository, request, progress)
        except OSError as error:
            raise FsError(
                error.errno or errno.EIO,
                f"cannot copy to {options.destination}: {error.strerror}; choose a place in an existing directory",
            ) from error
    if len(report.failures) == 1 and not report.directories:
        raise CvmfsError(report.failures[0])  # it was one file, so that there is nothing to count
    for failure in report.failures:
        print(f"cvmfs-py: {one_line(failure)}", file=sys.stderr)
    if report.failures:
        raise CvmfsError(
            f"{counted(len(report.failures), 'entry', 'entries')} could not be copied,"
            f" {counted(report.files, 'file')} could; the same command tries the rest again"
        )
    if not options.quiet:
        kept = f", {report.resumed_files} were there already" if report.resumed_files else ""
        print(
            f"{counted(report.files, 'file')}, {counted(report.directories, 'directory', 'directories')},"
            f" {counted(report.links, 'link')},"
            f" {size_text(report.size_bytes)} in {progress.elapsed_s:.1f} s{kept}",
            file=sys.stderr,
        )
