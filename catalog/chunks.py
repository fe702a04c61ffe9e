"""The chunk list of a file: read, and refused unless it covers the file exactly. Knows no references and no paths."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from cache.address import ContentHash
from catalog.entry import Chunk, damaged_row

if TYPE_CHECKING:
    from catalog.entry import Entry
    from catalog.sql import Database

_DIGEST_BYTES = 20

# By the row number of the file, so that whoever holds an entry needs no path.
_CHUNKS = """
    SELECT chunks.offset, chunks.size, chunks.hash FROM catalog CROSS JOIN chunks
    ON chunks.md5path_1 = catalog.md5path_1 AND chunks.md5path_2 = catalog.md5path_2
    WHERE catalog.rowid = ? ORDER BY chunks.offset, chunks.size
"""


def read_chunks(database: Database, entry: Entry) -> tuple[Chunk, ...]:
    """The chunks in order; they begin at 0, have neither gaps nor overlaps and end where the file ends."""
    chunks: list[Chunk] = []
    algorithm = entry.algorithm
    end = 0
    with closing(database.stream(_CHUNKS, (entry.rowid,))) as rows:
        for offset, size, digest in rows:
            if type(offset) is not int or type(size) is not int or offset != end or size < 0 or end + size > entry.size:
                raise damaged_row(
                    database.subject, entry.rowid, entry.name, f"its chunks do not fit together at byte {end}"
                )
            if size == 0 and entry.size > 0:
                raise damaged_row(database.subject, entry.rowid, entry.name, f"it has an empty chunk at byte {end}")
            if type(digest) is not bytes or len(digest) != _DIGEST_BYTES or not any(digest):
                raise damaged_row(
                    database.subject, entry.rowid, entry.name, f"its chunk at byte {end} has no proper hash"
                )
            chunks.append(Chunk(offset, size, ContentHash(algorithm, digest)))
            end += size
    if not chunks or end != entry.size:
        raise damaged_row(database.subject, entry.rowid, entry.name, f"its chunks cover {end} of {entry.size} bytes")
    return tuple(chunks)
