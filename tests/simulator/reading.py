"""Reads repositories from a web root in the plainest possible way, to check what clients and builders say.

Shares no code with either: inflates, opens SQLite, follows references. Verifies nothing; loads everything into memory.
"""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import struct
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache.address import ContentHash, Kind, object_path, parse_hash
from cache.ref import ObjectRef

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulator.repository import Repository

_ALGORITHM_SUFFIXES = ("", "-rmd160", "-shake128")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of table `catalog`: its columns by name, and its chunks (offset, size, digest)."""

    path: bytes
    columns: dict[str, Any]
    chunks: tuple[tuple[int, int, bytes], ...]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    @property
    def type(self) -> int:
        return stat.S_IFMT(self.columns["mode"])

    @property
    def suffix(self) -> str:
        """Of the hash texts of this file."""
        return _ALGORITHM_SUFFIXES[self.columns["flags"] >> 8 & 7]


@dataclass(slots=True)
class CatalogContent:
    """A whole catalog in memory."""

    mountpoint: bytes
    content_hash: str
    size_bytes: int
    tables: dict[str, list[str]]  # names of the columns
    properties: dict[str, bytes]
    statistics: dict[str, int]
    nested: dict[bytes, tuple[str, int | None]]
    bound: dict[bytes, tuple[str, int | None]]
    rows: dict[bytes, Row] = field(default_factory=dict)  # by path; the mountpoint is the first


def read_object(server_root: Path, content_hash: str, kind: Kind = Kind.BULK, *, verbatim: bool = False) -> bytes:
    """The content of an object."""
    parsed = parse_hash(content_hash)
    assert parsed is not None
    stored = (server_root / object_path(parsed, kind)).read_bytes()
    if verbatim:
        return stored
    if stored.startswith(ZSTD_MAGIC):
        import zstandard  # the rare case

        return zstandard.ZstdDecompressor().decompressobj().decompress(stored)
    return zlib.decompress(stored)


def open_database(data: bytes) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    database.text_factory = bytes
    return database


def read_table(database: sqlite3.Connection, name: str) -> list[dict[str, Any]]:
    cursor = database.execute(f"SELECT rowid AS rowid, * FROM {name} ORDER BY rowid")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def read_catalog(server_root: Path, content_hash: str) -> CatalogContent:
    """One catalog with all its rows, under the path that it calls its own."""
    data = read_object(server_root, content_hash, Kind.CATALOG)
    with closing(open_database(data)) as database:
        names = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        content = {name: read_table(database, name) for name in names}
        tables = {name: [row[1].decode() for row in database.execute(f"PRAGMA table_info({name})")] for name in names}
    properties = {row["key"].decode(): row["value"] for row in content["properties"]}
    top = properties.get("root_prefix", b"")
    nested, bound = (
        {row["path"]: (row.get("sha1", b"").decode(), row.get("size")) for row in content.get(name, [])}
        for name in ("nested_catalogs", "bind_mountpoints")
    )
    statistics = {row["counter"].decode(): row["value"] for row in content.get("statistics", [])}
    catalog = CatalogContent(top, content_hash, len(data), tables, properties, statistics, nested, bound)
    chunks: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
    for chunk in content.get("chunks", []):
        key = chunk["md5path_1"], chunk["md5path_2"]
        chunks.setdefault(key, []).append((chunk["offset"], chunk["size"], chunk["hash"]))
    children: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in content["catalog"]:
        children.setdefault((row["parent_1"], row["parent_2"]), []).append(row)
        if (row["md5path_1"], row["md5path_2"]) == _key(top):
            catalog.rows[top] = Row(top, row, ())
    pending = [top]
    while pending:
        parent = pending.pop()
        for row in children.get(_key(parent), []):
            path = parent + b"/" + row["name"]
            key = row["md5path_1"], row["md5path_2"]
            assert key == _key(path), f"a row under a wrong key: {path!r}"
            catalog.rows[path] = Row(path, row, tuple(sorted(chunks.get(key, []))))
            pending.append(path)
    assert len(catalog.rows) == len(content["catalog"]), "rows that no path leads to"
    return catalog


def read_catalogs(server_root: Path, root_hash: str) -> dict[bytes, CatalogContent]:
    """All catalogs of a revision by mountpoint, bind mountpoints excepted."""
    found: dict[bytes, CatalogContent] = {}
    pending = [(b"", root_hash)]
    while pending:
        path, content_hash = pending.pop()
        found[path] = catalog = read_catalog(server_root, content_hash)
        assert catalog.mountpoint == path
        pending += [(below, text) for below, (text, _) in catalog.nested.items()]
    return found


def read_revision(repository: Repository) -> dict[bytes, CatalogContent]:
    """All catalogs of a simulated repository's head."""
    return read_catalogs(repository.server_root, str(repository.head.root_hash))


