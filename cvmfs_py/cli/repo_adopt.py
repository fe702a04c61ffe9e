"""`cvmfs-py repo adopt`: the command line of taking over a repository; `publish.adoption` does the work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import write_json
from cvmfs_py.cli.repo_init import add_storing_options, storing_choices

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.publish.settings import RepositorySettings


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Take over a repository that was made elsewhere, for example by the reference server. The keys must fit what it"
        " serves. They stay where they are: DIR.keys gets links to them, and the settings. DIR itself is not changed."
        " From then on publish to it with this program alone.",
        f"{prog} /srv/cvmfs/my.example.org --keys /etc/cvmfs/keys",
        more=(f"{prog} --dry-run /srv/cvmfs/my.example.org --keys /etc/cvmfs/keys",),
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument(
        "--keys", metavar="DIR", help="has NAME.pub, .crt, .key and, for resign, .masterkey (default: DIR.keys)"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only check, and tell what would be done")
    add_storing_options(parser.add_argument_group("kept in DIR.keys/NAME.conf"))
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.publish.adoption import adopt

    adopted = adopt(options.storage, options.keys, storing_choices(options), time.time(), dry_run=options.dry_run)
    place = adopted.place
    if options.json:
        write_json(
            {
                "fqrn": place.fqrn,
                "adopted": not options.dry_run,
                "revision": adopted.revision,
                "storage": str(place.storage_directory),
                "keys": str(place.keys_directory),
                "keys_source": str(adopted.keys_source),
                "settings": str(place.settings_file),
                "has_master_key": adopted.has_master_key,
                "remarks": list(adopted.remarks),
            }
        )
        return 0
    verb = "would adopt" if options.dry_run else "adopted"
    print(f"{verb} {place.fqrn}, revision {adopted.revision}: the keys in {adopted.keys_source} fit what it serves")
    print(f"settings      {place.settings_file}: {_settings_text(adopted.settings)}")
    for remark in adopted.remarks:
        print(f"note          {remark}")
    if not options.dry_run:
        print(f"publish with  cvmfs-py repo publish {options.storage} --from TREE")
    return 0


def _settings_text(settings: RepositorySettings) -> str:
    words = [settings.algorithm_name, settings.compression, f"time to live {settings.ttl_s} s"]
    words += ["volatile"] if settings.is_volatile else []
    words += [] if settings.is_garbage_collectable else ["not garbage-collectable"]
    words += ["alternative paths"] if settings.has_alternative_paths else []
    return ", ".join(words)
