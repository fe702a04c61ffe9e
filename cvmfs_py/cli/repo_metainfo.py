"""`cvmfs-py repo metainfo`: the command line of describing a repository; `publish.publication` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import write_json
from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    import argparse

_LIMIT_BYTES = (1 << 20) + 1


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Describe the repository: a JSON object, by custom with administrator, email, organisation, description, url,"
        " recommended-stratum0 and recommended-stratum1s. Clients show it as it is.",
        f"{prog} /srv/my.example.org description.json",
        more=(f"{prog} /srv/my.example.org -  # from standard input",),
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("file", metavar="FILE", help="the description; - is standard input")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.publish.publication import Publication

    content = _read(options.file)
    with Publication(options.storage) as publication:
        content_hash = publication.set_metainfo(content)
        for warning in publication.warnings:
            print(f"cvmfs-py: {warning}", file=sys.stderr)
        fqrn = publication.manifest.fqrn
    if options.json:
        write_json({"fqrn": fqrn, "metainfo": str(content_hash)})
    else:
        print(f"the description of {fqrn} is {content_hash}")
    return 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_LIMIT_BYTES)
    try:
        with Path(name).open("rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError as error:
        raise PublishError(f"{name} cannot be read: {error.strerror}") from error
