"""`cvmfs-py repo`: the commands of who publishes. Finds the one that is meant; each is a module of its own."""

from __future__ import annotations

import difflib
import importlib
import os
from typing import TYPE_CHECKING

from cvmfs_py.cli.app import Command
from cvmfs_py.cli.parser import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

ACTIONS = {
    "init": Command("cvmfs_py.cli.repo_init", "make a new, empty repository and its keys"),
    "adopt": Command("cvmfs_py.cli.repo_adopt", "take over one that was made elsewhere"),
    "publish": Command("cvmfs_py.cli.repo_publish", "make a path of it equal to a directory tree"),
    "ingest": Command("cvmfs_py.cli.repo_ingest", "unpack a tar archive into it"),
    "tag": Command("cvmfs_py.cli.repo_tag", "add, remove and list named revisions"),
    "rollback": Command("cvmfs_py.cli.repo_rollback", "publish again what was published before"),
    "resign": Command("cvmfs_py.cli.repo_resign", "sign the whitelist before it expires"),
    "check": Command("cvmfs_py.cli.repo_check", "look for damage, in everything that is published"),
    "gc": Command("cvmfs_py.cli.repo_gc", "delete what no revision needs that is to be kept"),
    "diff": Command("cvmfs_py.cli.repo_diff", "show what changed between two revisions"),
    "metainfo": Command("cvmfs_py.cli.repo_metainfo", "describe it: administrator, purpose, servers"),
}
_WIDTH = max(map(len, ACTIONS))
_READABLE = 0o055


class _Dispatcher(Parser):
    """Reads the action and leaves the rest to the action's own parser."""

    def parse_intermixed_args(  # type: ignore[override]  # nobody here brings a namespace
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        words = list(args or ())
        if not words or words[0].startswith("-"):
            super().parse_args(words)  # help, or what is wrong
        name, *rest = words
        if name not in ACTIONS:
            close = difflib.get_close_matches(name, ACTIONS, n=1)
            self.error(f"there is no action {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
        build, run_action = load_action(name)
        parser = build(f"{self.prog} {name}")
        parser.set_defaults(command=f"repo {name}", run_action=run_action)
        return parser.parse_intermixed_args(rest)


def load_action(name: str) -> tuple[Callable[[str], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]:
    """What makes the parser of an action, and what runs it."""
    module = importlib.import_module(ACTIONS[name].module)
    return module.build_parser, module.run


def build_parser(prog: str) -> argparse.ArgumentParser:
    actions = "\n".join(f"  {name:<{_WIDTH}}  {action.summary}" for name, action in ACTIONS.items())
    parser = _Dispatcher(
        prog,
        "Make repositories of your own and publish to them. A repository is a directory, which any web server can"
        " serve; its keys are in another one beside it.\n\n"
        f"{actions}\n\n`{prog} ACTION --help` tells about one.",
        (
            f"{prog} init my.example.org --storage /srv/my.example.org",
            f"{prog} publish /srv/my.example.org --from ./software --tag v1",
        ),
    )
    parser.add_argument("action", metavar="ACTION", help="one of the above, with its options and arguments")
    return parser


def run(options: argparse.Namespace) -> int:
    # What is published is for web servers to read, whoever publishes; what is private has modes of its own.
    before = os.umask(0)
    os.umask(before & ~_READABLE)
    try:
        code: int = options.run_action(options)
        return code
    finally:
        os.umask(before)
