"""`cvmfs-py shell`: a shell that sees repositories below /cvmfs, in namespaces of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.exec import add_confinement_options, run_confined

if TYPE_CHECKING:
    import argparse


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Start your shell ($SHELL) in a private namespace in which the repositories are at /cvmfs/REPO; leave it with"
        " exit. As cvmfs-py exec, it needs no rights.",
        "cvmfs-py shell sft.cern.ch",
    )
    parser.add_argument("repositories", metavar="REPO", nargs="*", default=[], help="FQRN, FQRN@TAG or URL")
    add_confinement_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    return run_confined(options, [os.environ.get("SHELL") or "/bin/sh"])
