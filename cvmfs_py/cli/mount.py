"""`cvmfs-py mount`: mounts a repository, in the background unless it is told to stay."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import logs
from cvmfs_py.cli import options as common
from cvmfs_py.cli.waiting_line import WAITING_LINE
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cvmfs_py.mount.daemonize import Announcer, Failure
    from cvmfs_py.mount.session import MountPlan

READY_DEADLINE_S = 600.0  # the first catalog of a large repository over a slow line


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Mount a repository. The command returns when the mount answers; a daemon serves it until it is unmounted."
        " Without a mountpoint it is /cvmfs/REPO for root, for others a directory of their own, which is printed.",
        "cvmfs-py mount sft.cern.ch /cvmfs/sft.cern.ch",
        more=("cvmfs-py mount sft.cern.ch@v1 ~/sft-v1", "cvmfs-py mount --all /cvmfs"),
    )
    parser.add_argument("repository", metavar="REPO", nargs="?", help="FQRN, FQRN@TAG or URL")
    parser.add_argument(
        "mountpoint",
        metavar="MOUNTPOINT",
        nargs="?",
        help="a directory, made when only the last of its path is missing; or /dev/fd/N",
    )
    parser.add_argument(
        "--all",
        metavar="DIR",
        nargs="?",
        const="",
        help="every repository below this directory: each appears when its name is asked for",
    )
    parser.add_argument(
        "--repositories",
        metavar="NAMES",
        dest="listed",
        default="",
        help="with --all: names to list from the start, a,b",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, until it is unmounted")
    parser.add_argument("--allow-other", action="store_true", help="other users may use it, too (root: always)")
    add_engine_option(parser)
    common.add_repository_options(parser)
    return parser


def add_engine_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        metavar="NAME",
        choices=("channel", "pyfuse3"),
        help="who speaks with the kernel: channel or pyfuse3 (CVMFS_PY_ENGINE)",
    )


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import wanted
    from cvmfs_py.fuse.mountpoint import check_reachable
    from cvmfs_py.mount.session import MountPlan

    if options.all is not None:
        return _run_all(options)
    if options.repository is None:
        raise UsageError("name the repository, or say --all")
    request = common.request_of(options, options.repository)
    if request.target.path:
        raise UsageError(f"{options.repository}: only whole repositories are mounted; leave out the path")
    if options.engine is not None:
        request.overrides["CVMFS_PY_ENGINE"] = options.engine
    place = options.mountpoint or _default_mountpoint(wanted(request).name, request.target.tag)
    check_reachable(place)  # here already: what follows may take its time
    plan = MountPlan(wanted(request), os.path.abspath(place), options.allow_other)
    return start(plan, foreground=options.foreground, debug=options.debug)


def _run_all(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.session import MountPlan

    if options.repository is not None or options.tag or options.date or options.root_hash:
        raise UsageError("with --all no repository is named, and no snapshot can be pinned")
    if options.engine == "pyfuse3":
        raise UsageError("the engine pyfuse3 serves one repository; --all needs the channel")
    request = common.request_for_all(options)
    place = options.all or _default_mountpoint("", None)
    wanted = Wanted("", request.overrides, request.config_files)
    names = tuple(name for name in options.listed.split(",") if name)
    plan = MountPlan(wanted, os.path.abspath(place), options.allow_other, names)
    return start(plan, foreground=options.foreground, debug=options.debug)


def start(
    plan: MountPlan,
    *,
    foreground: bool,
    debug: bool,
    explain: Callable[[BaseException], Failure] | None = None,
    quiet: bool = False,
) -> int:
    """Mounts; in the background it returns when the mount answers. `explain` is for who has exit codes of his own."""
    from cvmfs_py.mount.daemon_log import choose_log
    from cvmfs_py.mount.daemonize import ForegroundAnnouncer, start_daemon
    from cvmfs_py.mount.session import is_handed_over

    tells_waits = WAITING_LINE.is_usable and not quiet

    def work(announcer: Announcer) -> int:
        import trio

        from cvmfs_py.mount.limits import raise_descriptor_limit
        from cvmfs_py.mount.session import serve_mount
        from cvmfs_py.mount.waiting import start_telling

        async def serve() -> None:
            if tells_waits:
                start_telling(announcer.tell_wait, lambda: announcer.is_heard)
            await serve_mount(plan, announcer)

        raise_descriptor_limit()
        trio.run(serve, restrict_keyboard_interrupt_to_checkpoints=True)
        return 0

    if foreground:
        logs.never_wait()
        try:
            return work(ForegroundAnnouncer(WAITING_LINE))
        finally:
            WAITING_LINE.withdraw()
    kept = (int(Path(plan.mountpoint).name),) if is_handed_over(plan.mountpoint) else ()
    log = choose_log(os.fsencode(plan.mountpoint), os.environ, os.geteuid(), debug=debug)
    plan = replace(plan, log=log.path or b"")
    try:
        message = start_daemon(
            work,
            deadline_s=READY_DEADLINE_S,
            log=log,
            kept_fds=kept,
            explain=explain or _explain,
            hear=_hear,
            hear_wait=WAITING_LINE.offer,
        )
    finally:
        WAITING_LINE.withdraw()
    if message and not quiet:
        print(message)
    return 0


def _explain(error: BaseException) -> Failure:
    from cvmfs_py.cli.failures import EXIT_FAILURE, describe, unwrap
    from cvmfs_py.errors import CvmfsError
    from cvmfs_py.mount.daemonize import Failure

    inner = unwrap(error)
    return Failure(inner.exit_code if isinstance(inner, CvmfsError) else EXIT_FAILURE, describe(inner))


def _hear(text: str) -> None:
    from cvmfs_py.cli.session import warn

    warn([text])


def _default_mountpoint(name: str, tag: str | None) -> str:
    """/cvmfs/NAME for root, else in a directory that only its user can reach, made here."""
    from cvmfs_py.config.load import resolve_fqrn
    from cvmfs_py.errors import MountError
    from cvmfs_py.fuse.mountpoint import check_reachable
    from cvmfs_py.mount.runtime_directory import runtime_directory

    fqrn = resolve_fqrn(name, environment=dict(os.environ), config_files=None, overrides={}) if name else ""
    base = "/cvmfs"
    if os.geteuid() != 0:
        base = os.path.join(os.fsdecode(runtime_directory(os.environ, os.geteuid())), "mounts")
    place = os.path.join(base, fqrn if tag is None else f"{fqrn}@{tag.replace('/', '-')}")
    check_reachable(place)
    if os.geteuid() == 0:
        return place  # made when something is mounted there
    try:
        os.makedirs(place, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTCONN):  # a dead mount is there, and cannot be looked at
            raise MountError(f"cannot make the mountpoint {place}: {error.strerror}; name another one") from error
    return place
