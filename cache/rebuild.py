"""Making an index, and comparing it with the files that are there: after a crash, a lost index, a foreign hand.

The comparison goes object directory by object directory, so that a mount can do it in small steps between commits.
sqlite-utils is imported here, when it is needed, because it takes 60 ms.

Concurrency: any process may compare at any time; each step is one write transaction, which makes it exact, because
processes record an object only after it is in place.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cache.index import SCHEMA_VERSION, Index, translated
from cache.layout import PREFIXES, walk_prefix
from cache.lockfile import create_locked, remove_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from cache.layout import Layout

    _Row = dict[str, str | int | None]

# Uses are numbered from 1; what was never used since it was found sorts before, by its time of last access.
_BEFORE_ALL_USES = -(2**62)

_STEP_FILES = 1024  # in one transaction: about 10 ms, during which other processes wait

_TRIGGERS = """
CREATE TRIGGER objects_inserted AFTER INSERT ON objects BEGIN
  UPDATE gauge SET bytes = bytes + NEW.size_bytes, objects = objects + 1; END;
CREATE TRIGGER objects_deleted AFTER DELETE ON objects BEGIN
  UPDATE gauge SET bytes = bytes - OLD.size_bytes, objects = objects - 1; END;
CREATE TRIGGER objects_resized AFTER UPDATE OF size_bytes ON objects BEGIN
  UPDATE gauge SET bytes = bytes - OLD.size_bytes + NEW.size_bytes; END;
"""


def create_index(layout: Layout) -> None:
    """Put a new, empty index in place of whatever is there. Raises OSError, IndexBusyError."""
    import sqlite3

    import sqlite_utils

    fd, temporary = create_locked(layout.txn, "index")
    try:
        with translated(), contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            database = sqlite_utils.Database(connection, execute_plugins=False)
            objects = sqlite_utils.db.Table(database, "objects")
            columns = {"hash": str, "size_bytes": int, "last_use": int, "kind": str, "volatile": int, "label": str}
            objects.create(columns, pk="hash", not_null={"size_bytes", "last_use", "volatile"})
            objects.create_index(["volatile", "last_use", "hash"])
            objects.create_index(["last_use", "hash"])
            sqlite_utils.db.Table(database, "gauge").insert({"id": 1, "bytes": 0, "objects": 0}, pk="id")
            sqlite_utils.db.Table(database, "meta").insert({"id": 1, "complete": 0}, pk="id")
            connection.executescript(_TRIGGERS)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.commit()
        # A journal that a killed process left would be rolled back into the new file.
        remove_file(layout.index + "-journal")
        os.rename(temporary, layout.index)
    finally:
        os.close(fd)
        remove_file(temporary)
        remove_file(temporary + "-journal")


def is_complete(index: Index) -> bool:
    """Whether the index was compared with the files since it was made."""
    with translated():
        row = index.connection.execute("SELECT complete FROM meta").fetchone()
        return row is not None and bool(row[0])


def reconcile(index: Index, layout: Layout) -> Iterator[int]:
    """Make the rows agree with the files; yields the number of files seen after each of its transactions."""
    prefixes = iter(PREFIXES)
    prefix = next(prefixes, None)
    while prefix is not None:
        seen = 0
        missing: list[_Row] = []
        with index.transaction() as connection:
            while prefix is not None and seen < _STEP_FILES:
                seen += _reconcile_prefix(connection, layout, prefix, missing)
                prefix = next(prefixes, None)
            if missing:
                import sqlite_utils

                # Last, because some of its versions end the transaction by themselves.
                database = sqlite_utils.Database(connection, execute_plugins=False)
                sqlite_utils.db.Table(database, "objects").insert_all(missing, pk="hash", ignore=True)
        yield seen
    with index.transaction() as connection:
        connection.execute("UPDATE meta SET complete = 1")


def _reconcile_prefix(connection: sqlite3.Connection, layout: Layout, prefix: str, missing: list[_Row]) -> int:
    # The write lock is held before the listing: whoever adds a file after it records it after this transaction.
    rows = {
        row[0]
        for row in connection.execute("SELECT hash FROM objects WHERE hash >= ? AND hash < ?", (prefix, prefix + "~"))
    }
    files = {text: path for path, text, content_hash in walk_prefix(layout.objects, prefix) if content_hash}
    connection.executemany("DELETE FROM objects WHERE hash = ?", [(text,) for text in rows - files.keys()])
    for text in files.keys() - rows:
        with contextlib.suppress(OSError):  # evicted meanwhile
            info = os.stat(files[text])
            missing.append(
                {
                    "hash": text,
                    "size_bytes": info.st_size,
                    "last_use": _BEFORE_ALL_USES + info.st_atime_ns,
                    "kind": None,
                    "volatile": 0,
                    "label": "",
                }
            )
    return len(files)
