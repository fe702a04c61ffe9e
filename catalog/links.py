"""From rows back to names: the path of a row, and the row that stands for a hard-link group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.pathkey import path_key

if TYPE_CHECKING:
    from catalog.entry import Entry
    from catalog.sql import Database

_DEPTH_LIMIT = 4096
_PATHS_LIMIT = 256  # in one catalog: neighbours are what is asked about

_BY_ROWID = "SELECT md5path_1, md5path_2, parent_1, parent_2, name FROM catalog WHERE rowid = ?"
_BY_KEY = "SELECT md5path_1, md5path_2, parent_1, parent_2, name FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"

# Groups are numbered per catalog, and publishers allow them inside one directory only. Where a number occurs in another
# directory, too, these are two groups: else the numbers would depend on which of them was looked at first. The index
# over the parents makes this a scan of the directory, not of the catalog.
_LINKED = """
    SELECT member.rowid, member.hardlinks, member.hash, member.size, member.mode, member.flags FROM catalog AS known
    CROSS JOIN catalog AS member ON member.parent_1 = known.parent_1 AND member.parent_2 = known.parent_2
    WHERE known.rowid = ? AND member.hardlinks >= 4294967296 ORDER BY member.rowid
"""
_MEMORY_LIMIT = 100_000  # members


class Paths:
    """The paths of rows as their catalog calls them, from the names of the directories above them."""

    __slots__ = ("_database", "_known", "_root_prefix")

    def __init__(self, database: Database, root_prefix: bytes) -> None:
        self._database = database
        self._root_prefix = root_prefix
        # Neighbours have the same directories above them, and each is a query.
        self._known: dict[tuple[object, ...], bytes] = {}  # of directories, by key

    def of(self, rowid: int) -> bytes | None:
        database = self._database
        row = database.row(_BY_ROWID, (rowid,))
        if row is None:
            return None
        key, parent = row[:2], row[2:4]
        top = path_key(self._root_prefix)
        if key == top:
            return self._root_prefix
        names: list[bytes] = []
        above = None
        while row[:2] != top:
            if type(row[4]) is not bytes or len(names) == _DEPTH_LIMIT:
                raise database.subject.damaged(f"its row {rowid} has no proper path")
            names.append(row[4])
            above = self._known.get(row[2:4])
            if above is not None:
                break
            row = database.row(_BY_KEY, row[2:4])
            if row is None:
                raise database.subject.damaged(f"its row {rowid} is in a directory that does not exist")
        path = b"/".join((self._root_prefix if above is None else above, *reversed(names)))
        if path_key(path) != key:
            raise database.subject.damaged(f"its row {rowid} is not stored under its own path")
        if len(self._known) >= _PATHS_LIMIT:
            self._known.clear()
        directory = path.rpartition(b"/")[0]
        if path_key(directory) == parent:
            self._known[parent] = directory
        return path


class FirstLinks:
    """The first row of each hard-link group. A directory is scanned once, with its first linked entry."""

    __slots__ = ("_database", "_first")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._first: dict[int, int] = {}  # by the row of each member

    def of(self, entry: Entry) -> int:
        """Members that claim a group but differ in content are not members."""
        found = self._first.get(entry.rowid)
        if found is None:
            if len(self._first) > _MEMORY_LIMIT:
                self._first.clear()
            groups: dict[tuple[object, ...], int] = {}  # of this directory
            for rowid, hardlinks, digest, size, mode, flags in self._database.stream(_LINKED, (entry.rowid,)):
                self._first[rowid] = groups.setdefault((hardlinks, digest or None, size, mode, flags), rowid)
            found = self._first.setdefault(entry.rowid, entry.rowid)
        return found
