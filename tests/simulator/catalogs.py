"""Writes catalog databases: rows, chunks, transitions, counters and properties of one catalog.

Does not walk trees, store objects or sign. One writer makes one database; not thread-safe.
"""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash
from tests.simulator.objects import COMPRESSION_CODES
from tests.simulator.tree import Attributes, BindMountpoint, Directory, File, Special, Symlink, Xattrs, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.simulator.schema import Schema

DIRECTORY, NESTED_MOUNTPOINT, FILE, SYMLINK, SPECIAL, NESTED_ROOT, CHUNKED, EXTERNAL = (1 << bit for bit in range(8))
BIND_MOUNTPOINT, HIDDEN, DIRECT_IO = 0x4000, 0x8000, 0x10000
_ALGORITHM_CODES = {Algorithm.SHA1: 0, Algorithm.RMD160: 1, Algorithm.SHAKE128: 2}
_SPECIAL_MODES = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
_ROWS_PER_BATCH = 2000


@dataclass(frozen=True, slots=True)
class Content:
    """The objects of a regular file, as its row tells them."""

    size: int
    content_hash: ContentHash | None
    algorithm: Algorithm
    compression: str
    chunks: tuple[tuple[int, int, ContentHash], ...] = ()  # offset, size, hash


@dataclass(frozen=True, slots=True)
class Transition:
    """A row of `nested_catalogs` or `bind_mountpoints`."""

    path: bytes
    content_hash: ContentHash | None
    size_bytes: int


def hash_path(path: bytes) -> tuple[int, int]:
    """The key of a path: two signed little-endian integers."""
    first, second = struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def encode_xattrs(xattrs: Xattrs | None) -> bytes | None:
    """The blob for a set of extended attributes; a blob stays as it is."""
    if xattrs is None or isinstance(xattrs, bytes):
        return xattrs
    pairs = [bytes((len(key), len(value))) + key + value for key, value in sorted(xattrs.items())]
    return bytes((1, len(pairs))) + b"".join(pairs) if pairs else None


