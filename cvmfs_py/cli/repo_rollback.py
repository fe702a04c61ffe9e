"""`cvmfs-py repo rollback`: the command line of going back; `publish.publication` does the work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import write_json
from cvmfs_py.cli.publication_record import publication_record, publication_sentence

if TYPE_CHECKING:
    import argparse


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Publish again what was published before, as a new revision: clients never go back to an old one. Without --tag"
        " it takes back the last publication; a second time, it brings that back.",
        f"{prog} /srv/my.example.org --tag v1",
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("--tag", metavar="NAME", default="trunk-previous", help="go back to this one (trunk-previous)")
    parser.add_argument("--drop-later", action="store_true", help="remove the tags of all later revisions")
    parser.add_argument("--no-auto-tag", action="store_true", help="no automatic tag generic-TIME for the new revision")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.publish.publication import Publication

    with Publication(options.storage) as publication:
        published = publication.roll_back(
            options.tag, drop_later=options.drop_later, automatic_tag=not options.no_auto_tag
        )
        for warning in publication.warnings:
            print(f"cvmfs-py: {warning}", file=sys.stderr)
    if options.json:
        write_json(publication_record(published) | {"contents_of": options.tag})
    else:
        print(f"{publication_sentence(published)}: the contents of {options.tag}")
    return 0
