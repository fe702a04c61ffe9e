"""A set of objects on the disk: for collections of more hashes than should be in memory.

A throw-away SQLite database in a directory of the caller's. Concurrency: one thread.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from catalog.errors import CatalogError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from cache.address import ContentHash

_BATCH = 10_000


class HashSet:
    """Content hashes, each once. Close it, or use it as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` must not exist; it is the caller's to remove."""
        self._database = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE hashes (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, content_hash: ContentHash) -> bool:
        """Whether it was new."""
        cursor = self._run("INSERT OR IGNORE INTO hashes VALUES (?)", (_key(content_hash),))
        return cursor.rowcount == 1

    def update(self, hashes: Iterable[ContentHash]) -> None:
        batch: list[tuple[bytes]] = []
        for content_hash in hashes:
            batch.append((_key(content_hash),))
            if len(batch) == _BATCH:
                self._insert(batch)
                batch.clear()
        self._insert(batch)

    def __contains__(self, content_hash: ContentHash) -> bool:
        return self._run("SELECT 1 FROM hashes WHERE key = ?", (_key(content_hash),)).fetchone() is not None

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> HashSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _insert(self, batch: list[tuple[bytes]]) -> None:
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO hashes VALUES (?)", batch)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _failed(error) from error

    def _run(self, statement: str, values: tuple[bytes]) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise _failed(error) from error


def _key(content_hash: ContentHash) -> bytes:
    # Equal digests of two algorithms are two objects.
    return content_hash.digest + content_hash.algorithm.suffix.encode()


def _failed(error: sqlite3.Error) -> CatalogError:
    return CatalogError(f"the list of objects in use cannot be kept on the disk: {error}")
