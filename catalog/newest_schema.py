"""The tables of a catalog of the newest schema, 2.5 revision 7, and the statements that write their rows. Constants."""

from __future__ import annotations

from catalog.writing import CREATE_PROPERTIES

COLUMNS = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name, symlink, "
    "uid, gid, xattr"
)
CHUNK_COLUMNS = "md5path_1, md5path_2, offset, size, hash"
TABLES = (
    CREATE_PROPERTIES,
    "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, "
    "hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, "
    "name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB, "
    "CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
    "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
    "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB, "
    "CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), "
    "FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2))",
    "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))",
    "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))",
    "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter))",
)
SCHEMA = {"schema": "2.5", "schema_revision": "7"}
BY_KEY = " WHERE md5path_1 = ? AND md5path_2 = ?"
_NAMES = COLUMNS.split(", ")
_TEXTS = frozenset(("name", "symlink"))
# A row keeps its number, so that the root directory stays row 1, on which clients rely.
PUT = (
    f"INSERT INTO catalog ({COLUMNS}) VALUES "
    f"({', '.join('CAST(? AS TEXT)' if column in _TEXTS else '?' for column in _NAMES)}) "
    f"ON CONFLICT (md5path_1, md5path_2) DO UPDATE SET "
    f"{', '.join(f'{column} = excluded.{column}' for column in _NAMES[4:])}"
)
