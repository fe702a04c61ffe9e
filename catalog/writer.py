"""Writes one catalog of the newest schema (2.5 revision 7): a new one, or a working copy of a stored one.

Rows go in by path, one by one, in any order, and replace what is there; counters and link counts are computed when the
catalog is finished. Does not know what a change means for other rows or other catalogs; neither compresses nor stores.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache.address import ContentHash, parse_hash
from catalog import flags as bits
from catalog import moving, recount
from catalog.entry import Chunk, Entry, entry_from_row
from catalog.errors import Subject, show_path
from catalog.newest_schema import BY_KEY, CHUNK_COLUMNS, PUT, SCHEMA, TABLES
from catalog.pathkey import path_key
from catalog.statistics import NAMES, Counters
from catalog.writing import WorkingCopy

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from catalog.new_entry import NewEntry
    from catalog.pathkey import PathKey

_ENTRY = "rowid, name, mode, size, mtime, mtimens, uid, gid, hardlinks, flags, hash, symlink, xattr"
_GET = f"SELECT {_ENTRY} FROM catalog {BY_KEY}"
_LIST = f"SELECT {_ENTRY} FROM catalog WHERE parent_1 = ? AND parent_2 = ? ORDER BY name COLLATE BINARY"
_NO_KEY = (0, 0)  # the parent of the root directory
_BATCH_ROWS = 4096
_ROW_CACHE_KIB = 8192
_WASTE = 4  # compact when a fourth of the pages is free


class CatalogWriter:
    """An open catalog that is written. Paths are those of the repository, at or below `root_prefix`."""

    def __init__(self, copy: WorkingCopy) -> None:
        """For `create` and `open`, which close the copy when this fails."""
        self._copy = copy
        self._put_rows: dict[PathKey, tuple[object, ...]] = {}  # not yet in the database
        self._put_entries: dict[PathKey, tuple[bytes, NewEntry]] = {}
        self._put_chunks: list[tuple[object, ...]] = []
        self._last_parent: tuple[bytes, PathKey] = (b"/", _NO_KEY)
        self._last_group: int | None = None
        properties = copy.properties()
        version = properties.get(b"schema", b"1.0"), properties.get(b"schema_revision", b"0")
        if version != (b"2.5", b"7"):
            shown = " revision ".join(text.decode("latin-1") for text in version)
            raise copy.subject.unusable(
                f"has schema {shown}; only 2.5 revision 7 can be changed: "
                "migrate the repository with the server that made it first"
            )
        self.root_prefix = properties.get(b"root_prefix", b"")
        self.stored_properties = properties

    @classmethod
    def create(cls, path: str | os.PathLike[str], root_prefix: bytes, top: NewEntry) -> CatalogWriter:
        """A new catalog with its top row, in a file that must not exist."""
        copy = WorkingCopy(
            path, Subject(f"the new catalog of {show_path(root_prefix)}"), create=True, cache_kib=_ROW_CACHE_KIB
        )
        try:
            for statement in TABLES:
                copy.run(statement)
            copy.set_properties(SCHEMA | ({"root_prefix": root_prefix} if root_prefix else {}))
            writer = cls(copy)
            writer.put(root_prefix, top)
            return writer
        except BaseException:
            copy.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], root_prefix: bytes, content_hash: ContentHash | None) -> CatalogWriter:
        """A working copy, either of a stored catalog or one that was closed before."""
        name = f"the catalog of {show_path(root_prefix)}" + (f" ({content_hash})" if content_hash else "")
        copy = WorkingCopy(path, Subject(name, content_hash), create=False, cache_kib=_ROW_CACHE_KIB)
        try:
            writer = cls(copy)
            if writer.root_prefix != root_prefix:
                raise copy.subject.damaged(f"it was made for {show_path(writer.root_prefix)}")
            return writer
        except BaseException:
            copy.close()
            raise

    # --- rows

    def lookup(self, path: bytes) -> Entry | None:
        """The row of a path, also one that was just put. Link counts are right after `finish` only."""
        key = path_key(path)
        put = self._put_entries.get(key)
        if put is not None:
            return put[1].as_entry(put[0])
        row = self._copy.row(_GET, key)
        return None if row is None else entry_from_row(row, False, self._copy.subject)

    def listing(self, directory: bytes) -> Iterator[Entry]:
        """The rows right below a path, ordered by the bytes of their names. Nothing must be put meanwhile."""
        self.flush()
        for row in self._copy.stream(_LIST, path_key(directory)):
            yield entry_from_row(row, False, self._copy.subject)

    def names(self, directory: bytes) -> list[bytes]:
        """The names right below a path in order."""
        self.flush()
        statement = "SELECT name FROM catalog WHERE parent_1 = ? AND parent_2 = ? ORDER BY name COLLATE BINARY"
        return [name for (name,) in self._copy.rows(statement, path_key(directory))]

    def count_below(self, directory: bytes) -> int:
        """The number of rows right below a path."""
        self.flush()
        statement = "SELECT COUNT(*) FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
        return int((self._copy.row(statement, path_key(directory)) or (0,))[0])

    def subdirectories(self, directory: bytes) -> list[bytes]:
        """The names of the directories right below a path in order, bind mountpoints excepted."""
        self.flush()
        statement = (
            "SELECT name FROM catalog WHERE parent_1 = ? AND parent_2 = ? AND mode >> 12 & 15 = 4 "
            f"AND flags & {bits.BIND_MOUNTPOINT} = 0 ORDER BY name COLLATE BINARY"
        )
        return [name for (name,) in self._copy.rows(statement, path_key(directory))]

    def count_rows(self) -> int:
        """The number of all rows."""
        self.flush()
        return int((self._copy.row("SELECT COUNT(*) FROM catalog") or (0,))[0])

    def chunks(self, path: bytes) -> tuple[Chunk, ...]:
        """The chunks of a file in order."""
        entry = self.lookup(path)
        if entry is None or not entry.is_chunked:
            return ()
        self.flush()
        algorithm = entry.algorithm
        rows = self._copy.rows(f"SELECT offset, size, hash FROM chunks {BY_KEY} ORDER BY offset, size", path_key(path))
        return tuple(Chunk(offset, size, ContentHash(algorithm, digest)) for offset, size, digest in rows)

    def group_names(self, directory: bytes, group: int) -> list[bytes]:
        """The names of a hard-link group's members in a directory, in order."""
        self.flush()
        statement = (
            "SELECT name FROM catalog WHERE parent_1 = ? AND parent_2 = ? AND hardlinks >> 32 = ? "
            "AND mode >> 12 & 15 <> 4 ORDER BY name COLLATE BINARY"
        )
        return [name for (name,) in self._copy.rows(statement, (*path_key(directory), group))]

    def new_group(self) -> int:
        """A number that no hard-link group of this catalog has."""
        if self._last_group is None:
            self._last_group = self._highest_group()
        self._last_group += 1
        return self._last_group

    def put(self, path: bytes, new: NewEntry, replaced: Entry | None = None) -> None:
        """Writes a row. `replaced` is what `lookup` gave for the path; what is below a directory stays."""
        key = path_key(path)
        if replaced is not None and replaced.is_chunked:
            self._remove_chunks(key)
        directory, _, name = path.rpartition(b"/")
        parent = self._parent_key(directory) if path else _NO_KEY
        self._put_entries[key] = (name, new)
        self._put_rows[key] = (
            *key,
            *parent,
            new.hardlinks,
            new.digest,
            new.size,
            new.mode,
            new.mtime_s,
            new.mtime_ns,
            new.flags,
            name,
            new.symlink,
            new.uid,
            new.gid,
            new.xattr_blob,
        )
        for chunk in new.chunks:
            self._put_chunks.append((*key, chunk.offset, chunk.size, chunk.content_hash.digest))
        if len(self._put_rows) >= _BATCH_ROWS or len(self._put_chunks) >= _BATCH_ROWS:
            self.flush()

    def remove(self, path: bytes) -> None:
        """Removes a row with its chunks; what is below a directory stays."""
        self.flush()
        self._copy.begin()
        key = path_key(path)
        self._copy.run(f"DELETE FROM chunks {BY_KEY}", key)
        self._copy.run(f"DELETE FROM catalog {BY_KEY}", key)

    def remove_below(self, path: bytes) -> int:
        """Removes all rows of this catalog below a path; their number."""
        self.flush()
        self._copy.begin()
        return moving.remove_below(self._copy, path_key(path))

    def move_below_to(self, other: CatalogWriter, path: bytes) -> int:
        """Moves all rows below a path, and the transitions there, to another catalog; the number of rows."""
        self.flush()
        other.flush()
        count = moving.move_below(self._copy, path_key(path), other._copy)
        prefix = path + b"/"
        for table in ("nested_catalogs", "bind_mountpoints"):
            rows = [row for row in self._transitions(table) if row[0].startswith(prefix)]
            other._add_transitions(table, rows)
            self._remove_transitions(table, [mountpoint for mountpoint, _, _ in rows])
        other._last_group = None
        return count

    def absorb(self, other: CatalogWriter) -> int:
        """Takes over all rows of another catalog but its top one, and its transitions; the number of rows.

        The other catalog is not to be used afterwards.
        """
        self.flush()
        other.flush()
        # The numbers of the groups that come are put behind our own.
        offset = self._highest_group() if self._last_group is None else self._last_group
        count = moving.absorb(self._copy, other._copy, path_key(other.root_prefix), offset)
        for table in ("nested_catalogs", "bind_mountpoints"):
            self._add_transitions(table, other._transitions(table))
        self._last_group = None
        return count

    # --- transitions

    def nested(self) -> dict[bytes, tuple[ContentHash | None, int]]:
        """The catalogs right below this one by path: hash and size in bytes."""
        return {path: (parse_hash(text or b""), size or 0) for path, text, size in self._transitions("nested_catalogs")}

    def set_nested(self, path: bytes, content_hash: ContentHash | None, size_bytes: int) -> None:
        """Writes where the catalog of a mountpoint is; None: not known yet."""
        self._add_transitions("nested_catalogs", [(path, str(content_hash or "").encode(), size_bytes)])

    def remove_nested(self, path: bytes) -> None:
        self._remove_transitions("nested_catalogs", [path])

    def remove_binds(self, path: bytes) -> None:
        """Forgets the bind mountpoints at and below a path."""
        found = [bind for bind, _, _ in self._transitions("bind_mountpoints")]
        gone = [bind for bind in found if bind == path or bind.startswith(path + b"/")]
        if gone:
            self._remove_transitions("bind_mountpoints", gone)

    # --- the whole

    def number(self, key: bytes, default: int) -> int:
        """A property that is a number, such as `revision`."""
        text = self.stored_properties.get(key)
        if text is not None and not text.isdigit():
            raise self._copy.subject.damaged(f"its property {key.decode()} is not a number")
        return default if text is None else int(text)

    def stored_counters(self) -> Counters:
        """The counters as they were when the catalog was finished last."""
        stored: dict[Any, Any] = dict(self._copy.rows("SELECT counter, value FROM statistics"))
        if any(type(value) is not int for value in stored.values()):
            raise self._copy.subject.damaged("its counters are no numbers")
        return Counters(
            own={name: stored.get(b"self_" + name.encode(), 0) for name in NAMES},
            subtree={name: stored.get(b"subtree_" + name.encode(), 0) for name in NAMES},
        )

    def flush(self) -> None:
        """Brings all rows into the database."""
        if not self._put_rows:
            return
        self._copy.begin()
        self._copy.run_many(PUT, self._put_rows.values())
        if self._put_chunks:
            marks = "INSERT OR REPLACE INTO chunks (" + CHUNK_COLUMNS + ") VALUES (?, ?, ?, ?, ?)"
            self._copy.run_many(marks, self._put_chunks)
        self._put_rows.clear()
        self._put_entries.clear()
        self._put_chunks.clear()

    def finish(self, properties: Mapping[str, str], subtree: dict[str, int], *, compact: bool = False) -> Counters:
        """Completes the file, so that it can be stored; the counters that it has now.

        The writer stays open, and the catalog can be changed and finished again. `subtree`: the counters of all
        catalogs below. `compact`: worthwhile for a catalog with many new rows.
        """
        self.flush()
        copy = self._copy
        copy.begin()
        recount.correct_link_counts(copy)
        own = recount.count_rows(copy)
        recount.write_counters(copy, own, subtree)
        copy.set_properties(properties)
        self.stored_properties |= {key.encode(): value.encode() for key, value in properties.items()}
        copy.commit()
        if compact or self._is_wasteful():
            copy.compact()
        return Counters(own, subtree)

    def suspend(self) -> None:
        """Writes everything and closes; the file can be opened again."""
        self.flush()
        self._copy.commit()
        self._copy.close()

    def close(self) -> None:
        """Closes without completing the file, which is not to be used then. Idempotent."""
        self._copy.close()

    def _is_wasteful(self) -> bool:
        (pages,) = self._copy.row("PRAGMA page_count") or (0,)
        (free,) = self._copy.row("PRAGMA freelist_count") or (0,)
        return bool(free * _WASTE > pages)

    def _parent_key(self, directory: bytes) -> PathKey:
        known, key = self._last_parent
        if known != directory:
            key = path_key(directory)
            self._last_parent = (directory, key)
        return key

    def _highest_group(self) -> int:
        self.flush()
        row = self._copy.row("SELECT MAX(hardlinks >> 32) FROM catalog WHERE mode >> 12 & 15 <> 4")
        return (row or (0,))[0] or 0

    def _remove_chunks(self, key: PathKey) -> None:
        self.flush()
        self._copy.begin()
        self._copy.run(f"DELETE FROM chunks {BY_KEY}", key)

    def _transitions(self, table: str) -> list[tuple[bytes, bytes, int]]:
        rows = self._copy.rows(f"SELECT path, sha1, size FROM {table}")
        if any(type(path) is not bytes for path, _, _ in rows):
            raise self._copy.subject.damaged("it names a nested catalog without a path")
        return rows

    def _add_transitions(self, table: str, rows: list[tuple[bytes, bytes, int]]) -> None:
        self._copy.begin()
        self._copy.run_many(
            f"INSERT OR REPLACE INTO {table} (path, sha1, size) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?)", rows
        )

    def _remove_transitions(self, table: str, paths: list[bytes]) -> None:
        self._copy.begin()
        self._copy.run_many(f"DELETE FROM {table} WHERE path = CAST(? AS TEXT)", [(path,) for path in paths])
