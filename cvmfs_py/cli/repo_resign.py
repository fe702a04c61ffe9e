"""`cvmfs-py repo resign`: the command line of signing the whitelist; `publish.whitelisting` does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import date_text, write_json

if TYPE_CHECKING:
    import argparse


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Sign the whitelist anew. Clients refuse every new revision when it has expired, so do it in time. It takes the"
        " master key, which may be kept elsewhere until then.",
        f"{prog} /srv/my.example.org --days 30",
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("--days", metavar="N", type=int, default=30, help="it is to be valid so long (30)")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.publish.whitelisting import resign

    whitelist = resign(options.storage, options.days)
    if options.json:
        write_json(
            {
                "fqrn": whitelist.fqrn,
                "expires": whitelist.expires_s,
                "expires_date": date_text(whitelist.expires_s),
                "fingerprints": [str(one) for one in whitelist.fingerprints],
            }
        )
    else:
        print(f"the whitelist of {whitelist.fqrn} is valid until {date_text(whitelist.expires_s)}")
    return 0
