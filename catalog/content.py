"""What to fetch for the data of a file: spans of its content, each with the reference of its object. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import Kind
from cache.ref import ExternalSpan, ObjectRef
from catalog.errors import CatalogError, show_path

if TYPE_CHECKING:
    from catalog.entry import Entry
    from catalog.reader import Catalog


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file's content that is one object."""

    offset: int
    length: int
    ref: ObjectRef

    @property
    def end(self) -> int:
        return self.offset + self.length


def file_spans(catalog: Catalog, entry: Entry, path: bytes, *, volatile: bool = False) -> tuple[Span, ...]:
    """The objects of a regular file in order, without gaps; none for an empty file. `path` is that in the mount.

    Raises CatalogError for a file that cannot be read, whatever the servers have.
    """
    shown = show_path(path)
    if not entry.is_regular:
        raise CatalogError(f"{shown} is no regular file and has no content", catalog.content_hash)
    if entry.is_chunked:
        return _chunk_spans(catalog, entry, path, volatile)
    content_hash = entry.content_hash
    if content_hash is None:
        raise CatalogError(f"the catalog has no content for the file {shown}: it is damaged", catalog.content_hash)
    if entry.size == 0:
        return ()
    ref = ObjectRef(
        content_hash,
        Kind.BULK,
        verbatim=entry.is_verbatim,
        size_bytes=entry.size,
        external=ExternalSpan(path) if entry.is_external else None,
        volatile=volatile,
        label=f"file {shown}",
    )
    return (Span(0, entry.size, ref),)


def _chunk_spans(catalog: Catalog, entry: Entry, path: bytes, volatile: bool) -> tuple[Span, ...]:
    shown = show_path(path)
    if entry.is_external and not entry.is_verbatim:
        # The ranges that would have to be asked for are known in the content only, not in the compressed file.
        raise CatalogError(f"{shown} is external, chunked and compressed: no client can read it", catalog.content_hash)
    return tuple(
        Span(
            chunk.offset,
            chunk.size,
            ObjectRef(
                chunk.content_hash,
                Kind.CHUNK,
                verbatim=entry.is_verbatim,
                size_bytes=chunk.size,
                external=ExternalSpan(path, chunk.offset, chunk.size) if entry.is_external else None,
                volatile=volatile,
                label=f"{shown} from byte {chunk.offset}",
            ),
        )
        for chunk in catalog.chunks(entry)
        if chunk.size
    )


def spans_between(spans: tuple[Span, ...], offset: int, length: int) -> tuple[Span, ...]:
    """Those of a file's spans that hold any of the bytes from `offset` on."""
    if length <= 0:
        return ()
    first = bisect_right(spans, offset, key=lambda span: span.end)
    end = offset + length
    last = first
    while last < len(spans) and spans[last].offset < end:
        last += 1
    return spans[first:last]
