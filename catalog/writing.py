"""Working copies: SQLite files that are changed here, hashed and stored elsewhere, and thrown away when anything fails.

Knows no table. Every way in which SQLite can fail becomes a CatalogError that names the database.
Concurrency: one thread at a time; no other process touches a working copy.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from catalog.errors import CatalogError, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# A working copy that was cut off is not used again: neither journal nor fsync is worth its time.
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "trusted_schema=OFF", "cell_size_check=ON")
_FETCH_ROWS = 256
_VACUUM_INTO = (3, 27)  # the version of SQLite that brought it
_PLAIN_OBJECTS = frozenset(("table", "index"))
_ERRORS = (sqlite3.Error, ValueError, OverflowError)


class WorkingCopy:
    """An open database. Changes belong into a transaction, which lasts from `begin` to `commit`."""

    __slots__ = ("_cache_kib", "_connection", "path", "subject")

    def __init__(self, path: str | os.PathLike[str], subject: Subject, *, create: bool, cache_kib: int = 2048) -> None:
        """Makes a new database (the file must not exist) or opens one that exists."""
        self.path = os.fspath(path)
        self.subject = subject
        if os.path.lexists(self.path) is create:
            raise CatalogError(f"{subject.name} {'is there already' if create else 'is missing'}: {self.path}")
        self._cache_kib = cache_kib
        self._connection = self._connect()
        try:
            if not create:
                self._refuse_active_parts()
            self.begin()
        except BaseException:
            self._connection.close()
            raise

    def run(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Runs a statement for its effect; the number of rows it changed."""
        try:
            cursor = self._connection.execute(statement, parameters)
            count = cursor.rowcount
            cursor.close()
        except _ERRORS as error:
            raise self._translated(error) from error
        return count

    def run_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        try:
            cursor = self._connection.executemany(statement, rows)
            count = cursor.rowcount
            cursor.close()
        except _ERRORS as error:
            raise self._translated(error) from error
        return count

    def row(self, statement: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._connection.execute(statement, parameters).fetchone()
        except _ERRORS as error:
            raise self._translated(error) from error
        return found

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except _ERRORS as error:
            raise self._translated(error) from error

    def stream(self, statement: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """All rows, a few at a time. What is read must not be changed meanwhile."""
        try:
            cursor = self._connection.execute(statement, parameters)
            while batch := cursor.fetchmany(_FETCH_ROWS):
                yield from batch
        except _ERRORS as error:
            raise self._translated(error) from error

    def properties(self) -> dict[bytes, bytes]:
        found = self.rows("SELECT key, value FROM properties WHERE typeof(value) = 'text'")
        return {key: value for key, value in found if type(key) is bytes}

    def set_properties(self, values: Mapping[str, str | bytes]) -> None:
        """Writes text, whatever its bytes are."""
        self.run_many(
            "INSERT OR REPLACE INTO properties (key, value) VALUES (?, CAST(? AS TEXT))", list(values.items())
        )

    def attach(self, path: str, name: str) -> None:
        """Makes another working copy, which must have been committed, part of this one's transactions."""
        self.commit()
        try:
            self._connection.execute("ATTACH DATABASE ? AS " + name, (path,))
            for pragma in _PRAGMAS[:2]:
                self._connection.execute(f"PRAGMA {name}.{pragma}")
        except _ERRORS as error:
            raise self._translated(error) from error
        self.begin()

    def detach(self, name: str) -> None:
        self.commit()
        self.run(f"DETACH DATABASE {name}")

    def begin(self) -> None:
        """Idempotent."""
        if not self._connection.in_transaction:
            self.run("BEGIN")

    def commit(self) -> None:
        """Brings everything into the file. Idempotent."""
        if self._connection.in_transaction:
            self.run("COMMIT")

    def compact(self) -> None:
        """Writes the database anew, without free pages and in order. For what is committed."""
        if sqlite3.sqlite_version_info < _VACUUM_INTO:
            self.run("VACUUM")
            return
        # Beside the file instead of wherever SQLite puts temporary files, and written once instead of twice.
        packed = self.path + ".packed"
        self.run("VACUUM INTO ?", (packed,))
        self._connection.close()
        os.replace(packed, self.path)
        self._connection = self._connect()

    def close(self) -> None:
        """Closes without writing what is not committed; the file is damaged then. Idempotent."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, cached_statements=64)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        try:
            connection.text_factory = bytes
            for pragma in (*_PRAGMAS, f"cache_size=-{self._cache_kib}"):
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error as error:
            connection.close()
            raise self._translated(error) from error
        return connection

    def _refuse_active_parts(self) -> None:
        """Views and triggers would run code that came with the file."""
        kinds = {kind for (kind,) in self.rows("SELECT DISTINCT type FROM sqlite_master LIMIT 10")}
        if any(kind.decode("latin-1") not in _PLAIN_OBJECTS for kind in kinds):
            raise self.subject.unusable("holds more than tables and indices, and is not changed")

    def _translated(self, error: BaseException) -> CatalogError:
        return self.subject.unusable(f"cannot be written in {os.path.dirname(self.path)}: {error}")


CREATE_PROPERTIES = "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))"
