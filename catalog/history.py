"""The tag database of a repository: named and dated revisions. Knows no manifest and fetches nothing.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, parse_hash
from catalog.errors import Subject, show_path
from catalog.sql import open_database
from catalog.tables import read_properties, read_tables, require_columns
from catalog.transitions import catalog_ref

if TYPE_CHECKING:
    from typing import Any

    from cache.ref import ObjectRef
    from catalog.sql import Database, LocalObject

_VERSION = re.compile(rb"1(\.0*)?\Z")
_BRANCH_LIMIT = 100_000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tag:
    """A named revision."""

    name: str
    root_hash: ContentHash
    revision: int
    timestamp_s: int
    description: str
    branch: str
    size_bytes: int  # of the root catalog; 0: unknown

    @property
    def root_ref(self) -> ObjectRef:
        return catalog_ref(self.root_hash, self.size_bytes, f"root catalog of tag {self.name}")


def parse_tag_date(text: str) -> int | None:
    """Seconds since 1970 for exactly `YYYY-MM-DDTHH:MM:SSZ`, None for everything else."""
    if not _DATE.match(text):
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


class History:
    """An open tag database. Close it, or use it as a context manager."""

    def __init__(self, database: Database) -> None:
        """For `History.open`, which closes the database when this fails."""
        subject = database.subject
        tables = read_tables(database)
        properties = read_properties(database, tables)
        if not _VERSION.match(properties.text(b"schema") or b""):
            raise subject.unusable("has a schema version that this client cannot read")
        revision = properties.number(b"schema_revision", 0)
        fqrn = properties.text(b"fqrn")
        if not fqrn:
            raise subject.damaged("it does not tell its repository")
        has_size, has_branch = revision >= 1, revision >= 3
        require_columns(
            subject,
            tables,
            "tags",
            ("name", "hash", "revision", "timestamp", "description")
            + (("size",) if has_size else ())
            + (("branch",) if has_branch else ()),
        )
        self._database = database
        self._columns = (
            "name, hash, revision, timestamp, description, "
            + ("size, " if has_size else "0, ")
            + ("branch" if has_branch else "''")
        )
        self._has_branch = has_branch
        self.fqrn = fqrn.decode("utf-8", "backslashreplace")
        self.schema_revision = revision
        self.previous_revision = parse_hash(properties.text(b"previous_revision") or b"")

    @classmethod
    def open(cls, local: LocalObject, content_hash: ContentHash | None = None) -> History:
        """Opens a local object as a tag database. Takes the object over, also when this fails."""
        name = "the tag database" if content_hash is None else f"the tag database ({content_hash})"
        database = open_database(local, Subject(name, content_hash))
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def check_fqrn(self, fqrn: str) -> None:
        """Refuses the tags of another repository."""
        if self.fqrn != fqrn:
            raise self._database.subject.unusable(f"belongs to {self.fqrn}, not to {fqrn}")

    def tags(self) -> tuple[Tag, ...]:
        """All tags, the oldest revision first."""
        found: dict[str, Tag] = {}
        with closing(self._database.stream(f"SELECT {self._columns} FROM tags")) as rows:
            for row in rows:
                tag = self._tag(row)
                if found.setdefault(tag.name, tag) is not tag:
                    raise self._database.subject.damaged(f"tag {tag.name} occurs twice")
        return tuple(sorted(found.values(), key=lambda tag: (tag.revision, tag.timestamp_s, tag.name)))

    def branches(self) -> dict[str, int]:
        """The first revision of each branch by name; older databases have the default branch only."""
        if not self._has_branch:
            return {"": 0}
        rows = self._database.rows("SELECT branch, initial_revision FROM branches LIMIT ?", (_BRANCH_LIMIT,))
        if not all(type(name) is bytes and type(revision) is int for name, revision in rows):
            raise self._database.subject.damaged("it has a branch without a name or a first revision")
        return {_text(name): revision for name, revision in rows}

    def by_name(self, name: str) -> Tag | None:
        """The tag of this name, on whatever branch."""
        key = name.encode("utf-8", "surrogateescape")
        row = self._database.row(f"SELECT {self._columns} FROM tags WHERE name = CAST(? AS TEXT)", (key,))
        return None if row is None else self._tag(row)

    def by_date(self, timestamp_s: int) -> Tag | None:
        """The tag that was the newest at a moment: the highest revision (not the latest time) on the default branch."""
        on_branch = "AND branch = ''" if self._has_branch else ""
        row = self._database.row(
            f"SELECT {self._columns} FROM tags WHERE timestamp <= ? {on_branch} ORDER BY revision DESC, name LIMIT 1",
            (timestamp_s,),
        )
        return None if row is None else self._tag(row)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tag(self, row: tuple[Any, ...]) -> Tag:
        name, hash_text, revision, timestamp, description, size, branch = row
        shown = show_path(name) if type(name) is bytes else repr(name)
        problem = _tag_problem(row)
        root_hash = parse_hash(hash_text.partition(b"\0")[0]) if type(hash_text) is bytes else None
        if problem is None and (root_hash is None or root_hash.algorithm is Algorithm.MD5):
            problem = "it names no root catalog"
        if problem is not None or root_hash is None:
            raise self._database.subject.damaged(f"tag {shown}: {problem}")
        return Tag(
            _text(name), root_hash, revision, timestamp, _text(description or b""), _text(branch or b""), size or 0
        )


def _tag_problem(row: tuple[Any, ...]) -> str | None:
    name, _, revision, timestamp, description, size, branch = row
    if type(name) is not bytes or not name:
        return "it has no name"
    if type(revision) is not int or revision < 0:
        return "its revision is not a number"
    if type(timestamp) is not int:
        return "its time is not a number"
    if size is not None and (type(size) is not int or size < 0):
        return "its size is not a number"
    if not isinstance(description, bytes | None) or not isinstance(branch, bytes | None):
        return "its description or branch is not text"
    return None


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("utf-8", "backslashreplace")
