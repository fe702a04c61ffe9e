"""`cvmfs-py serve`: serves repository directories over HTTP."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cvmfs_py.cli import options as common
from cvmfs_py.errors import ConfigError, CvmfsError, UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.serving.server import LogLine
    from cvmfs_py.serving.sites import Site


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Serve repository directories over HTTP, each as /cvmfs/NAME. For tests, demonstrations and small sites; large"
        " ones put nginx before the same directory.",
        "cvmfs-py serve ./my.repo.org --port 8000",
        more=("cvmfs-py serve ./my.repo.org --delay 10 --fault 404=0.01  # to test a client",),
    )
    parser.add_argument("directories", metavar="DIR", nargs="+", help="storage of a repository, with .cvmfspublished")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default %(default)s)"
    )
    parser.add_argument(
        "--port", metavar="N", type=int, default=8000, help="port to listen on, 0 for any (default %(default)s)"
    )
    parser.add_argument("--name", metavar="FQRN", help="serve the one DIR under this name, instead of its own")
    parser.add_argument("-q", "--quiet", action="store_true", help="no access log")
    faults = parser.add_argument_group("faults on purpose, to test clients")
    faults.add_argument("--delay", metavar="MS", type=float, default=0.0, help="answer every request this much later")
    faults.add_argument(
        "--fault",
        metavar="KIND=RATE",
        action="append",
        default=[],
        help="this part of the answers is wrong: 404, 500, truncate, garbage or silent; repeatable",
    )
    faults.add_argument("--seed", metavar="N", type=int, help="the same faults again")
    return parser


def run(options: argparse.Namespace) -> int:
    if options.name is not None and len(options.directories) > 1:
        raise UsageError("--name is for one DIR")
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: a port is a number up to 65535")
    sites = tuple(_site(Path(directory), options.name) for directory in options.directories)
    if len({site.name for site in sites}) < len(sites):
        raise UsageError("two of these directories hold the same repository")
    trio.run(_serve, sites, options)
    return 0


def _site(directory: Path, name: str | None) -> Site:
    from cvmfs_py.serving.sites import Site

    manifest = directory / ".cvmfspublished"
    try:
        head = manifest.read_bytes()[: 64 << 10].partition(b"\n--\n")[0]
    except OSError as error:
        raise ConfigError(
            f"{directory} is no repository: cannot read {manifest.name}: {error.strerror};"
            " `cvmfs-py repo init` makes one"
        ) from error
    names = [line[1:].decode("latin-1") for line in head.split(b"\n") if line.startswith(b"N")]
    if name is None and not names:
        raise ConfigError(f"{manifest} names no repository; give its name with --name")
    return Site(name or names[-1], directory)


async def _serve(sites: tuple[Site, ...], options: argparse.Namespace) -> None:
    from cvmfs_py.serving.faults import Faults, parse_fault
    from cvmfs_py.serving.server import Server
    from cvmfs_py.serving.sites import Sites

    faults = Faults(options.delay / 1000, dict(map(parse_fault, options.fault)), random.Random(options.seed))
    server = Server(Sites(sites), _no_log if options.quiet else _log, faults)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            try:
                listeners = await nursery.start(server.run, options.host, options.port)
            except OSError as error:
                raise CvmfsError(
                    f"cannot listen on {options.host}:{options.port}: {error.strerror or error}"
                ) from error
            port = listeners[0].socket.getsockname()[1]
            host = f"[{options.host}]" if ":" in options.host else options.host
            for site in sites:
                print(f"serving {site.directory} at http://{host}:{port}/cvmfs/{site.name}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def _log(line: LogLine) -> None:
    sys.stderr.write(f"{line}\n")


def _no_log(line: LogLine) -> None:
    del line