def read_rows(catalogs: dict[bytes, CatalogContent]) -> dict[bytes, Row]:
    """All rows by path; of a transition the parent's."""
    rows: dict[bytes, Row] = {}
    for _, catalog in sorted(catalogs.items()):
        rows = {**catalog.rows, **rows}
    return rows


def assert_counters_consistent(catalogs: dict[bytes, CatalogContent]) -> None:
    """What every catalog's statistics say is what its rows, and those of the catalogs below it, say."""
    for mountpoint, catalog in catalogs.items():
        below = [other for path, other in catalogs.items() if path.startswith(mountpoint + b"/")]
        for name, value in catalog.statistics.items():
            scope, _, counter = name.partition("_")
            counted = [catalog] if scope == "self" else below
            assert value == sum(count_rows(other)[counter] for other in counted), (mountpoint, name)


def read_content(server_root: Path, row: Row) -> bytes:
    """The content of a regular file that is not external."""
    verbatim = row["flags"] >> 11 & 7 == 1
    if row["flags"] & 64:
        hashes = [digest.hex() + row.suffix for _, _, digest in row.chunks]
        return b"".join(read_object(server_root, text, Kind.CHUNK, verbatim=verbatim) for text in hashes)
    return read_object(server_root, row["hash"].hex() + row.suffix, verbatim=verbatim)


def count_rows(catalog: CatalogContent) -> Counter[str]:
    """The counters of one catalog as they follow from its rows."""
    counters: Counter[str] = Counter(nested=len(catalog.nested))
    for row in catalog.rows.values():
        if row.type == stat.S_IFDIR:
            counters["dir"] += 1
        elif row.type == stat.S_IFLNK:
            counters["symlink"] += 1
        elif row.type == stat.S_IFREG:
            counters.update(regular=1, file_size=row["size"])
            if row["flags"] & 64:
                counters.update(chunked=1, chunked_size=row["size"], chunks=len(row.chunks))
            if row["flags"] & 128:
                counters.update(external=1, external_file_size=row["size"])
        else:
            counters["special"] += 1
        if row.columns.get("xattr") is not None:
            counters["xattr"] += 1
    return counters


def find_objects(server_root: Path, root_hash: ContentHash, path: bytes) -> list[tuple[ContentHash, Kind]]:
    """The objects of the regular file at a path."""
    catalog = read_catalog(server_root, str(root_hash))
    while inside := [mountpoint for mountpoint in catalog.nested if path.startswith(mountpoint + b"/")]:
        catalog = read_catalog(server_root, catalog.nested[inside[0]][0])
    row = catalog.rows[path]
    if row["flags"] & 64:
        texts = [(digest.hex() + row.suffix, Kind.CHUNK) for _, _, digest in row.chunks]
    else:
        texts = [(row["hash"].hex() + row.suffix, Kind.BULK)]
    parsed = [(parse_hash(text), kind) for text, kind in texts]
    return [(content_hash, kind) for content_hash, kind in parsed if content_hash is not None]


def _key(path: bytes) -> tuple[int, int]:
    first, second = struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def find_all_objects(server_root: Path, root_hash: ContentHash) -> list[ObjectRef]:
    """Every object of a revision: its catalogs, the root first, then its files and chunks. Each hash once."""
    catalogs = read_catalogs(server_root, str(root_hash))
    found: dict[str, ObjectRef] = {}
    for catalog in catalogs.values():
        _add(found, catalog.content_hash, Kind.CATALOG, None)
    for catalog in catalogs.values():
        for row in catalog.rows.values():
            for _, size_bytes, digest in row.chunks:
                _add(found, digest.hex() + row.suffix, Kind.CHUNK, size_bytes)
            if not row.chunks and row["hash"] and row["size"]:
                _add(found, row["hash"].hex() + row.suffix, Kind.BULK, row["size"])
    return list(found.values())


def _add(found: dict[str, ObjectRef], text: str, kind: Kind, size_bytes: int | None) -> None:
    parsed = parse_hash(text)
    assert parsed is not None
    found.setdefault(text, ObjectRef(parsed, kind, size_bytes=size_bytes))
