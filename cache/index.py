"""The index: size, recency and description of every object of a cache directory, in one SQLite file.

It is a convenience and never the truth: the truth is which files exist. It may be deleted, damaged, locked or behind
at any time; then `IndexBusyError` or `IndexDamagedError` is raised, and the owner goes on without it. Making the file
and comparing it with the files is the job of `rebuild`.

Concurrency: one connection, guarded by its owner; any number of processes, whose transactions are short.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from cache.address import Kind, parse_hash
from cache.errors import CacheError
from cache.quota import Candidate
from cache.reports import CacheEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache.lru import Use

SCHEMA_VERSION = 1
_BUSY_MS = 250  # a flush of another process takes a few; a longer wait would be felt by the mount
_PAGE_ROWS = 512
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH})
_KINDS = {kind.name: kind for kind in Kind}


class IndexBusyError(CacheError):
    """The index cannot be used now: locked, full disk, read-only, gone."""


class IndexDamagedError(CacheError):
    """The index is not what this program writes; it has to be made anew."""


class Index:
    """An open index."""

    def __init__(self, path: str) -> None:
        """Open an existing file; for reading only where it cannot be written."""
        with translated():
            uri = f"file:{_quoted(path)}?mode=rw"
            # Guarded by the owner's lock, and used by a worker thread only when the disk is full.
            self._db = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
            )
        self._path = path
        try:
            self._identity = _identity(path)
            with translated():
                if self._db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                    raise IndexDamagedError(f"{path} has another schema")
                # Losing the index in a power cut costs a scan; waiting for the disk would cost every commit.
                self._db.execute("PRAGMA synchronous=OFF")
                self._db.execute("PRAGMA journal_mode=TRUNCATE")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def is_current(self) -> bool:
        """Whether the file of this connection is still the one under its name."""
        return self._identity is not None and _identity(self._path) == self._identity

    @property
    def connection(self) -> sqlite3.Connection:
        """For `rebuild` only."""
        return self._db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, from the first statement on exclusive among writers."""
        with translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                # Whoever replaces the file after this compares it with the objects, which are in place by now.
                if not self.is_current():
                    raise IndexBusyError(f"{self._path} was replaced")
                yield self._db
                if self._db.in_transaction:
                    self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def record(
        self,
        uses: Sequence[tuple[str, Use]],
        in_use: Iterable[str],
        removed: Iterable[str],
        is_there: Callable[[str], bool],
    ) -> None:
        """Write down uses in their order, what is in use now, and removals.

        What was inserted or removed is looked at again under the write lock: another process may have evicted or
        stored the same object since, and whoever did so last records it after this.
        """
        with self.transaction() as db:
            last = self._last_use()
            numbered = list(enumerate(uses, last + 1))
            # A use alone makes no row: another process may have evicted the object since.
            db.executemany(
                "UPDATE objects SET last_use = ?, kind = ?, volatile = ?, label = coalesce(nullif(?, ''), label)"
                " WHERE hash = ?",
                [(n, u.ref.kind.name, u.ref.volatile, u.label, text) for n, (text, u) in numbered if not u.inserted],
            )
            db.executemany(
                "INSERT INTO objects (hash, size_bytes, last_use, kind, volatile, label) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (hash) DO UPDATE SET size_bytes = excluded.size_bytes, last_use = excluded.last_use,"
                " kind = excluded.kind, volatile = excluded.volatile,"
                " label = coalesce(nullif(excluded.label, ''), label)",
                [
                    (text, u.size_bytes, n, u.ref.kind.name, u.ref.volatile, u.label)
                    for n, (text, u) in numbered
                    if u.inserted and is_there(text)
                ],
            )
            now = last + len(uses) + 1
            db.executemany("UPDATE objects SET last_use = ? WHERE hash = ?", [(now, text) for text in in_use])
            gone = [(text,) for text in removed if not is_there(text)]
            db.executemany("DELETE FROM objects WHERE hash = ?", gone)

    def gauge(self) -> tuple[int, int]:
        """(bytes, objects) of all rows; kept by triggers, so that several processes may count."""
        with translated():
            row = self._db.execute("SELECT bytes, objects FROM gauge").fetchone()
            if row is None:
                raise IndexDamagedError(f"{self._path} has no gauge")
            return int(row[0]), int(row[1])

    def last_use(self) -> int:
        with translated():
            return self._last_use()

    def oldest(self, up_to_use: int) -> Iterator[Candidate]:
        """Candidates for eviction that were not used after `up_to_use`: volatile ones first, each in order of use."""
        for volatile in (1, 0):
            after: tuple[int, str] = (-(2**63), "")
            while True:
                with translated():
                    rows = self._db.execute(
                        "SELECT last_use, hash, size_bytes FROM objects WHERE volatile = ? AND last_use <= ?"
                        " AND (last_use, hash) > (?, ?) ORDER BY last_use, hash LIMIT ?",
                        (volatile, up_to_use, *after, _PAGE_ROWS),
                    ).fetchall()
                for _, text, size_bytes in rows:
                    yield Candidate(text, size_bytes)
                if len(rows) < _PAGE_ROWS:
                    break
                after = (rows[-1][0], rows[-1][1])

    def entries(self, is_pinned: Callable[[str], bool]) -> Iterator[CacheEntry]:
        """Every row, the most recently used first; in pages, so that writers need not wait for a slow reader."""
        before: tuple[int, str] = (2**63 - 1, "~")
        while True:
            with translated():
                rows = self._db.execute(
                    "SELECT last_use, hash, size_bytes, kind, volatile, label FROM objects"
                    " WHERE (last_use, hash) < (?, ?) ORDER BY last_use DESC, hash DESC LIMIT ?",
                    (*before, _PAGE_ROWS),
                ).fetchall()
            for last_use, text, size_bytes, kind, volatile, label in rows:
                content_hash = parse_hash(text)
                if content_hash is None:
                    raise IndexDamagedError(f"{self._path} names an object {text!r}")
                yield CacheEntry(
                    content_hash, size_bytes, _KINDS.get(kind), bool(volatile), label or "", last_use, is_pinned(text)
                )
            if len(rows) < _PAGE_ROWS:
                return
            before = (rows[-1][0], rows[-1][1])

    def sizes(self, texts: Iterable[str]) -> dict[str, int]:
        """The sizes of those of the given objects that are here."""
        found: dict[str, int] = {}
        with translated():
            for text in texts:
                row = self._db.execute("SELECT size_bytes FROM objects WHERE hash = ?", (text,)).fetchone()
                if row is not None:
                    found[text] = row[0]
        return found

    def count(self, kind: Kind) -> int:
        with translated():
            row = self._db.execute("SELECT count(*) FROM objects WHERE kind = ?", (kind.name,)).fetchone()
            return int(row[0])

    def _last_use(self) -> int:
        return int(self._db.execute("SELECT max(0, coalesce(max(last_use), 0)) FROM objects").fetchone()[0])


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as the two that the owner of an index knows."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        # A short read is a truncated file; other I/O errors may be the locks of a network file system.
        if code & 0xFF in _DAMAGED or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise IndexDamagedError(f"the index of the cache is damaged: {error}") from error
        raise IndexBusyError(f"the index of the cache cannot be used now: {error}") from error


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
