"""`cvmfs-py repo tag`: the command line of named revisions; `publish.publication` does the work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, write_json
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse

ACTIONS = {
    "add": "name the current revision, or that of another tag (--of)",
    "remove": "forget names; garbage collection may then delete their revisions",
    "list": "show all",
}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Add, remove and list named revisions. A tag never moves; only trunk and trunk-previous do, by themselves.\n\n"
        + "\n".join(f"  {name:<7} {text}" for name, text in ACTIONS.items()),
        f"{prog} add /srv/my.example.org v1 -m 'first release'",
        more=(f"{prog} remove /srv/my.example.org v1", f"{prog} list /srv/my.example.org"),
    )
    parser.add_argument("action", metavar="ACTION", choices=tuple(ACTIONS), help="one of the above")
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("names", metavar="NAME", nargs="*", help="tags; with remove several")
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="with add: what it is")
    parser.add_argument("--of", metavar="TAG", default="trunk", help="with add: name the revision of this tag")
    parser.add_argument("--json", action="store_true", help="the result as JSON; with list an array")
    return parser


def run(options: argparse.Namespace) -> int:
    names: list[str] = options.names
    if options.action == "list":
        if names:
            raise UsageError("list shows all tags; leave out the names")
        _list(options)
        return 0
    if not names or (options.action == "add" and len(names) > 1):
        raise UsageError(f"{options.action} {'one name at a time' if names else 'which tag? Give its name'}")
    from cvmfs_py.cli.tags import tag_record
    from cvmfs_py.publish.publication import Publication

    with Publication(options.storage) as publication:
        fqrn = publication.manifest.fqrn
        if options.action == "add":
            tag = publication.add_tag(names[0], options.message, like=options.of)
            record: dict[str, object] = {"fqrn": fqrn, "added": tag_record(tag)}
            said = f"{tag.name} is revision {tag.revision} of {fqrn}, root {tag.root_hash}"
        else:
            publication.remove_tags(names)
            record = {"fqrn": fqrn, "removed": names}
            said = f"removed {counted(len(names), 'tag')} from {fqrn}"
        for warning in publication.warnings:
            print(f"cvmfs-py: {warning}", file=sys.stderr)
    if options.json:
        write_json(record)
    else:
        print(said)
    return 0


def _list(options: argparse.Namespace) -> None:
    """Without the lock: whoever publishes meanwhile is not in the way."""
    from cvmfs_py.cli.tags import show_tags
    from cvmfs_py.publish.current import load_current, load_public_key
    from cvmfs_py.publish.databases import read_tags
    from cvmfs_py.publish.place import find_place
    from cvmfs_py.publish.storage import Storage

    place = find_place(options.storage)
    storage = Storage(place.storage_directory)
    current = load_current(place, storage, load_public_key(place))
    show_tags(read_tags(storage, current.manifest).values(), as_json=options.json)
