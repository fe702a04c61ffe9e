"""One catalog: an open database that answers for the paths below its mountpoint. Knows no other catalog.

Paths are those of the mount; the catalog's own names for them begin with its root prefix, which differs from the
mountpoint below bind mountpoints. What a row says is checked whenever it is read, and nothing else is shown.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.address import ContentHash, Kind
from catalog.chunks import read_chunks
from catalog.entry import Entry, check_name, damaged_row, entry_from_row
from catalog.errors import Subject, show_path
from catalog.flags import ALGORITHM_SHIFT, ALGORITHMS, HIDDEN
from catalog.links import FirstLinks, Paths
from catalog.pathkey import path_key
from catalog.properties import Properties, catalog_properties
from catalog.schema import Schema, read_schema
from catalog.sql import Database, LocalObject, open_database
from catalog.statistics import Counters, read_counters
from catalog.tables import Tables, read_properties, read_tables
from catalog.transitions import Transitions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from catalog.entry import Chunk

_ENTRY_COLUMNS = len(Entry._fields)
_IS_DIRECTORY = "mode & 61440 = 16384"  # S_IFMT, S_IFDIR
_BEFORE_ALL_ROWS = -(1 << 63)
_ROWID_LIMIT = 1 << 48  # inode numbers are made of row numbers, and nobody has that many entries


class Page(NamedTuple):
    """A part of a listing. `next_rowid`: go on after this one; None: that was all."""

    entries: list[Entry]
    next_rowid: int | None


class Catalog:
    """An attached catalog. Close it, or let its tree do it; streams that are open keep it usable until they end."""

    def __init__(self, database: Database, mountpoint: bytes, content_hash: ContentHash) -> None:
        """For `Catalog.open`, which closes the database when this fails."""
        self.mountpoint = mountpoint
        self.content_hash = content_hash
        self._database = database
        self._subject = database.subject
        tables = read_tables(database)
        self._tables: Tables = tables
        stored = read_properties(database, tables)
        self.schema: Schema = read_schema(database.subject, stored, tables)
        self.properties: Properties = catalog_properties(database.subject, stored)
        self.root_prefix = self.properties.root_prefix
        self.transitions = Transitions(database, self.schema, mountpoint, self.root_prefix)
        self._first_links = FirstLinks(database)
        self._paths = Paths(database, self.root_prefix)
        self._before_2_1 = self.schema.before_2_1
        self._is_in_place = self.root_prefix == mountpoint
        columns = self.schema.entry_columns
        below = f"SELECT {columns}, md5path_1, md5path_2 FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
        self._sql_by_key = f"SELECT {columns} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
        self._sql_by_rowid = f"SELECT {columns}, md5path_1, md5path_2 FROM catalog WHERE rowid = ?"
        self._sql_page = f"{below} AND rowid > ? ORDER BY rowid LIMIT ?"
        self._sql_by_name = f"{below} ORDER BY name COLLATE BINARY"
        self._sql_directories = f"{below} AND {_IS_DIRECTORY} ORDER BY name COLLATE BINARY"
        last = database.row("SELECT rowid FROM catalog ORDER BY rowid DESC LIMIT 1")
        self.max_rowid: int = 0 if last is None else last[0]
        if not 0 <= self.max_rowid < _ROWID_LIMIT:
            raise self._subject.damaged(f"{self.max_rowid} is not the number of a row")

    @classmethod
    def open(cls, local: LocalObject, mountpoint: bytes, content_hash: ContentHash) -> Catalog:
        """Opens a local object as the catalog of a mountpoint. Takes the object over, also when this fails."""
        database = open_database(
            local, Subject(f"the catalog of {show_path(mountpoint)} ({content_hash})", content_hash)
        )
        try:
            return cls(database, mountpoint, content_hash)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at a path at or below the mountpoint; for a path in another catalog the answer is worthless."""
        own_path = path if self._is_in_place else self._own(path)
        row = self._database.row(self._sql_by_key, path_key(own_path))
        if row is None:
            return None
        entry = entry_from_row(row, self._before_2_1, self._subject)
        if entry.name != own_path.rpartition(b"/")[2]:
            raise damaged_row(self._subject, entry.rowid, entry.name, f"it is stored as {show_path(own_path)}")
        self._check_rowid(entry)
        return entry

    def entry(self, rowid: int) -> Entry | None:
        """The entry in a row."""
        row = self._database.row(self._sql_by_rowid, (rowid,))
        if row is None:
            return None
        entry = entry_from_row(row[:_ENTRY_COLUMNS], self._before_2_1, self._subject)
        if row[_ENTRY_COLUMNS:] != path_key(self.root_prefix):
            check_name(entry.name, rowid, self._subject)
        self._check_rowid(entry)
        return entry

    def page(self, directory: bytes, after_rowid: int, limit: int, *, hidden: bool = False) -> Page:
        """Up to `limit` entries of a directory in the order of their rows, from the first after `after_rowid` on."""
        own_directory = self._own(directory)
        after_rowid = after_rowid if after_rowid > 0 else _BEFORE_ALL_ROWS  # a row out of range must not go unseen
        rows = self._database.rows(self._sql_page, (*path_key(own_directory), after_rowid, limit))
        entries = []
        for row in rows:
            entry = self._listed(row, own_directory + b"/")
            if entry.rowid <= after_rowid:
                raise self._subject.damaged(f"its row {entry.rowid} is out of order")
            after_rowid = entry.rowid
            if hidden or not entry.flags & HIDDEN:
                entries.append(entry)
        return Page(entries, after_rowid if len(rows) == limit else None)

    def by_name(self, directory: bytes, *, only_directories: bool = False) -> Iterator[Entry]:
        """All entries of a directory, hidden ones too, ordered by the bytes of their names; streams from the disk."""
        own_directory = self._own(directory)
        statement = self._sql_directories if only_directories else self._sql_by_name
        rows = self._database.stream(statement, path_key(own_directory))
        return self._in_order(rows, own_directory + b"/")

    def chunks(self, entry: Entry) -> tuple[Chunk, ...]:
        """The chunks of a chunked file of this catalog, in order and without gaps."""
        if not self.schema.has_chunks:
            return ()
        return read_chunks(self._database, entry)

    def path_of(self, rowid: int) -> bytes | None:
        """The path of a row as seen in the mount."""
        own_path = self._paths.of(rowid)
        return None if own_path is None else self.mountpoint + own_path[len(self.root_prefix) :]

    def first_link(self, entry: Entry) -> int:
        """The row that stands for all members of the entry's hard-link group: the first of them in the directory."""
        return self._first_links.of(entry) if entry.hardlink_group else entry.rowid

    def object_hashes(self) -> Iterator[tuple[ContentHash, Kind]]:
        """Every object that a row or a chunk of this catalog names, external ones too, in no particular order."""
        chunks = "SELECT chunks.hash, catalog.flags FROM chunks CROSS JOIN catalog"
        same = "ON chunks.md5path_1 = catalog.md5path_1 AND chunks.md5path_2 = catalog.md5path_2"
        statements = [("SELECT hash, flags FROM catalog", Kind.BULK)]
        if self.schema.has_chunks:
            statements.append((f"{chunks} {same}", Kind.CHUNK))
        for statement, kind in statements:
            for digest, flags in self._database.stream(statement):
                if not digest:
                    continue
                number = (flags >> ALGORITHM_SHIFT) & 7 if type(flags) is int and not self._before_2_1 else 0
                if type(digest) is not bytes or len(digest) != 20 or number >= len(ALGORITHMS):
                    raise self._subject.damaged("it names an object by something that is no hash")
                yield ContentHash(ALGORITHMS[number], digest), kind

    def row_count(self) -> int:
        return sum(1 for _ in self._database.stream("SELECT rowid FROM catalog"))

    def counters(self) -> Counters:
        return read_counters(self._database, self._tables)

    def _own(self, path: bytes) -> bytes:
        """The path as this catalog calls it."""
        return self.root_prefix + path[len(self.mountpoint) :]

    def _in_order(self, rows: Generator[tuple[Any, ...], None, None], prefix: bytes) -> Iterator[Entry]:
        last = b""
        with closing(rows):
            for row in rows:
                entry = self._listed(row, prefix)
                if entry.name <= last:
                    raise damaged_row(self._subject, entry.rowid, entry.name, "its name occurs twice or out of order")
                last = entry.name
                yield entry

    def _listed(self, row: tuple[Any, ...], prefix: bytes) -> Entry:
        entry = entry_from_row(row[:_ENTRY_COLUMNS], self._before_2_1, self._subject)
        name = entry.name
        check_name(name, entry.rowid, self._subject)
        # 0.5 us a row: it makes sure that what is listed can be looked up, and that no directory contains itself.
        if path_key(prefix + name) != row[_ENTRY_COLUMNS:]:
            raise damaged_row(self._subject, entry.rowid, name, f"it is not stored as {show_path(prefix + name)}")
        self._check_rowid(entry)
        return entry

    def _check_rowid(self, entry: Entry) -> None:
        if not 0 < entry.rowid <= self.max_rowid:
            raise self._subject.damaged(f"its row {entry.rowid} is out of range")
