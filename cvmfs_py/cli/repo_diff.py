"""`cvmfs-py repo diff`: what changed between two snapshots of a repository on its storage."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.change_record import LETTERS, ChangeWriter, add_options

if TYPE_CHECKING:
    import argparse

    from cache.address import ContentHash
    from cvmfs_py.publish.stored_objects import StoredObjects
    from cvmfs_py.trust.manifest import Manifest

NEWEST = "HEAD"


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        f"List what changed from one snapshot to another: {LETTERS}.",
        "cvmfs-py repo diff ./my.repo.org v1 v2",
        more=("cvmfs-py repo diff ./my.repo.org v2 HEAD",),
    )
    parser.add_argument("directory", metavar="DIR", help="storage of the repository")
    parser.add_argument("old", metavar="OLD", help="tag, root hash, or HEAD for the newest revision")
    parser.add_argument("new", metavar="NEW", help="the same")
    parser.add_argument("--key", metavar="FILE", action="append", help="master public key (default: in DIR.keys)")
    add_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from catalog.transitions import catalog_ref
    from catalog.tree import CatalogTree
    from cvmfs_py.cli.repo_check import open_storage
    from cvmfs_py.publish.comparing import compare_trees
    from cvmfs_py.publish.consistency import read_manifest
    from cvmfs_py.publish.stored_objects import StoredObjects

    writer = ChangeWriter(options)
    storage, fqrn, keys = open_storage(options.directory, options.key)
    manifest = read_manifest(storage, fqrn, keys, time.time())
    with StoredObjects(storage) as stored:
        old, new = (_root_of(name, manifest, stored) for name in (options.old, options.new))
        with (
            closing(CatalogTree(catalog_ref(old, None, f"root catalog of {options.old}"))) as before,
            closing(CatalogTree(catalog_ref(new, None, f"root catalog of {options.new}"))) as after,
        ):
            for change in compare_trees(before, after, stored.open):
                writer.show(change)
    writer.finish()
    return 0


def _root_of(name: str, manifest: Manifest, stored: StoredObjects) -> ContentHash:
    """The root hash that a name stands for."""
    from cache.address import parse_hash
    from catalog.history import History
    from cvmfs_py.errors import ConfigError

    if name == NEWEST:
        return manifest.root_hash
    ref = manifest.history_ref
    if ref is not None:
        with History.open(stored.open(ref), ref.content_hash) as history:
            tag = history.by_name(name)
        if tag is not None:
            return tag.root_hash
    content_hash = parse_hash(name)
    if content_hash is None:
        raise ConfigError(f"{manifest.fqrn} has no tag {name!r}, and it is no root hash")
    return content_hash
