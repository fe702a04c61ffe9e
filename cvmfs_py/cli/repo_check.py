"""`cvmfs-py repo check`: checks a whole repository on its storage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, write_json

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.keys import MasterKey

SHOWN_PROBLEMS = 100
_KEY_LIMIT_BYTES = 64 << 10


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Check a whole repository on its storage: signatures, catalogs, counters, and that every object is there; with"
        " --data that every object is what its hash says.",
        "cvmfs-py repo check ./my.repo.org",
        more=("cvmfs-py repo check --data --all-tags ./my.repo.org",),
    )
    parser.add_argument("directory", metavar="DIR", help="storage of the repository")
    parser.add_argument("--data", action="store_true", help="read and verify every object too")
    parser.add_argument("--all-tags", action="store_true", help="the snapshots of all tags too, not only the newest")
    parser.add_argument("--key", metavar="FILE", action="append", help="master public key (default: in DIR.keys)")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.errors import IntegrityError
    from cvmfs_py.publish.consistency import check_repository

    storage, fqrn, keys = open_storage(options.directory, options.key)
    with Progress("checked", quiet=options.quiet or options.json) as progress:
        report = check_repository(
            storage, fqrn, keys, data=options.data, every_snapshot=options.all_tags, advance=progress.advance
        )
    if options.json:
        write_json(
            {
                "fqrn": fqrn,
                "snapshots": report.snapshots,
                "catalogs": report.catalogs,
                "entries": report.entries,
                "objects": report.objects,
                "problems": report.problems,
                "remarks": report.remarks,
            }
        )
    else:
        for problem in report.problems[:SHOWN_PROBLEMS]:
            print(f"cvmfs-py repo check: {problem}", file=sys.stderr)
        for remark in report.remarks:
            print(remark)
        verdict = "everything is right" if not report.problems else "see above"
        print(
            f"{fqrn}: {counted(report.snapshots, 'snapshot')}, {counted(report.catalogs, 'catalog')},"
            f" {counted(report.entries, 'entry', 'entries')},"
            f" {counted(report.objects, 'object')}: {verdict}"
        )
    if report.problems:
        raise IntegrityError(f"{counted(len(report.problems), 'problem')} in {fqrn}")
    return 0


def open_storage(directory: str, key_files: list[str] | None) -> tuple[Storage, str, tuple[MasterKey, ...]]:
    """A repository's storage, its name, and the keys that must have signed it."""
    from cvmfs_py.config.files import read_small_file
    from cvmfs_py.errors import ConfigError
    from cvmfs_py.publish.place import find_name, find_place
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.keys import parse_master_key

    files = [Path(file) for file in key_files or ()]
    fqrn = find_name(Path(directory))
    if not files:
        files = [find_place(directory).public_key_file]
    keys = []
    for file in files:
        try:
            keys.append(parse_master_key(read_small_file(file, _KEY_LIMIT_BYTES), str(file)))
        except FileNotFoundError as error:
            raise ConfigError(f"the master key {file} does not exist") from error
    return Storage(directory), fqrn, tuple(keys)
