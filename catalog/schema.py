"""Which columns a catalog of which schema version has, and the queries that follow from it.

Pure but for reading an open database; refuses versions that no supported server wrote. Columns are selected by name,
because databases that were upgraded in place have them in another order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.tables import require_columns

if TYPE_CHECKING:
    from catalog.errors import Subject
    from catalog.tables import PropertyTable, Tables

_VERSION = re.compile(rb"\s*(\d{1,9}(?:\.\d{1,30})?)\s*\Z")
_TOLERANCE = (
    0.0005  # versions are floating-point numbers as text: 2.4 may be stored as 2.399999999999999911182158029987
)
_DEFAULT_VERSION = b"1.0"

_KEYS = ("md5path_1", "md5path_2", "parent_1", "parent_2")
_COMMON = (*_KEYS, "name", "mode", "size", "mtime", "flags", "hash", "symlink")


@dataclass(frozen=True, slots=True)
class Schema:
    """What there is in a catalog of one version."""

    version: float
    revision: int
    before_2_1: bool  # no owners, no hard links, no chunks, no flags but those of nested catalogs
    entry_columns: str  # the fields of Entry in their order
    nested_columns: str  # path, hash, size
    has_bind_mountpoints: bool
    has_chunks: bool


def read_schema(subject: Subject, properties: PropertyTable, tables: Tables) -> Schema:
    text = properties.text(b"schema") or _DEFAULT_VERSION
    match = _VERSION.match(text)
    if match is None:
        raise subject.damaged("its schema version is not a number")
    version = float(match[1])
    revision = properties.number(b"schema_revision", 0)
    is_old = version < 2.0 - _TOLERANCE
    is_2_5 = abs(version - 2.5) < _TOLERANCE
    if not (is_old or is_2_5 or abs(version - 2.4) < _TOLERANCE):
        raise subject.unusable(f"has schema version {match[1].decode()}, which this client cannot read")

    has_xattr = is_2_5 and revision >= 2
    has_mtimens = is_2_5 and revision >= 7
    owned = () if is_old else ("uid", "gid", "hardlinks")
    extra = (("xattr",) if has_xattr else ()) + (("mtimens",) if has_mtimens else ())
    require_columns(subject, tables, "catalog", _COMMON + owned + extra)
    entry_columns = (
        "rowid, name, mode, size, mtime, "
        + ("mtimens, " if has_mtimens else "NULL, ")
        + ("NULL, NULL, 1, " if is_old else "uid, gid, hardlinks, ")
        + "flags, hash, symlink, "
        + ("xattr" if has_xattr else "NULL")
    )

    require_columns(subject, tables, "nested_catalogs", ("path",))
    # Catalogs of schema 0.9 say that they are 1.0, and do not tell the hashes of their nested catalogs.
    has_hash = not is_old or "sha1" in tables["nested_catalogs"]
    has_size = is_2_5 and revision >= 1
    columns = ("sha1",) if has_hash else ()
    require_columns(subject, tables, "nested_catalogs", columns + (("size",) if has_size else ()))
    has_bind = is_2_5 and revision >= 4
    if has_bind:
        require_columns(subject, tables, "bind_mountpoints", ("path", "sha1", "size"))
    if not is_old:
        require_columns(subject, tables, "chunks", ("md5path_1", "md5path_2", "offset", "size", "hash"))
    return Schema(
        version=version,
        revision=revision,
        before_2_1=is_old,
        entry_columns=entry_columns,
        nested_columns=f"path, {'sha1' if has_hash else 'NULL'}, {'size' if has_size else '0'}",
        has_bind_mountpoints=has_bind,
        has_chunks=not is_old,
    )
