"""The options that every command on a repository understands, and what they mean as settings. No I/O."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.cli.colours import MODES
from cvmfs_py.cli.parser import Parser
from cvmfs_py.config.target import Target, parse_target
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCHEMES = ("http://", "https://", "file://")
_SHORT_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class Request:
    """One repository as the command line asks for it."""

    target: Target
    overrides: dict[str, str]  # parameters set by options, as if by -o
    config_files: tuple[Path, ...] | None


def new_parser(prog: str, summary: str, example: str, *, more: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A parser with what every command understands."""
    parser = Parser(prog, summary, (example, *more))
    group = parser.add_argument_group("messages")
    group.add_argument("--debug", action="store_true", help="tell on standard error what is done and tried")
    group.add_argument(
        "--color",
        metavar="WHEN",
        choices=MODES,
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set; always; never",
    )
    return parser


def given(text: str) -> str:
    """An argument that has to say something: `--tag "$TAG"` without a TAG must not mean the newest revision."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def add_repository_options(parser: argparse.ArgumentParser, *, pins: bool = True) -> None:
    """Options that say how a repository is found, verified, cached and pinned."""
    group = parser.add_argument_group("repository")
    group.add_argument(
        "--server", metavar="URL", action="append", help="where it is served; repeat it for several (CVMFS_SERVER_URL)"
    )
    group.add_argument("--proxy", metavar="LIST", help="proxy groups, or DIRECT (CVMFS_HTTP_PROXY)")
    group.add_argument(
        "--key",
        metavar="FILE",
        type=given,
        action="append",
        help="master public key; repeat it for several (CVMFS_PUBLIC_KEY)",
    )
    group.add_argument("--keys-dir", metavar="DIR", type=given, help="directory of master public keys (CVMFS_KEYS_DIR)")
    add_local_options(group)
    if pins:
        pin = parser.add_argument_group("pin a snapshot (default: the newest revision)")
        pin.add_argument("--tag", metavar="NAME", type=given, help="the snapshot of this name (CVMFS_REPOSITORY_TAG)")
        pin.add_argument(
            "--date",
            metavar="TIME",
            type=given,
            help="as it was at YYYY-MM-DD[THH:MM:SSZ], UTC (CVMFS_REPOSITORY_DATE)",
        )
        pin.add_argument("--root-hash", metavar="HASH", type=given, help="exactly this root catalog (CVMFS_ROOT_HASH)")


def add_local_options(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Options that say where the cache and the configuration are."""
    group.add_argument("--cache-dir", metavar="DIR", type=given, help="use exactly this cache directory")
    group.add_argument(
        "--config",
        metavar="FILES",
        help="read these files, separated by ':', instead of those below /etc/cvmfs",
    )
    group.add_argument(
        "-o", metavar="NAME=VALUE", dest="parameters", action="append", help="set a CVMFS_* parameter; repeatable"
    )


def request_of(options: argparse.Namespace, target_text: str) -> Request:
    """What the options and the REPO argument mean together."""
    target = parse_target(target_text)
    if target.url is not None and options.server:
        raise UsageError(f"{target_text} is a URL already: leave out --server")
    return _request(options, target)


def request_for_all(options: argparse.Namespace) -> Request:
    """What the options mean for every repository."""
    return _request(options, Target("", None, None, b""))


def _request(options: argparse.Namespace, target: Target) -> Request:
    overrides = local_overrides(options)
    servers = [target.url] if target.url is not None else (options.server or [])
    for server in servers:
        if not server.lower().startswith(_SCHEMES):
            raise UsageError(f"{server!r} is no URL of a server: it must begin with http://, https:// or file://")
    if servers:
        overrides["CVMFS_SERVER_URL"] = ";".join(
            _base_url(part, target.name) for server in servers for part in server.split(";") if part
        )
    if options.proxy is not None:
        overrides["CVMFS_HTTP_PROXY"] = options.proxy
    if options.key:
        overrides["CVMFS_PUBLIC_KEY"] = ":".join(str(_absolute(key)) for key in options.key)
    if options.keys_dir is not None:
        overrides["CVMFS_KEYS_DIR"] = str(_absolute(options.keys_dir))
        if not options.key:
            overrides["CVMFS_PUBLIC_KEY"] = ""
    overrides.update(_pin_overrides(options, target))
    return Request(target, overrides, config_files_of(options))


def local_overrides(options: argparse.Namespace) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for text in options.parameters or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"-o {text}: write NAME=VALUE, for example -o CVMFS_TIMEOUT=3")
        overrides[name] = value
    if options.cache_dir is not None:
        overrides["CVMFS_PY_CACHE_DIR"] = str(_absolute(options.cache_dir))
    return overrides


def config_files_of(options: argparse.Namespace) -> tuple[Path, ...] | None:
    if options.config is None:
        return None
    return tuple(_absolute(part) for part in options.config.split(":") if part)


def _absolute(path: str) -> Path:
    try:
        return Path(path).absolute()
    except OSError as error:
        raise UsageError(f"{path}: the current directory is gone; give the whole path") from error


def _pin_overrides(options: argparse.Namespace, target: Target) -> dict[str, str]:
    given = {
        "--tag": getattr(options, "tag", None),
        "--date": getattr(options, "date", None),
        "--root-hash": getattr(options, "root_hash", None),
    }
    if target.tag is not None:
        given[f"@{target.tag}"] = target.tag
    chosen = {option: value for option, value in given.items() if value is not None}
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude one another: a snapshot is pinned in one way")
    if chosen.get("--root-hash", "?").strip("0") == "":
        raise UsageError("--root-hash: zeros stand for no hash; leave it out for the newest revision")
    names = {"--date": "CVMFS_REPOSITORY_DATE", "--root-hash": "CVMFS_ROOT_HASH"}
    for option, value in chosen.items():
        if option == "--date" and _SHORT_DATE.match(value):
            value += "T00:00:00Z"
        pin = names.get(option, "CVMFS_REPOSITORY_TAG")
        every = ("CVMFS_ROOT_HASH", "CVMFS_REPOSITORY_TAG", "CVMFS_REPOSITORY_DATE")
        return {name: value if name == pin else "" for name in every}
    return {}


def _base_url(server: str, name: str) -> str:
    """A server's base URL for one repository: a bare server is completed in the customary way."""
    server = server.rstrip("/")
    if "@fqrn@" in server or "@org@" in server or server.rpartition("/")[2] == name:
        return server
    return f"{server}/@fqrn@" if server.endswith("/cvmfs") else f"{server}/cvmfs/@fqrn@"
