"""`cvmfs-py doctor`: looks at everything that a mount needs, in order, and says what is wrong and how to cure it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.colours import Colour
from cvmfs_py.cli.output import one_line, write_json, write_line
from cvmfs_py.errors import MountError, UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.diagnosis import Check

COLOURS = {"OK": Colour.GOOD, "WARNING": Colour.DOUBTFUL, "FAILED": Colour.BAD}
_INDENT = 28


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Find out why a mount does not work here: device, rights, user namespaces, what is mounted, configuration,"
        " keys, network, signatures, clock, cache and limits, in this order, each with a cure.\n\n"
        "The exit code is 0 when a mount can work in at least one way, else 3.",
        "cvmfs-py doctor sft.cern.ch",
        more=("cvmfs-py doctor --json",),
    )
    parser.add_argument("repository", metavar="REPO", nargs="?", help="FQRN or URL; without one, only the machine")
    parser.add_argument("--json", action="store_true", help="as JSON")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.diagnosis import can_mount, check_machine
    from cvmfs_py.mount.machine import gather_facts

    wanted = _wanted(options)
    # Before the event loop: mounting is tried in processes that are forked.
    checks = check_machine(gather_facts())
    checks.append(_check_mounts(wanted))
    checks += _check_the_rest(wanted)
    if options.json:
        write_json(
            {
                "can_mount": can_mount(checks),
                "checks": [
                    {"name": check.name, "outcome": check.outcome.value, "found": check.found, "cure": check.cure}
                    for check in checks
                ],
            }
        )
    else:
        for check in checks:
            for line in _lines(check):
                write_line(
                    line.encode("utf-8", "surrogateescape"), check.outcome.value, COLOURS.get(check.outcome.name)
                )
    sys.stdout.flush()  # the conclusion comes last, wherever both go
    if not can_mount(checks):
        raise MountError("a mount cannot work here as it is; see what has failed")
    return 0


def _wanted(options: argparse.Namespace) -> Wanted:
    from cvmfs_py.mount.assemble import Wanted

    if options.repository is None:
        return Wanted("", common.local_overrides(options), common.config_files_of(options))
    request = common.request_of(options, options.repository)
    if request.target.path:
        raise UsageError(f"{options.repository}: a whole repository is mounted; leave out the path")
    return Wanted(request.target.name, request.overrides, request.config_files)


def _check_mounts(wanted: Wanted) -> Check:
    from cvmfs_py.fuse.mountinfo import load_mounts
    from cvmfs_py.mount.mounts_diagnosis import judge_mounts
    from cvmfs_py.mount.registry import MountState, list_mounts
    from cvmfs_py.mount.unrecorded import ask, find_unrecorded

    listed = [each for each in list_mounts(os.environ, os.geteuid()).mounts if each.state is not MountState.ELSEWHERE]
    places = [each.record.mountpoint for each in listed]
    lives = ask([os.fsdecode(place) for place in places])
    return judge_mounts(listed, lives, find_unrecorded(load_mounts(), places, os.geteuid()), wanted.name)


def _check_the_rest(wanted: Wanted) -> list[Check]:
    from cvmfs_py.cli.session import run_async
    from cvmfs_py.mount.repository_diagnosis import check_repository
    from cvmfs_py.mount.room_diagnosis import check_cache, check_descriptors

    checks, settings = run_async(check_repository, wanted)
    if settings is not None:
        checks.append(check_cache(settings))
    return [*checks, check_descriptors()]


def _lines(check: Check) -> list[str]:
    lines = [f"{check.outcome.value:<10}  {check.name:<14}  {one_line(check.found)}"]
    if check.cure:
        lines.append(f"{'':<{_INDENT}}cure: {one_line(check.cure)}")
    return lines
