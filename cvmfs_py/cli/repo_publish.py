"""`cvmfs-py repo publish`: the command line of publishing a directory tree; `publish.from_directory` does the work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.publishing import (
    INTERRUPTED,
    Watcher,
    add_delete_option,
    add_publication_options,
    check_publication_options,
    delete_paths,
    finish,
    open_publication,
    recipe_with,
    repository_path,
)
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.publish.publication import Publication
    from cvmfs_py.publish.tally import Tally


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Make a path of a repository equal to a directory tree, and publish that as a new revision. It is seen whole or"
        " not at all. Files whose size and time are as in the repository are not read.",
        f"{prog} /srv/my.example.org --from ./software",
        more=(
            f"{prog} /srv/my.example.org --from ./v2 --at /app/v2 --tag v2",
            f"{prog} /srv/my.example.org --delete /app/v1",
        ),
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("--from", metavar="TREE", dest="tree", help="the directory to publish")
    parser.add_argument("--at", metavar="PATH", default="/", help="make this path of the repository equal to it (/)")
    add_delete_option(parser)
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave alone what is called so; repeatable"
    )
    parser.add_argument("--checksum", action="store_true", help="read also files whose size and time are as before")
    parser.add_argument(
        "--external", action="store_true", help="store no files: clients get them from CVMFS_EXTERNAL_URL"
    )
    add_publication_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress

    check_publication_options(options)
    at = repository_path(options.at)
    delete = [repository_path(text) for text in options.delete]
    if options.tree is None and not (delete or options.force or options.tag):
        raise UsageError("what is to be published? Give --from TREE or --delete PATH")
    with (
        Progress("published", quiet=options.quiet or options.json, interrupted=INTERRUPTED) as progress,
        open_publication(options) as publication,
    ):
        removed = delete_paths(publication, delete)
        tally = _update(publication, at, options, Watcher(progress))
        finish(options, publication, tally, removed, progress)
    return 0


def _update(publication: Publication, at: bytes, options: argparse.Namespace, observer: Watcher) -> Tally:
    from cvmfs_py.publish.tally import Tally

    if options.tree is None:
        return Tally()
    from cvmfs_py.publish.exclusions import Exclusions
    from cvmfs_py.publish.from_directory import DirectoryOptions, apply_directory

    exclude = Exclusions(map(os.fsencode, options.exclude))
    recipe = recipe_with(options, publication.settings, is_external=options.external)
    wishes = DirectoryOptions(
        compare_contents=options.checksum,
        exclude=exclude or None,
        recipe_for=lambda path: recipe,
        processes=options.jobs,
    )
    tree, storage, settings = publication.open_tree(), publication.storage, publication.settings
    observer.count_tree(options.tree)
    return apply_directory(tree, storage, settings, options.tree, at, wishes, observer)
