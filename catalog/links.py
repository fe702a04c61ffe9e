"""From rows back to names: the path of a row, and the row that stands for a hard-link group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.pathkey import path_key

if TYPE_CHECKING:
    from catalog.entry import Entry
    from catalog.sql import Database

_DEPTH_LIMIT = 4096

_BY_ROWID = "SELECT md5path_1, md5path_2, parent_1, parent_2, name FROM catalog WHERE rowid = ?"
_BY_KEY = "SELECT md5path_1, md5path_2, parent_1, parent_2, name FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"

# Groups are numbered per catalog, and publishers allow them inside one directory only: the index over the parents
# makes this a scan of the directory, not of the catalog.
_LINKED = """
    SELECT member.rowid, member.hardlinks, member.hash, member.size, member.mode, member.flags FROM catalog AS known
    CROSS JOIN catalog AS member ON member.parent_1 = known.parent_1 AND member.parent_2 = known.parent_2
    WHERE known.rowid = ? AND member.hardlinks >= 4294967296 ORDER BY member.rowid
"""
_MEMORY_LIMIT = 100_000  # groups


def find_path(database: Database, rowid: int, root_prefix: bytes) -> bytes | None:
    """The path of a row as its catalog calls it, from the names of the directories above it."""
    row = database.row(_BY_ROWID, (rowid,))
    if row is None:
        return None
    key = row[:2]
    top = path_key(root_prefix)
    names: list[bytes] = []
    while row[:2] != top:
        if type(row[4]) is not bytes or len(names) == _DEPTH_LIMIT:
            raise database.subject.damaged(f"its row {rowid} has no proper path")
        names.append(row[4])
        row = database.row(_BY_KEY, row[2:4])
        if row is None:
            raise database.subject.damaged(f"its row {rowid} is in a directory that does not exist")
    path = b"/".join((root_prefix, *reversed(names)))
    if path_key(path) != key:
        raise database.subject.damaged(f"its row {rowid} is not stored under its own path")
    return path


class FirstLinks:
    """The first row of each hard-link group. A directory is scanned once, with its first linked entry."""

    __slots__ = ("_database", "_first")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._first: dict[tuple[object, ...], int] = {}

    def of(self, entry: Entry) -> int:
        """Members that claim a group but differ in content are not members."""
        sought = (entry.hardlinks, entry.digest, entry.size, entry.mode, entry.flags)
        found = self._first.get(sought)
        if found is None:
            if len(self._first) > _MEMORY_LIMIT:
                self._first.clear()
            for rowid, hardlinks, digest, size, mode, flags in self._database.stream(_LINKED, (entry.rowid,)):
                self._first.setdefault((hardlinks, digest or None, size, mode, flags), rowid)
            found = self._first.setdefault(sought, entry.rowid)
        return found
