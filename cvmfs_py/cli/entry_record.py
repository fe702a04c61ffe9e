"""Everything known about one entry as a value for JSON: what `ls --json` and `stat` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog.xattrs import parse_xattr_blob
from cvmfs_py.cli.output import latin1

if TYPE_CHECKING:
    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository

COMPRESSION_NAMES = {0: "zlib", 1: "none", 2: "zstd"}


async def describe_entry(repository: Repository, located: Located) -> dict[str, Any]:
    """The entry as a program on a mount would see it, and what its catalog tells besides."""
    entry = located.entry
    attributes = repository.attributes(entry)
    content_hash, blob = entry.content_hash, entry.xattr_blob
    xattrs = {latin1(name): latin1(value) for name, value in parse_xattr_blob(blob).items()} if blob else {}
    record: dict[str, Any] = {
        "path": latin1(located.path.removeprefix(b"/")),
        "mode": attributes.mode,
        "nlink": attributes.link_count,
        "size": attributes.size_bytes,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "mtime_ns": attributes.mtime_ns,
        "rdev": attributes.rdev,
        "target": latin1(repository.link_target(entry)) if entry.is_symlink else None,
        "raw_target": latin1(entry.symlink) if entry.is_symlink else None,
        "hash": None if content_hash is None else str(content_hash),
        "chunks": None,
        "compression": None,
        "external": None,
        "xattrs": xattrs,
        "catalog": str(repository.catalog_hash(located)),
        "hardlink_group": entry.hardlink_group,
        "hidden": entry.is_hidden,
        "nested_catalog": entry.is_nested_mountpoint or entry.is_nested_root,
    }
    if entry.is_regular:
        chunks = await repository.chunks(located) if entry.is_chunked else ()
        record["chunks"] = len(chunks) if entry.is_chunked else 1
        record["compression"] = COMPRESSION_NAMES.get(entry.compression, "unknown")
        record["external"] = entry.is_external
        record["direct_io"] = entry.is_direct_io
        if entry.is_chunked:
            record["chunk_list"] = [[str(chunk.content_hash), chunk.offset, chunk.size] for chunk in chunks]
    return record
