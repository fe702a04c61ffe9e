"""Opens the repositories that a command names and runs the command's coroutine on them."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from cvmfs_py.cli.failures import report, unwrap
from cvmfs_py.cli.options import Request, request_of
from cvmfs_py.cli.output import one_line
from cvmfs_py.cli.transient_line import LINE
from cvmfs_py.cli.waiting_line import WAITING_LINE
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.roots import RootFinder

T = TypeVar("T")
OPEN_FILES = 1 << 16


def run_each(
    options: argparse.Namespace,
    targets: Sequence[str],
    work: Callable[[Repository, bytes, argparse.Namespace], Awaitable[Any]],
    *,
    fresh: bool = False,
) -> int:
    """Runs `work` for each REPO[:PATH]; a failure of one is reported and the others still run. The worst code wins."""
    requests = [request_of(options, text) for text in targets]
    return _run_all(options, [partial(_with_repository, request, work, options, fresh) for request in requests])


def run_together(
    options: argparse.Namespace,
    targets: Sequence[str],
    work: Callable[[Repository, Sequence[bytes], argparse.Namespace], Awaitable[Any]],
) -> int:
    """The same with all paths of one repository and snapshot together, in the order in which they are given."""
    groups: dict[object, tuple[Request, list[bytes]]] = {}
    for text in targets:
        request = request_of(options, text)
        key = (request.target.name, tuple(sorted(request.overrides.items())))
        groups.setdefault(key, (request, []))[1].append(request.target.path)

    async def run(request: Request, paths: list[bytes]) -> None:
        await _with_repository(request, lambda repository, _, given: work(repository, paths, given), options, False)

    return _run_all(options, [partial(run, request, paths) for request, paths in groups.values()])


def _run_all(options: argparse.Namespace, runs: Sequence[Callable[[], Awaitable[None]]]) -> int:
    worst = 0
    for run in runs:
        try:
            run_async(run)
        except (Exception, BaseExceptionGroup) as group:  # noqa: BLE001  # reported, and the next one still runs
            error = unwrap(group)
            try:
                if len(runs) == 1 or isinstance(error, BrokenPipeError | KeyboardInterrupt):
                    raise error from None
                LINE.hide()
                worst = max(worst, report(options.command, error))
            finally:
                del error  # its traceback has this frame
        sys.stdout.flush()
    return worst


def run_on_finder(
    options: argparse.Namespace,
    target: str,
    work: Callable[[RootFinder, argparse.Namespace], Awaitable[Any]],
) -> int:
    """Runs `work` with everything but a root: for commands that need only what vouches for roots."""
    request = request_of(options, target)
    if request.target.path or request.target.tag:
        raise UsageError(f"{target}: this is about the whole repository; leave out what comes after its name")
    run_async(_with_finder, request, work, options)
    return 0


def run_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """An event loop for one command. Ctrl-C arrives where the command waits, so that it leaves nothing half done."""
    _allow_open_files()
    try:
        return trio.run(_telling_waits, function, arguments, restrict_keyboard_interrupt_to_checkpoints=True)
    finally:
        WAITING_LINE.withdraw()


async def _telling_waits(function: Callable[..., Awaitable[T]], arguments: tuple[Any, ...]) -> T:
    if WAITING_LINE.is_usable:
        from cvmfs_py.mount.waiting import start_telling

        start_telling(WAITING_LINE.offer)
    return await function(*arguments)


def _allow_open_files() -> None:
    """As many as the system lets us: each pinned object is one, each directory on the way down a copied tree, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _with_repository(
    request: Request,
    work: Callable[[Repository, bytes, argparse.Namespace], Awaitable[Any]],
    options: argparse.Namespace,
    fresh: bool,
) -> None:
    from cvmfs_py.mount.assemble import load_wanted_settings, open_settled_repository

    settings, warnings = await load_wanted_settings(wanted(request))
    warn(warnings)  # at once: what is odd in the settings may be why it fails
    async with open_settled_repository(settings, [], fresh=fresh) as repository:
        warn(repository.warnings)
        await work(repository, request.target.path, options)


async def _with_finder(
    request: Request, work: Callable[[RootFinder, argparse.Namespace], Awaitable[Any]], options: argparse.Namespace
) -> None:
    from cvmfs_py.mount.assemble import load_wanted_settings, open_finder

    settings, warnings = await load_wanted_settings(wanted(request))
    warn(warnings)
    settings = replace(settings, root_hash=None)  # it needs no keys, but what this is about does
    more: list[str] = []
    async with open_finder(settings, more) as finder:
        await work(finder, options)
    warn(more)


def wanted(request: Request) -> Wanted:
    from cvmfs_py.mount.assemble import Wanted

    return Wanted(request.target.name, request.overrides, request.config_files)


def warn(warnings: Iterable[str]) -> None:
    for warning in dict.fromkeys(warnings):
        LINE.hide()
        print(f"cvmfs-py: {one_line(warning)}", file=sys.stderr)
