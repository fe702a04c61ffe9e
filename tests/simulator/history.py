"""Writes history databases (tags) of every revision, and reflogs.

Does not store or sign. Stateless; each call writes one database file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import ContentHash, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

REFLOG_TYPES = {Kind.CATALOG: 0, Kind.CERTIFICATE: 1, Kind.HISTORY: 2, Kind.METAINFO: 3}
_PROPERTIES = "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))"


@dataclass(frozen=True, slots=True)
class Tag:
    """A named revision."""

    name: str
    root_hash: ContentHash
    revision: int
    timestamp_s: int
    description: str = ""
    size_bytes: int = 0
    branch: str = ""


@dataclass(frozen=True, slots=True)
class LoggedObject:
    """A line of the reflog."""

    content_hash: ContentHash
    kind: Kind
    timestamp_s: int


def write_history(
    file: Path,
    fqrn: str,
    tags: Iterable[Tag],
    *,
    revision: int = 3,
    previous: ContentHash | None = None,
    statements: Iterable[str] = (),
) -> None:
    """A history database of schema 1.0 and this schema revision (0 to 3)."""
    columns = ["name", "hash", "revision", "timestamp", "channel", "description"]
    columns += ["size"] if revision >= 1 else []
    columns += ["branch"] if revision >= 3 else []
    types = dict.fromkeys(("revision", "timestamp", "channel", "size"), "INTEGER")
    declared = ", ".join(f"{name} {types.get(name, 'TEXT')}" for name in columns)
    foreign = ", FOREIGN KEY (branch) REFERENCES branches (branch)" if revision >= 3 else ""
    with closing(_create(file)) as database:
        database.execute(_PROPERTIES)
        if revision >= 3:
            database.execute(
                "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, "
                "CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch), "
                "CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))"
            )
            database.execute("INSERT INTO branches VALUES ('', NULL, 0)")
        database.execute(f"CREATE TABLE tags ({declared}, CONSTRAINT pk_tags PRIMARY KEY (name){foreign})")
        if revision >= 2:
            database.execute(
                "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))"
            )
        properties = {"schema": "1.0", "schema_revision": str(revision), "fqrn": fqrn}
        if previous is not None:
            properties["previous_revision"] = str(previous)
        database.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
        for tag in tags:
            if revision >= 3 and tag.branch:
                row = (tag.branch, "", tag.revision)
                database.execute("INSERT OR IGNORE INTO branches VALUES (?, ?, ?)", row)
            values: dict[str, object] = {
                "name": tag.name,
                "hash": str(tag.root_hash),
                "revision": tag.revision,
                "timestamp": tag.timestamp_s,
                "channel": 0,
                "description": tag.description,
                "size": tag.size_bytes,
                "branch": tag.branch,
            }
            marks = ", ".join("?" * len(columns))
            database.execute(f"INSERT INTO tags VALUES ({marks})", [values[name] for name in columns])
        database.execute("COMMIT")
        for statement in statements:
            database.execute(statement)


def write_reflog(file: Path, fqrn: str, objects: Iterable[LoggedObject]) -> None:
    """The list of all root objects that were ever published."""
    with closing(_create(file)) as database:
        database.execute(_PROPERTIES)
        database.execute(
            "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash))"
        )
        properties = {"schema": "1.0", "schema_revision": "0", "fqrn": fqrn}
        database.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
        rows = [(str(item.content_hash), REFLOG_TYPES[item.kind], item.timestamp_s) for item in objects]
        database.executemany("INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", rows)
        database.execute("COMMIT")


def _create(file: Path) -> sqlite3.Connection:
    file.unlink(missing_ok=True)
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    return database
