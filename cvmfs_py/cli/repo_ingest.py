"""`cvmfs-py repo ingest`: the command line of unpacking archives; `publish.from_tar` does the work."""

from __future__ import annotations

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

if TYPE_CHECKING:
    import argparse


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Unpack a tar archive into a repository, and publish that as a new revision. The archive may be compressed with"
        " gzip, bzip2, xz or zstd; its contents never touch the disk but as objects. What else is at the path stays.",
        f"{prog} /srv/my.example.org --tar v2.tar.gz --at /app/v2",
        more=(f"{prog} /srv/my.example.org --tar - --at /image --oci-layer",),
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument("--tar", metavar="FILE", required=True, help="the archive; - is standard input")
    parser.add_argument("--at", metavar="PATH", required=True, help="unpack it there; / is the root")
    parser.add_argument(
        "--oci-layer", action="store_true", help="it is a layer of a container image: .wh. files remove what is there"
    )
    add_delete_option(parser)
    add_publication_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.publish.from_tar import ArchiveOptions, apply_archive

    check_publication_options(options)
    at = repository_path(options.at)
    delete = [repository_path(text) for text in options.delete]
    with (
        Progress("unpacked", quiet=options.quiet or options.json, interrupted=INTERRUPTED) as progress,
        open_publication(options) as publication,
    ):
        removed = delete_paths(publication, delete)
        tree, storage, settings = publication.open_tree(), publication.storage, publication.settings
        recipe = recipe_with(options, settings)
        watcher = Watcher(progress)
        wishes = ArchiveOptions(
            is_layer=options.oci_layer,
            recipe_for=lambda path: recipe,
            processes=options.jobs,
            read_observer=watcher.archive_read,
        )
        tally = apply_archive(tree, storage, settings, options.tar, at, wishes, watcher)
        finish(options, publication, tally, removed, progress)
    return 0
