"""`cvmfs-py exec`: runs a command that sees repositories below /cvmfs, in namespaces of its own. Needs no rights."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.mount import add_engine_option
from cvmfs_py.cli.waiting_line import WAITING_LINE
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from cvmfs_py.mount.assemble import Wanted

SAVED_LIBRARIES = "_CVMFS_PY_LD_LIBRARY_PATH"  # put aside by `__main__`, which can import nothing


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Run a command as the same user, in a private namespace in which the repositories are at /cvmfs/REPO. Needs no"
        " rights but user namespaces; exit code, signals and terminal are the command's. Nothing stays behind.",
        "cvmfs-py exec sft.cern.ch -- ls /cvmfs/sft.cern.ch",
        more=(
            "cvmfs-py exec sft.cern.ch@v1 atlas.cern.ch -- ./analysis.sh",
            "cvmfs-py exec --all -- make",
        ),
    )
    parser.add_argument(
        "repositories", metavar="REPO", nargs="*", default=[], help="FQRN, FQRN@TAG or URL; then -- and the command"
    )
    add_confinement_options(parser)
    parser.set_defaults(words=[])
    return parser


def add_confinement_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="every repository: each appears when its name is asked for")
    parser.add_argument("--no-pid-namespace", action="store_true", help="the command sees all processes of the machine")
    add_engine_option(parser)
    common.add_repository_options(parser)


def run(options: argparse.Namespace) -> int:
    if not options.words:
        raise UsageError("write the command behind a --, for example: cvmfs-py exec sft.cern.ch -- ls /cvmfs")
    return run_confined(options, options.words)


def run_confined(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command's exit code; a signal that ended it ends this process, too."""
    from cvmfs_py.cli.failures import explain
    from cvmfs_py.cli.session import wanted
    from cvmfs_py.mount import supervision
    from cvmfs_py.mount.confined import ConfinedDaemon
    from cvmfs_py.mount.confinement import Command
    from cvmfs_py.mount.confinement import run as run_command

    if options.all == bool(options.repositories):
        raise UsageError("name the repositories, or say --all")
    requests: list[tuple[Wanted, str | None]] = []
    if options.all:
        if options.engine == "pyfuse3" or options.tag or options.date or options.root_hash:
            raise UsageError("--all needs the engine channel, and pins no snapshot")
        requests.append((wanted(common.request_for_all(options)), None))
    for text in options.repositories:
        request = common.request_of(options, text)
        if request.target.path:
            raise UsageError(f"{text}: only whole repositories are mounted; leave out the path")
        if options.engine is not None:
            request.overrides["CVMFS_PY_ENGINE"] = options.engine
        requests.append((wanted(request), request.target.tag))
    own_processes = False if options.no_pid_namespace else None
    command = Command(words, surroundings(os.environ), own_processes)
    daemon = ConfinedDaemon(requests, explain, WAITING_LINE if WAITING_LINE.is_usable else None)
    try:
        code = run_command(daemon, command)
    except KeyboardInterrupt:
        WAITING_LINE.withdraw_of_child()
        raise
    return supervision.end_alike(code)


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the user has set up, also what this program has put aside for itself (see `__main__`)."""
    restored = dict(environment)
    libraries = restored.pop(SAVED_LIBRARIES, None)
    if libraries is not None:
        restored["LD_LIBRARY_PATH"] = libraries
    return restored
