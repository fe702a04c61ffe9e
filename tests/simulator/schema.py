"""Which tables, columns, properties and counters a catalog of each schema has: the versions that exist, as values.

Writes nothing. Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass

_PATH_KEY = ("md5path_1 INTEGER", "md5path_2 INTEGER", "parent_1 INTEGER", "parent_2 INTEGER")
_EARLY_COUNTERS = ("regular", "symlink", "dir", "nested")


@dataclass(frozen=True, slots=True)
class Schema:
    """A catalog schema. `upgraded`: late columns stand last, as in databases that were altered in place."""

    version: str = "2.5"
    revision: int | None = 7  # None: no such property
    upgraded: bool = False

    @property
    def number(self) -> float:
        return float(self.version)

    @property
    def step(self) -> int:
        """The revision of schema 2.5 that this schema is like; -1 for everything older."""
        return (self.revision or 0) if self.number >= 2.5 else -1

    @property
    def is_old(self) -> bool:
        """Before owners, hard links, chunks and statistics."""
        return self.number < 2.1

    @property
    def stored_version(self) -> str:
        """0.9 never called itself so: it says 1.0 and lacks a column."""
        return "1.0" if self.version == "0.9" else self.version

    @property
    def columns(self) -> tuple[str, ...]:
        """Declarations of the columns of table `catalog`."""
        early = ("hash BLOB", "size INTEGER", "mode INTEGER", "mtime INTEGER")
        late = ("flags INTEGER", "name TEXT", "symlink TEXT")
        if self.is_old:
            return (*_PATH_KEY, "inode INTEGER", *early, *late)
        owner = ("uid INTEGER", "gid INTEGER")
        mtimens = ("mtimens INTEGER",) if self.step >= 7 else ()
        xattr = ("xattr BLOB",) if self.step >= 2 else ()
        if self.upgraded:
            return (*_PATH_KEY, "hardlinks INTEGER", *early, *late, *owner, *xattr, *mtimens)
        return (*_PATH_KEY, "hardlinks INTEGER", *early, *mtimens, *late, *owner, *xattr)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.partition(" ")[0] for column in self.columns)

    @property
    def nested_columns(self) -> tuple[str, ...]:
        """Column names of table `nested_catalogs`."""
        if self.version == "0.9":
            return ("path",)
        return ("path", "sha1", "size") if self.step >= 1 else ("path", "sha1")

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of the statistics, without `self_` and `subtree_`."""
        if self.is_old:
            return ()
        names = list(_EARLY_COUNTERS)
        if self.step >= 0:
            names += ["chunked", "chunks", "file_size", "chunked_size"]
        if self.step >= 2:
            names.append("xattr")
        if self.step >= 3:
            names += ["external", "external_file_size"]
        if self.step >= 5:
            names.append("special")
        return tuple(sorted(names))

    @property
    def has_bind_mountpoints(self) -> bool:
        return self.step >= 4

    def statements(self) -> list[str]:
        """The SQL that makes the empty database."""
        made = [
            "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
            f"CREATE TABLE catalog ({', '.join(self.columns)}, "
            "CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
            "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
        ]
        types = {"path": "path TEXT", "sha1": "sha1 TEXT", "size": "size INTEGER"}
        nested = ", ".join(types[name] for name in self.nested_columns)
        made.append(f"CREATE TABLE nested_catalogs ({nested}, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))")
        if self.is_old:
            return [*made, "CREATE INDEX idx_catalog_inode ON catalog (inode)"]
        made.append(
            "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB, "
            "CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), "
            "FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2))"
        )
        if self.has_bind_mountpoints:
            made.append(
                "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
                "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))"
            )
        made.append(
            "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter))"
        )
        return made


NEWEST = Schema()
