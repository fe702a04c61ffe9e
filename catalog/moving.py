"""Moves whole subtrees of rows: out of a catalog into another one, back, or away. Rows never pass through Python.

Paths of transitions and what the rows of mountpoints say are for the caller. Stateless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.newest_schema import CHUNK_COLUMNS, COLUMNS

if TYPE_CHECKING:
    from catalog.pathkey import PathKey
    from catalog.writing import WorkingCopy

_SELECT_BELOW = """
    CREATE TEMP TABLE selected AS
    WITH RECURSIVE below (id, key_1, key_2) AS (
        SELECT rowid, md5path_1, md5path_2 FROM main.catalog WHERE parent_1 = ? AND parent_2 = ?
        UNION ALL
        SELECT catalog.rowid, catalog.md5path_1, catalog.md5path_2
        FROM below JOIN main.catalog ON catalog.parent_1 = below.key_1 AND catalog.parent_2 = below.key_2
    )
    SELECT id, key_1, key_2 FROM below
"""
_SELECTED_CHUNKS = """
    FROM temp.selected CROSS JOIN main.chunks ON chunks.md5path_1 = selected.key_1 AND chunks.md5path_2 = selected.key_2
"""
_OTHER = "other"
# Group numbers are those of one catalog: below the highest one of the other catalog they would mix.
_RENUMBERED = COLUMNS.replace(
    "hardlinks",
    "CASE WHEN hardlinks > 4294967295 AND mode >> 12 & 15 <> 4 THEN hardlinks + (? << 32) ELSE hardlinks END",
)


def remove_below(copy: WorkingCopy, key: PathKey) -> int:
    """Removes all rows of this catalog below a path, with their chunks; their number."""
    copy.run(_SELECT_BELOW, key)
    count = _delete_selected(copy)
    copy.run("DROP TABLE temp.selected")
    return count


def move_below(copy: WorkingCopy, key: PathKey, other: WorkingCopy) -> int:
    """Moves all rows below a path, with their chunks, to another catalog; their number."""
    other.commit()
    copy.attach(other.path, _OTHER)
    copy.run(_SELECT_BELOW, key)
    copy.run(
        f"INSERT INTO {_OTHER}.catalog ({COLUMNS}) SELECT {COLUMNS} FROM main.catalog "
        "WHERE rowid IN (SELECT id FROM temp.selected) ORDER BY rowid"
    )
    columns = CHUNK_COLUMNS.replace("md5", "chunks.md5")
    copy.run(f"INSERT INTO {_OTHER}.chunks ({CHUNK_COLUMNS}) SELECT {columns} {_SELECTED_CHUNKS}")
    count = _delete_selected(copy)
    copy.run("DROP TABLE temp.selected")
    copy.detach(_OTHER)
    return count


def absorb(copy: WorkingCopy, other: WorkingCopy, top: PathKey, group_offset: int) -> int:
    """Copies all rows of another catalog but its top one, with their chunks; their number."""
    other.commit()
    copy.attach(other.path, _OTHER)
    count = copy.run(
        f"INSERT INTO main.catalog ({COLUMNS}) SELECT {_RENUMBERED} FROM {_OTHER}.catalog "
        "WHERE NOT (md5path_1 = ? AND md5path_2 = ?) ORDER BY rowid",
        (group_offset, *top),
    )
    copy.run(f"INSERT INTO main.chunks ({CHUNK_COLUMNS}) SELECT {CHUNK_COLUMNS} FROM {_OTHER}.chunks")
    copy.detach(_OTHER)
    return count


def _delete_selected(copy: WorkingCopy) -> int:
    copy.run(f"DELETE FROM main.chunks WHERE rowid IN (SELECT chunks.rowid {_SELECTED_CHUNKS})")
    return copy.run("DELETE FROM main.catalog WHERE rowid IN (SELECT id FROM temp.selected)")
