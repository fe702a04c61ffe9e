"""`cvmfs-py repo gc`: the command line of garbage collection; `publish.collecting` does the work."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, size_text, write_json
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cache.address import ContentHash
    from cvmfs_py.publish.publication import Publication

DEFAULT_KEEP = 3


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Delete the objects that no tag and none of the last revisions needs. What clients have mounted may go too,"
        " when nothing here keeps it.",
        f"{prog} --dry-run /srv/my.example.org",
        more=(f"{prog} --keep 10 /srv/my.example.org",),
    )
    parser.add_argument("storage", metavar="DIR", help="the repository's directory")
    parser.add_argument(
        "--keep", metavar="N", type=int, default=DEFAULT_KEEP, help="the last N revisions stay (default %(default)s)"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only tell what would be deleted")
    parser.add_argument("--force", action="store_true", help="although the repository is not garbage-collectable")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.publish.collecting import collect_garbage
    from cvmfs_py.publish.publication import Publication

    if options.keep < 1:
        raise UsageError("--keep must be at least 1: the newest revision always stays")
    with Publication(options.storage) as publication:
        if not publication.manifest.is_garbage_collectable and not options.force:
            raise UsageError(
                f"{publication.manifest.fqrn} was made to keep every revision for ever; --force collects all the same"
            )
        roots = _roots(publication, options.keep)
        with Progress("looked at", quiet=options.quiet or options.json) as progress:
            collection = collect_garbage(
                publication.storage,
                roots,
                lambda: _documents(publication),
                dry_run=options.dry_run,
                forget=publication.forget,
                advance=progress.advance,
            )
        for warning in publication.warnings:
            print(f"cvmfs-py: {warning}", file=sys.stderr)
    if options.json:
        write_json(
            {
                "dry_run": options.dry_run,
                "kept_snapshots": collection.kept_roots,
                "kept_objects": collection.kept_objects,
                "removed_objects": collection.removed_objects,
                "removed_bytes": collection.removed_bytes,
                "missing_snapshots": [str(root) for root in collection.missing_roots],
            }
        )
        return 0
    done = "would remove" if options.dry_run else "removed"
    print(
        f"{done} {counted(collection.removed_objects, 'object')} with {size_text(collection.removed_bytes)};"
        f" {counted(collection.kept_roots, 'snapshot')} with {counted(collection.kept_objects, 'object')}"
        f" {'stays' if collection.kept_roots == 1 else 'stay'}"
    )
    return 0


def _roots(publication: Publication, keep: int) -> list[ContentHash]:
    """The roots to keep, each once: the newest ones, one behind the other, and those of all tags."""
    from cache.address import Kind
    from catalog.reader import Catalog
    from catalog.transitions import catalog_ref
    from cvmfs_py.publish.stored_objects import StoredObjects

    roots: dict[ContentHash, None] = {}
    root: ContentHash | None = publication.manifest.root_hash
    with StoredObjects(publication.storage) as stored:
        while root is not None and len(roots) < keep and publication.storage.has(root, Kind.CATALOG):
            roots[root] = None
            ref = catalog_ref(root, None, f"root catalog {root}")
            with closing(Catalog.open(stored.open(ref), b"", root)) as catalog:
                root = catalog.properties.previous_revision
    roots.update((tag.root_hash, None) for tag in publication.tags().values())
    return list(roots)


def _documents(publication: Publication) -> list[ContentHash]:
    """What the manifest names besides the root catalog."""
    manifest = publication.manifest
    named = (manifest.certificate_hash, manifest.history_hash, manifest.metainfo_hash)
    return [content_hash for content_hash in named if content_hash is not None]
