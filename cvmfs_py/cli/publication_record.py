"""A publication as commands tell it: a sentence for people, a record for programs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cvmfs_py.cli.output import date_text

if TYPE_CHECKING:
    from cvmfs_py.publish.publication import PublishedRevision


def publication_record(published: PublishedRevision) -> dict[str, Any]:
    return {
        "fqrn": published.fqrn,
        "published": published.is_new,
        "revision": published.revision,
        "root_hash": str(published.root_hash),
        "root_catalog_size": published.root_size_bytes,
        "timestamp": published.timestamp_s,
        "date": date_text(published.timestamp_s),
        "tags": list(published.tags),
    }


def publication_sentence(published: PublishedRevision) -> str:
    where = f"revision {published.revision} of {published.fqrn}"
    tags = f" ({', '.join(published.tags)})" if published.tags else ""
    if published.is_new:
        return f"published {where}{tags}, root {published.root_hash}"
    if published.tags:
        return f"nothing changed: {where} has the tag {published.tags[0]} now, no new one was published"
    return f"nothing changed: {where} stays, no new one was published (--force publishes all the same)"