@dataclass(slots=True)
class CatalogWriter:
    """The database of one catalog while it is written: open with `begin`, end with `finish`."""

    file: Path
    schema: Schema
    counters: Counter[str] = field(default_factory=Counter)
    _rows: list[tuple[object, ...]] = field(default_factory=list)
    _database: sqlite3.Connection = field(init=False)
    _digest: hashlib.blake2b = field(init=False)
    _insert: str = field(init=False)

    def __post_init__(self) -> None:
        self._database = sqlite3.connect(self.file, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("BEGIN")
        for statement in self.schema.statements():
            self._database.execute(statement)
        names = self.schema.column_names
        self._insert = _insertion("catalog", names)
        self._digest = hashlib.blake2b(repr(self.schema).encode())

    @property
    def fingerprint(self) -> bytes:
        """The same for two catalogs with the same rows (once flushed): whether a nested catalog has changed."""
        return self._digest.digest()

    def add_directory(self, path: bytes, node: Directory, link_count: int, transition: int = 0) -> None:
        self._add(path, node, stat.S_IFDIR | node.mode, DIRECTORY | transition, size=node.size, link_count=link_count)
        self.counters["dir"] += 1

    def add_file(self, path: bytes, node: File, content: Content, hardlinks: int = 1) -> None:
        """`hardlinks` is the column's value: group and link count."""
        flags = FILE | COMPRESSION_CODES[content.compression] << 11
        if content.content_hash is not None or content.chunks:
            flags |= _ALGORITHM_CODES[content.algorithm] << 8
        flags |= (CHUNKED if content.chunks else 0) | (EXTERNAL if node.external else 0)
        flags |= DIRECT_IO if node.direct_io else 0
        size = content.size if node.size is None else node.size
        blob = content.content_hash.digest if content.content_hash else None
        mode = stat.S_IFREG | node.mode
        self._add(path, node, mode, flags, size=size, link_count=hardlinks, content_hash=blob)
        key = hash_path(path)
        for offset, chunk_size, chunk_hash in content.chunks:
            row = (*key, offset, chunk_size, chunk_hash.digest)
            self._digest.update(repr(row).encode())
            self._database.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", row)
        self.counters.update(regular=1, file_size=size)
        if content.chunks:
            self.counters.update(chunked=1, chunked_size=size, chunks=len(content.chunks))
        if node.external:
            self.counters.update(external=1, external_file_size=size)

    def add_symlink(self, path: bytes, node: Symlink) -> None:
        target = as_bytes(node.target)
        self._add(path, node, stat.S_IFLNK | node.mode, FILE | SYMLINK, size=len(target), target=target)
        self.counters["symlink"] += 1

    def add_special(self, path: bytes, node: Special) -> None:
        mode = _SPECIAL_MODES[node.kind] | node.mode
        self._add(path, node, mode, FILE | (SPECIAL if self.schema.step >= 5 else 0), size=node.rdev)
        self.counters["special" if self.schema.step >= 5 else "regular"] += 1

    def add_bind_mountpoint(self, path: bytes, node: BindMountpoint) -> None:
        self._add(path, node, stat.S_IFDIR | node.mode, DIRECTORY | BIND_MOUNTPOINT, size=97, link_count=2)
        self._add_transition("bind_mountpoints", Transition(path, node.root_hash, node.size_bytes))
        self.counters["dir"] += 1

    def add_nested(self, transition: Transition) -> None:
        """The reference to a nested catalog; its mountpoint's row is another matter."""
        self._add_transition("nested_catalogs", transition)
        self.counters["nested"] += 1

    def finish(
        self, properties: Mapping[str, str | bytes], subtree: Mapping[str, int], statements: Iterable[str] = ()
    ) -> None:
        """Write the rest, then run the statements: whatever is to be wrong with this catalog."""
        self.flush()
        database = self._database
        database.executemany("INSERT INTO properties VALUES (?, CAST(? AS TEXT))", properties.items())
        scopes = (("self", self.counters), ("subtree", subtree)) if self.schema.counters else ()
        for scope, counters in scopes:
            rows = [(f"{scope}_{name}", counters.get(name, 0)) for name in self.schema.counters]
            database.executemany("INSERT INTO statistics VALUES (?, ?)", rows)
        database.execute("COMMIT")
        for statement in statements:
            database.execute(statement)
        database.close()

    def abandon(self) -> None:
        self._database.close()

    def _add(
        self,
        path: bytes,
        node: Attributes,
        mode: int,
        flags: int,
        *,
        size: int,
        link_count: int = 1,
        content_hash: bytes | None = None,
        target: bytes = b"",
    ) -> None:
        parent, _, name = path.rpartition(b"/")
        seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
        xattr = encode_xattrs(node.xattrs)
        if xattr is not None and "xattr" in self.schema.counters:
            self.counters["xattr"] += 1
        row: dict[str, object] = {
            "hardlinks": link_count if node.link_count is None else node.link_count,
            "inode": 0,
            "hash": content_hash,
            "size": size,
            "mode": mode,
            "mtime": seconds,
            "mtimens": nanoseconds,
            "flags": flags | (HIDDEN if node.hidden else 0) | node.extra_flags,
            "name": name,
            "symlink": target,
            "uid": node.uid,
            "gid": node.gid,
            "xattr": xattr,
        }
        row["md5path_1"], row["md5path_2"] = hash_path(path)
        row["parent_1"], row["parent_2"] = hash_path(parent) if path else (0, 0)
        self._rows.append(tuple(row[name] for name in self.schema.column_names))
        if len(self._rows) >= _ROWS_PER_BATCH:
            self.flush()

    def _add_transition(self, table: str, transition: Transition) -> None:
        content_hash = str(transition.content_hash) if transition.content_hash else ""
        values = {"path": transition.path, "sha1": content_hash, "size": transition.size_bytes}
        names = self.schema.nested_columns if table == "nested_catalogs" else tuple(values)
        row = tuple(values[name] for name in names)
        self._digest.update(repr((table, row)).encode())
        self._database.execute(_insertion(table, names), row)

    def flush(self) -> None:
        """Bring all rows so far into the database and the fingerprint."""
        for row in self._rows:
            self._digest.update(repr(row).encode())
        self._database.executemany(self._insert, self._rows)
        self._rows.clear()


def _insertion(table: str, names: tuple[str, ...]) -> str:
    """Text columns get bytes, which only a cast stores as text without asking whether they are UTF-8."""
    values = ("CAST(? AS TEXT)" if name in {"name", "symlink", "path", "sha1"} else "?" for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(values)})"
