"""`cvmfs-py cache`: looks after the local cache: how full it is, what is in it, what stays."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import cache_pins
from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, one_line, size_text, write_json, write_json_line, write_line
from cvmfs_py.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    import argparse

    from cache.store import Store

ACTIONS = {
    "status": "how full it is, and what is pinned",
    "ls": "every object, the most recently used first",
    "gc": "evict the least recently used, down to --to or half of the limit",
    "check": "verify every object; corrupt ones are removed, to be fetched anew",
    "pin": "fetch all below each REPO:PATH and keep it; repeated, it goes on",
    "unpin": "let go of what was pinned under these names",
    "pins": "what is pinned, and how much of it is here",
}
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Look after the local cache.\n\n" + "\n".join(f"  {name:<7} {text}" for name, text in ACTIONS.items()),
        "cvmfs-py cache status",
        more=(
            "cvmfs-py cache gc --to 2G",
            "cvmfs-py cache pin sft.cern.ch@v1:/lcg/releases/ROOT",
            "cvmfs-py cache pin --from-file list.txt",
        ),
    )
    parser.add_argument("action", metavar="ACTION", choices=tuple(ACTIONS), help="one of the above")
    parser.add_argument("targets", metavar="REPO:PATH", nargs="*", help="with pin and unpin (there a pin's name too)")
    parser.add_argument(
        "--from-file",
        metavar="FILE",
        type=common.given,
        help="with pin and unpin: more of them, one a line; - for input",
    )
    parser.add_argument("--to", metavar="SIZE", help="with gc: evict until this much is left, for example 500M or 0")
    parser.add_argument("--json", action="store_true", help="as JSON; ls and check print one object a line")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    if options.action == "pin":
        return cache_pins.pin(options)
    if options.action != "unpin" and (options.targets or options.from_file):
        raise UsageError(f"{options.action} is about the whole cache; leave out {(*options.targets, '--from-file')[0]}")
    works = {
        "status": _status,
        "ls": _list,
        "gc": _collect,
        "check": _check,
        "unpin": cache_pins.unpin,
        "pins": cache_pins.pins,
    }
    work = works[options.action]
    with _open_store(options) as store:
        work(store, options)
    return 0


def _open_store(options: argparse.Namespace) -> Store:
    from cvmfs_py.cli.session import warn
    from cvmfs_py.config.load import load_settings
    from cvmfs_py.mount.wiring import open_store

    settings = load_settings(
        "",
        environment=dict(os.environ),
        config_files=common.config_files_of(options),
        overrides=common.local_overrides(options),
    )
    warn(settings.warnings)
    if options.cache_dir is not None and not settings.cache_dir.exists():
        raise UsageError(f"there is no cache in {settings.cache_dir}")
    return open_store(settings)


def _status(store: Store, options: argparse.Namespace) -> None:
    status = store.status()
    pins = store.named_pins()
    if options.json:
        write_json(
            {
                "directory": status.directory,
                "used_bytes": status.used_bytes,
                "objects": status.objects,
                "catalogs": status.catalogs,
                "limit_bytes": status.limit_bytes,
                "pinned_bytes": status.pinned_bytes,
                "disk_free_bytes": status.disk_free_bytes,
                "lower_tiers": list(status.lower_tiers),
                "read_only": status.read_only,
                "pins": [cache_pins.pin_record(store, pin) for pin in pins],
            }
        )
        return
    limit = "no limit" if status.limit_bytes is None else f"limit {size_text(status.limit_bytes)}"
    print(f"directory   {status.directory}" + (" (read-only)" if status.read_only else ""))
    print(f"used        {size_text(status.used_bytes)} in {counted(status.objects, 'object')}, {limit}")
    print(f"catalogs    {status.catalogs:,}")
    print(f"pinned      {size_text(status.pinned_bytes)}")
    if status.disk_free_bytes is not None:
        print(f"disk free   {size_text(status.disk_free_bytes)}")
    for tier in status.lower_tiers:
        print(f"lower tier  {tier}")
    for pin in pins:
        print(f"pin         {one_line(pin.label)}: {cache_pins.pin_state(store, pin)}")


def _list(store: Store, options: argparse.Namespace) -> None:
    for entry in store.entries():
        kind = "unknown" if entry.kind is None else entry.kind.name.lower()
        if options.json:
            write_json_line(
                {
                    "hash": str(entry.content_hash),
                    "size_bytes": entry.size_bytes,
                    "kind": kind,
                    "volatile": entry.volatile,
                    "pinned": entry.pinned,
                    "label": entry.label,
                }
            )
        else:
            mark = "*" if entry.pinned else " "
            line = f"{entry.content_hash} {entry.size_bytes:>12} {kind:<11}{mark} {entry.label}"
            write_line(line.encode("utf-8", "surrogateescape"))


def _collect(store: Store, options: argparse.Namespace) -> None:
    limit = store.status().limit_bytes
    if options.to is not None:
        target_bytes = parse_size(options.to)
    elif limit is not None:
        target_bytes = limit // 2
    else:
        raise UsageError("this cache has no limit: say how much is to be left, for example --to 2G")
    report = store.cleanup(target_bytes)
    if options.json:
        write_json(
            {
                "removed_objects": report.removed_objects,
                "freed_bytes": report.freed_bytes,
                "remaining_bytes": report.remaining_bytes,
                "spared_objects": report.spared_objects,
            }
        )
        return
    spared = f", {report.spared_objects:,} pinned spared" if report.spared_objects else ""
    print(
        f"removed {counted(report.removed_objects, 'object')} with {size_text(report.freed_bytes)},"
        f" {size_text(report.remaining_bytes)} are left{spared}"
    )


def _check(store: Store, options: argparse.Namespace) -> None:
    from cache.reports import Verdict
    from cvmfs_py.cli.progress import Progress

    counts = dict.fromkeys(Verdict, 0)
    with Progress("checked", quiet=options.quiet or options.json) as progress:
        if progress.is_drawn and not store.lower:
            status = store.status()
            progress.expect(status.objects, status.used_bytes)
        for checked in store.check():
            counts[checked.verdict] += 1
            progress.advance(checked.size_bytes)
            if checked.verdict is Verdict.OK:
                continue
            if options.json:
                write_json_line(
                    {
                        "where": checked.where,
                        "verdict": checked.verdict.value,
                        "reason": checked.reason,
                        "removed": checked.removed,
                    }
                )
            elif checked.verdict is Verdict.CORRUPT:
                action = "removed" if checked.removed else "left alone"
                progress.hide()
                print(f"cvmfs-py: {one_line(checked.where)} {checked.reason}; {action}", file=sys.stderr)
    words = ", ".join(f"{count:,} {verdict.value}" for verdict, count in counts.items() if count)
    if not options.json:
        print(f"checked {counted(sum(counts.values()), 'object')}: {words or 'the cache is empty'}")
    if counts[Verdict.CORRUPT]:
        raise IntegrityError(
            f"corrupt: {counted(counts[Verdict.CORRUPT], 'object')}; what is missing is fetched when needed"
        )


def parse_size(text: str) -> int:
    """Bytes; K, M, G and T are powers of 1024."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size; write for example 500M or 2G")
    whole, fraction, unit = match.groups(default="")
    unit_bytes: int = 1024 ** ("", "K", "M", "G", "T").index(unit.upper())
    return int(whole + fraction) * unit_bytes // int(10 ** len(fraction))
