"""`cvmfs-py repo init`: the command line of making a repository; `publish.creation` does the work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import write_json
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    from cvmfs_py.publish.settings import RepositorySettings


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Make a new, empty repository: directories, keys, a signed whitelist and revision 1. The private keys are in"
        " DIR.keys, beside DIR and never below it; keep a copy of them: nobody can publish without.",
        f"{prog} my.example.org --storage /srv/my.example.org",
        more=(f"{prog} my.example.org --storage ./my --auto-catalogs 50000",),
    )
    parser.add_argument("name", metavar="NAME", help="its full name, with a dot, for example my.example.org")
    parser.add_argument("--storage", metavar="DIR", required=True, help="where it is to be: an empty or new directory")
    parser.add_argument("--keys-dir", metavar="DIR", help="put the keys there; DIR.keys becomes a link to it")
    parser.add_argument(
        "--whitelist-days", metavar="N", type=int, default=30, help="the whitelist is valid so long (30)"
    )
    group = parser.add_argument_group("what it is like (kept in DIR.keys/NAME.conf)")
    group.add_argument("--algorithm", metavar="NAME", default="sha1", help="hashes: sha1 (default), rmd160, shake128")
    group.add_argument("--ttl", metavar="SECONDS", type=int, default=240, help="clients ask for news so often (240)")
    group.add_argument("--volatile", action="store_true", help="clients evict its files first")
    group.add_argument(
        "--garbage-collectable",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether old revisions may be deleted one day (yes)",
    )
    add_storing_options(group)
    group.add_argument(
        "--alternative-paths", action="store_true", help="root catalogs and certificates have second names"
    )
    parser.add_argument("--json", action="store_true", help="where everything is, as JSON")
    return parser


def add_storing_options(group: argparse._ArgumentGroup) -> None:
    """How files and catalogs are stored from now on, which nothing in a repository tells."""
    group.add_argument(
        "--compression",
        metavar="NAME",
        default="zlib",
        help="of files: zlib (default), none, or zstd (for new clients)",
    )
    group.add_argument(
        "--chunk-sizes", metavar="MIN,AVG,MAX", default="4M,8M,16M", help="files above MAX are cut up (4M,8M,16M)"
    )
    group.add_argument("--auto-catalogs", metavar="N", type=int, help="split catalogs of more than N entries")


def storing_choices(options: argparse.Namespace) -> dict[str, Any]:
    """The same as settings."""
    minimum, average, maximum = _chunk_sizes(options.chunk_sizes)
    return {
        "compression": options.compression,
        "chunk_min_bytes": minimum,
        "chunk_average_bytes": average,
        "chunk_max_bytes": maximum,
        "auto_catalog_entries": options.auto_catalogs,
    }


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.publish.creation import create_repository

    place = create_repository(
        settings_of(options),
        options.storage,
        keys_directory=options.keys_dir,
        whitelist_days=options.whitelist_days,
    )
    if options.json:
        write_json(
            {
                "fqrn": place.fqrn,
                "storage": str(place.storage_directory),
                "keys": str(place.keys_directory),
                "public_key": str(place.public_key_file),
            }
        )
        return 0
    print(f"made {place.fqrn}; its private keys, of which you need a copy, are in {place.keys_directory}")
    print(f"clients need  {place.public_key_file}")
    print(f"publish with  cvmfs-py repo publish {options.storage} --from TREE")
    print(f"serve it by   cvmfs-py serve {options.storage}")
    return 0


def settings_of(options: argparse.Namespace) -> RepositorySettings:
    from cvmfs_py.publish.settings import RepositorySettings, parse_algorithm

    if "." not in options.name:
        raise UsageError(f"{options.name!r} has no domain: give the full name, for example {options.name}.example.org")
    return RepositorySettings(
        fqrn=options.name,
        algorithm=parse_algorithm(options.algorithm),
        ttl_s=options.ttl,
        is_volatile=options.volatile,
        is_garbage_collectable=options.garbage_collectable,
        has_alternative_paths=options.alternative_paths,
        **storing_choices(options),
    )


def _chunk_sizes(text: str) -> tuple[int, int, int]:
    from cvmfs_py.cli.cache import parse_size

    sizes = [parse_size(part) for part in text.split(",")]
    if len(sizes) != 3:
        raise UsageError(f"--chunk-sizes {text}: write three sizes, for example 4M,8M,16M")
    return sizes[0], sizes[1], sizes[2]
