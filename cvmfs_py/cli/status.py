"""`cvmfs-py status`: how mounts are, as far as they tell it themselves; one that does not answer holds up nobody."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import date_text, one_line, size_text, write_json, write_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from cvmfs_py.mount.asking import Answer
    from cvmfs_py.mount.registry import ListedMount

LIMIT_S = 5.0
_SHOWN_MESSAGES = 3
EXIT_NOT_WELL = 5
_ASKED = (
    "fqrn",
    "revision",
    "tag",
    "root_hash",
    "expires",
    "host",
    "host_list",
    "proxy",
    "hitrate",
    "ndownload",
    "rx",
    "speed",
    "nioerr",
    "timestamp_last_ioerr",
    "logbuffer",
    "nclg",
    "usedfd",
    "uptime",
    "version",
    "cvmfspy_offline",
)


@dataclass(frozen=True, slots=True)
class _Status:
    """One repository of one mount."""

    mount: ListedMount
    directory: bytes
    answer: Answer
    is_asked: bool  # False: it cannot be, from here
    trouble: str  # empty: all is well


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show how mounts are: revision, server and proxy in use, how much comes from the cache, last errors. Without"
        " an argument it is about all mounts of this user. The exit code is 0 when all is well, and 5 when a mount is"
        " dead, does not answer, or no server vouches for what it shows.",
        "cvmfs-py status",
        more=("cvmfs-py status sft.cern.ch", "cvmfs-py status --json /cvmfs/sft.cern.ch"),
    )
    parser.add_argument("mounts", metavar="MOUNT", nargs="*", help="a mountpoint, or the FQRN of what is mounted")
    parser.add_argument("--json", action="store_true", help="as a JSON array, with everything that was asked")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.mounts_chosen import chosen_mounts

    found = list(_statuses(chosen_mounts(options.mounts)))
    if options.json:
        write_json([_value(each) for each in found])
    else:
        if not found:
            print("cvmfs-py status: this user has mounted nothing", file=sys.stderr)
        for number, each in enumerate(found):
            for line in ([""] if number else []) + _lines(each):
                write_line(line.encode("utf-8", "surrogateescape"))
    return EXIT_NOT_WELL if any(each.trouble for each in found) else 0


def _statuses(mounts: Sequence[ListedMount]) -> Iterator[_Status]:
    from cvmfs_py.mount.asking import Answer, ask_mounts
    from cvmfs_py.mount.ending import is_unmounted_from_here
    from cvmfs_py.mount.registry import MountState

    asked = [each for each in mounts if each.state is MountState.MOUNTED and is_unmounted_from_here(each)]
    answers = dict(zip(asked, ask_mounts([each.record.mountpoint for each in asked], _ASKED, LIMIT_S), strict=True))
    for mount in mounts:
        place = mount.record.mountpoint
        if mount not in answers:
            is_dead = mount.state is MountState.BROKEN
            trouble = "its daemon has ended, and every access fails; mount it again over this" if is_dead else ""
            yield _Status(mount, place, Answer(), False, trouble)
            continue
        if not answers[mount]:
            yield _Status(mount, place, Answer(), True, "")
        for name, answer in answers[mount].items():
            trouble = answer.trouble or answer.values.get("cvmfspy_offline", "")
            yield _Status(mount, os.path.join(place, name.encode("latin-1")) if name else place, answer, True, trouble)


def _value(status: _Status) -> dict[str, Any]:
    record, values = status.mount.record, status.answer.values
    lists = {"logbuffer": values.get("logbuffer", "").splitlines(), "host_list": _hosts(values)}
    return {
        "fqrn": values.get("fqrn", record.fqrn),
        "mountpoint": status.directory.decode("latin-1"),
        "state": status.mount.state.value,
        "well": not status.trouble,
        "trouble": status.trouble or None,
        "pid": record.process.pid,
        "user": status.mount.user_id,
        "since": date_text(int(record.started_at_s)),
        "engine": record.engine,
        "log": record.log.decode("latin-1") or None,
        "cache": record.cache_dir.decode("latin-1"),
        "cache_used_bytes": status.answer.cache_used_bytes,
        "cache_limit_bytes": status.answer.cache_limit_bytes,
        "attributes": values | {name: value for name, value in lists.items() if name in values},
    }


def _hosts(values: dict[str, str]) -> list[str]:
    return [host for host in values.get("host_list", "").split(";") if host]


def _lines(status: _Status) -> list[str]:
    record, values = status.mount.record, status.answer.values
    fqrn = values.get("fqrn", record.fqrn)
    what = "every repository, none of them in use," if fqrn == "*" else fqrn
    lines = [f"{what} at {os.fsdecode(status.directory)}: {'trouble' if status.trouble else 'well'}"]
    if status.trouble:
        lines.append(_field("trouble", one_line(status.trouble)))
    elif not status.is_asked:
        lines.append(_field("not asked", "its mount is in another namespace, and cannot be seen from here"))
    lines += _of_repository(values) if "revision" in values else []
    if not values and fqrn != "*":
        tag = f" (tag {record.tag})" if record.tag else ""
        lines.append(_field("revision", f"{record.revision}{tag} when it was heard last, root hash {record.root_hash}"))
    used_bytes, limit_bytes = status.answer.cache_used_bytes, status.answer.cache_limit_bytes
    room = ""
    if used_bytes is not None and limit_bytes:
        full = f" of {size_text(limit_bytes)}" if limit_bytes != used_bytes else ", without a limit"
        room = f"{size_text(used_bytes)}{full} in "
    lines.append(_field("cache", room + os.fsdecode(record.cache_dir)))
    version = f", version {values['version']}" if "version" in values else ""
    since = date_text(int(record.started_at_s))
    lines.append(_field("daemon", f"pid {record.process.pid} since {since}, engine {record.engine}{version}"))
    if record.log:
        lines.append(_field("log", os.fsdecode(record.log)))
    return lines


def _of_repository(values: dict[str, str]) -> list[str]:
    tag = f" (tag {values['tag']})" if values.get("tag") else ""
    expires = values.get("expires", "")
    if expires.lstrip("-").isdigit():
        minutes = max(0, int(expires))
        news = f"asks for a newer one in {f'{minutes} min' if minutes else 'less than a minute'}"
    else:
        news = "stays at it"
    hosts = _hosts(values)
    server = values.get("host", "none") + (f" (in use, of {len(hosts)})" if len(hosts) > 1 else "")
    hits = values.get("hitrate", "n/a")
    speed = values.get("speed", "n/a")
    lines = [
        _field("revision", f"{values['revision']}{tag}, {news}"),
        _field("root hash", values.get("root_hash", "")),
        _field("server", server),
        _field("proxy", values.get("proxy", "none")),
        _field(
            "hit rate", "nothing was asked yet" if hits == "n/a" else f"{hits} % of all requests needed no download"
        ),
        _field(
            "received",
            f"{size_text(int(values.get('rx', '0')) * 1024)} in {values.get('ndownload', '0')} downloads"
            + ("" if speed == "n/a" else f", {speed} KiB/s"),
        ),
    ]
    failures = values.get("nioerr", "0")
    when = values.get("timestamp_last_ioerr", "0")
    last = f", the last one at {date_text(int(when))}" if when not in ("", "0") and when.isdigit() else ""
    lines.append(_field("I/O errors", failures + last))
    messages = values.get("logbuffer", "").splitlines()
    lines += [
        _field("" if number else "messages", one_line(text)) for number, text in enumerate(messages[:_SHOWN_MESSAGES])
    ]
    return lines


def _field(name: str, text: str) -> str:
    return f"  {name:<11} {text}".rstrip()
