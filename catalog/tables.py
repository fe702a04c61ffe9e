"""What a database file really holds: its plain tables with their plain columns, and its properties.

Shared by catalogs and tag databases; knows neither. What only looks like a table (a view, a virtual table, a generated
column) is not there for this module, so that a query never runs code that came with the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from catalog.errors import Subject
    from catalog.sql import Database

Tables: TypeAlias = "dict[str, frozenset[str]]"

_KNOWN = (
    "bind_mountpoints",
    "catalog",
    "chunks",
    "nested_catalogs",
    "properties",
    "statistics",
    "tags",
)
_OBJECT_LIMIT = 1000  # tables and indices in one file; real ones have less than 20
_PROPERTY_LIMIT = 1000  # real ones have about 10
_CREATE_TABLE = re.compile(rb"CREATE\s+TABLE\s", re.IGNORECASE)
_ROWID_NAMES = frozenset((b"rowid", b"oid", b"_rowid_"))
_NUMBER = re.compile(rb"\s*(\d{1,19})(?:\.\d*)?\s*\Z")
_INTEGER_LIMIT = 1 << 63


def read_tables(database: Database) -> Tables:
    found = database.rows("SELECT type, name, sql FROM sqlite_master LIMIT ?", (_OBJECT_LIMIT + 1,))
    if len(found) > _OBJECT_LIMIT:
        raise database.subject.damaged(f"it has more than {_OBJECT_LIMIT} tables and indices")
    real = {
        name
        for kind, name, sql in found
        if kind == b"table" and type(name) is bytes and type(sql) is bytes and _CREATE_TABLE.match(sql)
    }
    tables: Tables = {}
    for table in _KNOWN:
        if table.encode() not in real:
            continue
        columns = database.rows(f"PRAGMA table_xinfo({table})")
        if any(column[1].lower() in _ROWID_NAMES for column in columns):
            raise database.subject.damaged(f"its table {table} has a column in place of the row number")
        tables[table] = frozenset(column[1].decode("latin-1") for column in columns if column[6] == 0)
    return tables


def require_columns(subject: Subject, tables: Tables, table: str, columns: tuple[str, ...]) -> None:
    if table not in tables:
        raise subject.damaged(f"it has no table {table}")
    missing = [column for column in columns if column not in tables[table]]
    if missing:
        raise subject.damaged(f"its table {table} lacks the column {missing[0]}")


class PropertyTable:
    """The `properties` of a database. Their values are text, whatever they stand for."""

    __slots__ = ("_subject", "_values")

    def __init__(self, subject: Subject, values: dict[bytes, object]) -> None:
        self._subject = subject
        self._values = values

    def text(self, key: bytes) -> bytes | None:
        """The value up to a NUL, as the writers of these databases understood text."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, int | float):
            return b"%d" % value if isinstance(value, int) else str(value).encode()
        if not isinstance(value, bytes):
            raise self._subject.damaged(f"its property {key.decode()} is not text")
        return value.partition(b"\0")[0]

    def number(self, key: bytes, default: int) -> int:
        text = self.text(key)
        if text is None:
            return default
        match = _NUMBER.match(text)
        if match is None or int(match[1]) >= _INTEGER_LIMIT:
            raise self._subject.damaged(f"its property {key.decode()} is not a number")
        return int(match[1])


def read_properties(database: Database, tables: Tables) -> PropertyTable:
    require_columns(database.subject, tables, "properties", ("key", "value"))
    found = database.rows("SELECT key, value FROM properties LIMIT ?", (_PROPERTY_LIMIT + 1,))
    if len(found) > _PROPERTY_LIMIT:
        raise database.subject.damaged(f"it has more than {_PROPERTY_LIMIT} properties")
    return PropertyTable(database.subject, {key: value for key, value in found if type(key) is bytes})
