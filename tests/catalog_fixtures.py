"""Catalogs for tests: the objects of the zoo, and hand-made databases of every schema version.

`Objects` is a local store in the small: it opens what it holds, says NotLocal for what it does not, and knows whether
every object that was opened has been closed.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.address import Algorithm, ContentHash, Kind, hash_bytes, object_path
from cache.ref import NotLocal, ObjectRef
from catalog.pathkey import path_key

if TYPE_CHECKING:
    from collections.abc import Iterable

ZOO = Path(__file__).parent / "data" / "zoo"


class OpenFile:
    """An open local object."""

    def __init__(self, owner: Objects, path: Path, *, nameless: bool) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self.fd).st_size
        self.path = None if nameless else str(path)
        self._owner = owner
        owner.open_count += 1

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        return os.pread(self.fd, self.size_bytes if size is None else size, offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._owner.open_count -= 1


class Objects:
    """Local objects in a directory, by hash. What is `missing` is answered with NotLocal until it is `fetched`."""

    def __init__(self, directory: Path, *, nameless: bool = False) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.nameless = nameless
        self.missing: set[ContentHash] = set()
        self.opened: list[ObjectRef] = []
        self.open_count = 0

    def __call__(self, ref: ObjectRef) -> OpenFile:
        path = self.directory / str(ref.content_hash)
        if ref.content_hash in self.missing or not (path.exists() or self.fetch(ref)):
            raise NotLocal((ref,))
        self.opened.append(ref)
        return OpenFile(self, path, nameless=self.nameless)

    def fetch(self, ref: ObjectRef) -> bool:
        """A subclass may know where to get it."""
        return False

    def add(self, content: bytes) -> ContentHash:
        """As the server would have it: the address is the hash of the compressed bytes."""
        content_hash = hash_bytes(Algorithm.SHA1, zlib.compress(content))
        (self.directory / str(content_hash)).write_bytes(content)
        return content_hash


class ZooObjects(Objects):
    """The objects of the zoo, inflated when they are asked for."""

    def fetch(self, ref: ObjectRef) -> bool:
        stored = ZOO / "server" / object_path(ref.content_hash, ref.kind)
        if not stored.exists():
            return False
        data = stored.read_bytes()
        assert hash_bytes(ref.content_hash.algorithm, data) == ref.content_hash
        content = data if ref.verbatim else zlib.decompress(data)
        (self.directory / str(ref.content_hash)).write_bytes(content)
        return True


def zoo_manifest(revision: int) -> dict[str, str]:
    text = (ZOO / "manifests" / f"r{revision}.cvmfspublished").read_bytes().partition(b"\n--\n")[0].decode()
    return {line[0]: line[1:] for line in text.split("\n")}


# --- hand-made catalogs ---


@dataclass
class Row:
    """A row of a catalog as it is stored; `path` gives keys and name unless `columns` says otherwise."""

    path: bytes
    mode: int = stat.S_IFREG | 0o644
    columns: dict[str, Any] = field(default_factory=dict)
    chunks: list[tuple[Any, Any, Any]] = field(default_factory=list)


def directory(path: bytes, **columns: Any) -> Row:
    return Row(path, stat.S_IFDIR | 0o755, {"flags": 1, "size": 4096, "hash": None, **columns})


def regular(path: bytes, content: bytes = b"x", **columns: Any) -> Row:
    digest = hash_bytes(Algorithm.SHA1, zlib.compress(content)).digest
    return Row(path, columns={"hash": digest, "size": len(content), **columns})


def symlink(path: bytes, target: bytes, **columns: Any) -> Row:
    link = {"symlink": target.decode("latin-1"), "flags": 12, "size": len(target), "hash": None, **columns}
    return Row(path, stat.S_IFLNK | 0o777, link)


def chunked(path: bytes, chunks: list[tuple[Any, Any, Any]], **columns: Any) -> Row:
    return Row(
        path, columns={"flags": 68, "hash": None, "size": sum(size for _, size, _ in chunks), **columns}, chunks=chunks
    )


CATALOG_COLUMNS = {
    "md5path_1": "INTEGER",
    "md5path_2": "INTEGER",
    "parent_1": "INTEGER",
    "parent_2": "INTEGER",
    "hardlinks": "INTEGER",
    "hash": "BLOB",
    "size": "INTEGER",
    "mode": "INTEGER",
    "mtime": "INTEGER",
    "mtimens": "INTEGER",
    "flags": "INTEGER",
    "name": "TEXT",
    "symlink": "TEXT",
    "uid": "INTEGER",
    "gid": "INTEGER",
    "xattr": "BLOB",
}


@dataclass
class CatalogMaker:
    """Builds a catalog file of any schema version. `altered`: upgraded in place, with the newer columns last."""

    rows: list[Row]
    schema: str = "2.5"
    revision: int | None = 7
    root_prefix: bytes = b""
    nested: list[tuple[Any, Any, Any]] = field(default_factory=list)  # path, hash text, size
    binds: list[tuple[Any, Any, Any]] = field(default_factory=list)
    properties: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    altered: bool = False
    statements: tuple[str, ...] = ()  # run at the end
    typeless: bool = False  # columns that keep whatever is put into them

    @property
    def version(self) -> float:
        return float(self.schema)

    def columns(self) -> list[str]:
        revision = self.revision or 0
        absent = set()
        if self.version < 2.0:
            absent = {"hardlinks", "uid", "gid", "xattr", "mtimens"}
        elif self.version < 2.5 or revision < 2:
            absent = {"xattr", "mtimens"}
        elif revision < 7:
            absent = {"mtimens"}
        names = [name for name in CATALOG_COLUMNS if name not in absent]
        if self.version < 2.0:
            names.insert(4, "inode")
        if self.altered:
            names.sort(key=("xattr", "mtimens").count)
        return names

    def write(self, path: Path) -> bytes:
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA page_size=1024")
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN")
            self._fill(connection)
            connection.execute("COMMIT")
            for statement in self.statements:
                connection.executescript(statement)
        finally:
            connection.close()
        return path.read_bytes()

    def _fill(self, connection: sqlite3.Connection) -> None:
        revision = self.revision or 0
        is_2_5 = self.version == 2.5
        names = self.columns()
        kinds = {**CATALOG_COLUMNS, "inode": "INTEGER"}
        first = [name for name in names if not (self.altered and name in ("xattr", "mtimens"))]
        declared = ", ".join(f"{name} {'' if self.typeless else kinds[name]}" for name in first)
        connection.execute("CREATE TABLE properties (key TEXT, value TEXT, PRIMARY KEY (key))")
        connection.execute(f"CREATE TABLE catalog ({declared}, PRIMARY KEY (md5path_1, md5path_2))")
        for name in names[len(first) :]:
            connection.execute(f"ALTER TABLE catalog ADD {name} {kinds[name]}")
        connection.execute("CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)")
        has_hash, has_size = self.schema != "0.9", is_2_5 and revision >= 1
        connection.execute(
            "CREATE TABLE nested_catalogs (path TEXT"
            + (", sha1 TEXT" if has_hash else "")
            + (", size INTEGER" if has_size else "")
            + ", PRIMARY KEY (path))"
        )
        for nested in self.nested:
            stored = nested[: 1 + has_hash + has_size]
            connection.execute(f"INSERT INTO nested_catalogs VALUES ({', '.join('?' * len(stored))})", _texts(stored))
        if is_2_5 and revision >= 4:
            connection.execute("CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, PRIMARY KEY (path))")
            connection.executemany(
                "INSERT INTO bind_mountpoints VALUES (?, ?, ?)", [_texts(bind) for bind in self.binds]
            )
        if self.version >= 2.1:
            connection.execute(
                "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,"
                " PRIMARY KEY (md5path_1, md5path_2, offset, size))"
            )
            connection.execute("CREATE TABLE statistics (counter TEXT, value INTEGER, PRIMARY KEY (counter))")
            connection.executemany("INSERT INTO statistics VALUES (?, ?)", self.counters.items())
        self._fill_properties(connection)
        for row in self.rows:
            self._insert(connection, row, names)

    def _fill_properties(self, connection: sqlite3.Connection) -> None:
        properties: dict[str, Any] = {"schema": "1.0" if self.schema == "0.9" else self.schema, "revision": 1}
        if self.revision is not None:
            properties["schema_revision"] = self.revision
        if self.root_prefix:
            properties["root_prefix"] = self.root_prefix.decode()
        properties.update(self.properties)
        connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())

    def _insert(self, connection: sqlite3.Connection, row: Row, names: list[str]) -> None:
        own = row.path
        parent = path_key(own.rpartition(b"/")[0]) if own else (0, 0)
        values: dict[str, Any] = dict(
            zip(("md5path_1", "md5path_2", "parent_1", "parent_2"), (*path_key(own), *parent), strict=True),
            hardlinks=1,
            inode=0,
            hash=None,
            size=0,
            mode=row.mode,
            mtime=1_700_000_000,
            mtimens=None,
            flags=4,
            name=own.rpartition(b"/")[2],
            symlink="",
            uid=1000,
            gid=100,
            xattr=None,
        )
        values.update(row.columns)
        if isinstance(values["name"], bytes):  # bytes as TEXT, whatever the encoding
            name, values["name"] = values["name"], None
        else:
            name = None
        chosen = {key: value for key, value in values.items() if key in names or key == "rowid"}
        marks = ", ".join("CAST(? AS TEXT)" if key == "name" and name is not None else "?" for key in chosen)
        bound = [name if key == "name" and name is not None else value for key, value in chosen.items()]
        connection.execute(f"INSERT INTO catalog ({', '.join(chosen)}) VALUES ({marks})", bound)
        for chunk in row.chunks:
            connection.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", (*path_key(own), *chunk))


def _texts(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value.decode("latin-1") if isinstance(value, bytes) else value for value in values)


def store_catalog(objects: Objects, maker: CatalogMaker) -> ObjectRef:
    """Makes the catalog a local object."""
    content = maker.write(objects.directory / "catalog.being-made")
    (objects.directory / "catalog.being-made").unlink()
    return ObjectRef(objects.add(content), Kind.CATALOG)
