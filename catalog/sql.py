"""Opens verified local objects as read-only SQLite databases that may be hostile, and runs queries on them.

Every way in which SQLite can fail becomes a CatalogError that names the database. Knows no table of any catalog.

A database is signed by its publisher and still must not be able to hang or crash a client: views, triggers, functions
and writes are refused by an authorizer, values are limited in size, and the steps of a query in number.

Concurrency: one thread at a time. Streams stay valid when the database is closed under them; the last one closes it.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from catalog.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from catalog.errors import Subject

Row: TypeAlias = "tuple[Any, ...]"

_VALUE_LIMIT_BYTES = 16 << 20  # the largest sensible value, an xattr blob, has 130 kB
_STATEMENT_LIMIT_BYTES = 64 << 10  # also bounds each table definition inside the file
_PAGE_CACHE_KIB = 1024  # a database; the kernel has the file in its own cache
_FETCH_ROWS = 128  # rows taken from SQLite at a time while streaming

# A query that reads a whole database once takes less than one step a byte. A b-tree whose pages refer to each other
# in a ring or a mesh takes for ever, and only this stops it.
_STEPS_BETWEEN_CHECKS = 250_000
_FREE_CHECKS = 20
_STEPS_PER_BYTE = 16

_NO_TEMPORARY_FILE = frozenset((sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL))
_PRIMARY_CODE = 0xFF  # of an extended result code

FOREIGN_ERRORS = (sqlite3.Error, ValueError, OverflowError, MemoryError)  # UnicodeDecodeError is a ValueError


class LocalObject(Protocol):
    """What a catalog needs of a pin: an open, verified local object."""

    @property
    def fd(self) -> int: ...
    @property
    def path(self) -> str | None: ...
    @property
    def size_bytes(self) -> int: ...
    def read(self, size: int | None = None, offset: int = 0) -> bytes: ...
    def close(self) -> None: ...


class Database:
    """One open database. It owns the local object it was opened from, and closes it with itself."""

    __slots__ = (
        "_checks_left",
        "_checks_limit",
        "_closing",
        "_connection",
        "_execute",
        "_local",
        "_streams",
        "subject",
    )

    def __init__(self, local: LocalObject, connection: sqlite3.Connection, subject: Subject) -> None:
        self.subject = subject
        self._local = local
        self._connection = connection
        self._execute = connection.execute
        self._checks_limit = _FREE_CHECKS + local.size_bytes * _STEPS_PER_BYTE // _STEPS_BETWEEN_CHECKS
        self._checks_left = self._checks_limit
        self._streams = 0
        self._closing = False

    def row(self, statement: str, parameters: Sequence[object] = ()) -> Row | None:
        """The first row."""
        self._checks_left = self._checks_limit
        try:
            found: Row | None = self._execute(statement, parameters).fetchone()
        except FOREIGN_ERRORS as error:
            raise self._translated(error) from error
        return found

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows; for queries that are bounded by a LIMIT or by nature."""
        self._checks_left = self._checks_limit
        try:
            return self._execute(statement, parameters).fetchall()
        except FOREIGN_ERRORS as error:
            raise self._translated(error) from error

    def stream(self, statement: str, parameters: Sequence[object] = ()) -> Generator[Row, None, None]:
        """All rows, a few at a time. The query starts with the first row that is asked for.

        Close it where a row may be an error: the error keeps the stream alive, and with it the database.
        """
        rows = self._stream(statement, parameters)
        next(rows)  # from here on it counts, and is sure to be counted off whenever it is dropped
        return rows

    def _stream(self, statement: str, parameters: Sequence[object]) -> Generator[Row, None, None]:
        self._streams += 1
        try:
            yield ()
            cursor, batch = self._first_rows(statement, parameters)
            while batch:
                yield from batch
                try:
                    batch = cursor.fetchmany(_FETCH_ROWS)
                except FOREIGN_ERRORS as error:
                    raise self._translated(error) from error
        finally:
            self._streams -= 1
            if self._closing:
                self.close()

    def close(self) -> None:
        """Closes now, or with the last stream that is still open. Twice is fine."""
        self._closing = True
        if self._streams == 0:
            self._connection.close()
            self._local.close()

    def within_limits(self) -> int:
        """SQLite's progress handler: non-zero stops the query."""
        self._checks_left -= 1
        return self._checks_left < 0

    def _first_rows(self, statement: str, parameters: Sequence[object]) -> tuple[sqlite3.Cursor, list[Row]]:
        self._checks_left = self._checks_limit
        try:
            try:
                cursor = self._execute(statement, parameters)
                return cursor, cursor.fetchmany(_FETCH_ROWS)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & _PRIMARY_CODE not in _NO_TEMPORARY_FILE:
                    raise
                # A large sort spills into a temporary file. Where none can be written it has to stay in memory.
                self._execute("PRAGMA temp_store=MEMORY").close()
                cursor = self._execute(statement, parameters)
                return cursor, cursor.fetchmany(_FETCH_ROWS)
        except FOREIGN_ERRORS as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> CatalogError:
        if self._closing and self._streams == 0:
            return CatalogError(f"{self.subject.name} is not attached any more")  # nothing is wrong with the object
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return self.subject.damaged("a query does not end")
        return self.subject.unusable(f"cannot be read: {error}")


def open_database(local: LocalObject, subject: Subject) -> Database:
    """Opens a local object. It belongs to the database from the start: a failure closes it."""
    connection = None
    try:
        connection = _connect(local)
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_LIMIT_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _STATEMENT_LIMIT_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", f"cache_size=-{_PAGE_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").close()
        database = Database(local, connection, subject)
        connection.set_progress_handler(database.within_limits, _STEPS_BETWEEN_CHECKS)
        connection.set_authorizer(_authorize)
    except BaseException as error:
        if connection is not None:
            connection.close()
        local.close()
        if isinstance(error, FOREIGN_ERRORS):
            raise subject.unusable(f"cannot be opened: {error}") from error
        raise
    return database


def _authorize(action: int, argument: str | None, _detail: str | None, _schema: str | None, view: str | None) -> int:
    """Allows reading tables directly: no view, function, common table expression or write."""
    if view is None and (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        or (action == sqlite3.SQLITE_PRAGMA and argument in ("table_xinfo", "temp_store"))
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _connect(local: LocalObject) -> sqlite3.Connection:
    """By name, because SQLite takes no descriptor; where the name is not the pinned file any more, from its bytes."""
    if local.path is not None and _is_pinned_file(local, local.path):
        # immutable: no locks, no journal, and the catalog may lie on a read-only disk
        connection = sqlite3.connect(
            f"file://{_quoted(os.path.abspath(local.path))}?mode=ro&immutable=1",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        if _is_pinned_file(local, local.path):
            return connection
        connection.close()
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        if not hasattr(connection, "deserialize"):  # depends on how SQLite was built
            raise sqlite3.NotSupportedError("the SQLite library of this Python cannot open a database in memory")
        connection.deserialize(local.read())
    except BaseException:
        connection.close()
        raise
    return connection


def _is_pinned_file(local: LocalObject, path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(local.fd))
    except OSError:
        return False


def _quoted(path: str) -> str:
    """The path inside a file: URL. (Importing urllib for this costs more than opening ten catalogs.)"""
    return "".join(chr(b) if b in _PLAIN else f"%{b:02x}" for b in os.fsencode(path))


_PLAIN = frozenset(b"/._-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
