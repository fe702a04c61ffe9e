"""`cvmfs-py mount.cvmfs`, `cvmfs-py cvmfs2`: the programs of the reference client, with their options and exit codes.

For mount(8), autofs, container runtimes and scripts that call these. The command also answers to these names itself: a
link of the name `mount.cvmfs` or `cvmfs2` to `cvmfs-py` is enough.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfs_py.mount.daemonize import Failure
    from cvmfs_py.mount.options import MountRequest

HELPER_USAGE = """\
usage: mount.cvmfs [-fnsv] [-o OPTIONS] REPOSITORY MOUNTPOINT

Mounts a repository for everybody; what mount -t cvmfs calls. -f only says what would be done, -s passes over options
that are not known.

example: mount -t cvmfs sft.cern.ch /cvmfs/sft.cern.ch
exit codes: 0 mounted, 1 refused, 32 failed
"""
CVMFS2_USAGE = """\
usage: cvmfs2 [-dfk] [-o OPTIONS] REPOSITORY MOUNTPOINT

Mounts a repository; in the background unless -f is given, also behind everything else. MOUNTPOINT may be /dev/fd/N, a
descriptor that is mounted already. -k only shows the parameters.

example: cvmfs2 -o config=my.conf sft.cern.ch /cvmfs/sft.cern.ch
exit codes: those of the reference client's cvmfs2
"""


def run_helper(arguments: Sequence[str]) -> int:
    """`mount.cvmfs`, as mount(8) calls it."""
    from cvmfs_py.errors import CvmfsError, UsageError
    from cvmfs_py.mount.options import Answer, parse_mount_helper
    from cvmfs_py.mount.reference_codes import HELPER_REFUSED, Cvmfs2Code, helper_code

    try:
        request = parse_mount_helper(arguments, Path.cwd())
    except UsageError as error:
        print(f"{error}\n\n{HELPER_USAGE}", file=sys.stderr, end="")
        return HELPER_REFUSED
    if isinstance(request, Answer):
        print(HELPER_USAGE, end="")
        return 0
    try:
        fqrn = _full_name(request)
    except CvmfsError as error:
        print(error, file=sys.stderr)
        return HELPER_REFUSED
    if request.is_remount:
        if _is_mounted(fqrn, request):
            return 0
        print(f"Repository {fqrn} is not mounted on {os.fsdecode(request.mountpoint)}", file=sys.stderr)
        return HELPER_REFUSED
    if _is_mounted(fqrn, request):
        print(f"Repository {fqrn} is already mounted on {os.fsdecode(request.mountpoint)}", file=sys.stderr)
        return HELPER_REFUSED
    if request.is_dry_run:
        print(shlex.join(["cvmfs2", *arguments]))
        return 0
    return helper_code(Cvmfs2Code(_mount(request)))


def run_cvmfs2(arguments: Sequence[str]) -> int:
    """`cvmfs2`, as scripts and container runtimes call it."""
    from cvmfs_py.errors import CvmfsError, UsageError
    from cvmfs_py.mount.options import Answer, parse_cvmfs2
    from cvmfs_py.mount.reference_codes import Cvmfs2Code, format_failure

    try:
        request = parse_cvmfs2(arguments, Path.cwd())
    except UsageError as error:
        print(format_failure(str(error), Cvmfs2Code.OPTIONS), file=sys.stderr)
        return Cvmfs2Code.OPTIONS
    if request is Answer.VERSION:
        print(f"CernVM-FS version {__version__} (cvmfs-py)\n")
        return 0
    if request is Answer.HELP:
        print(CVMFS2_USAGE, end="")
        return 0
    assert not isinstance(request, Answer)
    try:
        fqrn = _full_name(request)
    except CvmfsError as error:
        print(format_failure(str(error), Cvmfs2Code.OPTIONS), file=sys.stderr)
        return Cvmfs2Code.OPTIONS
    if request.only_parameters:
        from cvmfs_py.cli.app import run

        files = [] if request.config_files is None else ["--config", ":".join(map(str, request.config_files))]
        return run(["config", "show", *files, fqrn])
    if _is_mounted(fqrn, request):
        print(f"CernVM-FS: repository {fqrn} already mounted on {os.fsdecode(request.mountpoint)}")
        return 0
    return _mount(request)


def _mount(request: MountRequest) -> int:
    """The exit code of cvmfs2."""
    from cvmfs_py import logs
    from cvmfs_py.cli.failures import describe, unwrap
    from cvmfs_py.cli.mount import start
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.daemonize import DaemonError, Failure
    from cvmfs_py.mount.reference_codes import Cvmfs2Code, cvmfs2_code, format_failure
    from cvmfs_py.mount.session import MountPlan

    def explain(error: BaseException) -> Failure:
        inner = unwrap(error)
        return Failure(cvmfs2_code(inner), describe(inner))

    logs.start(debug=request.debug)
    place = os.fsdecode(request.mountpoint)
    if request.descriptor is None and not os.path.lexists(request.mountpoint):
        code = Cvmfs2Code.PERMISSION
        print(format_failure(f"Mount point {place} does not exist", code), file=sys.stderr)
        return code
    wanted = Wanted(request.name, request.overrides, request.config_files, request.simple_parsing)
    plan = MountPlan(wanted, place, request.allow_other)
    _give_mountpoint(request)
    try:
        start(plan, foreground=request.foreground, debug=request.debug, explain=explain, quiet=True)
    except DaemonError as error:
        code = Cvmfs2Code(error.exit_code) if error.exit_code in set(Cvmfs2Code) else Cvmfs2Code.UNKNOWN
        print(format_failure(str(error), code), file=sys.stderr)
        return code
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the last guard: codes are the reference's
        failure = explain(error)
        print(format_failure(failure.message, Cvmfs2Code(failure.exit_code)), file=sys.stderr)
        return failure.exit_code
    if request.descriptor is not None:
        print(f"CernVM-FS: pre-mounted on file descriptor {request.descriptor}")
    elif not request.foreground:
        print(f"CernVM-FS: mounted cvmfs on {place}")
    return 0


def _full_name(request: MountRequest) -> str:
    from cvmfs_py.config.load import resolve_fqrn
    from cvmfs_py.fuse.mountpoint import check_reachable

    if request.descriptor is None:
        check_reachable(os.fsdecode(request.mountpoint))
    return resolve_fqrn(
        request.name, environment=dict(os.environ), config_files=request.config_files, overrides=request.overrides
    )


def _is_mounted(fqrn: str, request: MountRequest) -> bool:
    """Whether this repository is at the mount point already, and answers."""
    from cvmfs_py.fuse import mountpoint
    from cvmfs_py.fuse.mountinfo import mount_at

    place = os.fsdecode(request.mountpoint)
    mount = None if request.descriptor is not None else mount_at(place)
    if mount is None or mount.kind != mountpoint.OUR_KIND or mount.source != fqrn:
        return False
    return mountpoint.probe(place) is mountpoint.Life.ALIVE


def _give_mountpoint(request: MountRequest) -> None:
    """Whoever the mount is for may unmount it, too, with the programs for users."""
    if request.takes_mountpoint and request.user_id is not None and request.group_id is not None:
        os.chown(request.mountpoint, request.user_id, request.group_id)
