"""Writes the tag database of a repository: makes one, or changes a working copy of one.

Neither compresses, stores nor signs; which tags there are to be is for others. Concurrency: one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.address import ContentHash, parse_hash
from catalog.errors import Subject
from catalog.history import Tag
from catalog.writing import CREATE_PROPERTIES, WorkingCopy

if TYPE_CHECKING:
    import os

_TABLES = (
    CREATE_PROPERTIES,
    "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, "
    "CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch), "
    "CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))",
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, "
    "description TEXT, size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), "
    "FOREIGN KEY (branch) REFERENCES branches (branch))",
    "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))",
    "INSERT INTO branches (branch, parent, initial_revision) VALUES ('', NULL, 0)",
)
_SCHEMA = {"schema": "1.0", "schema_revision": "3"}
_NAME = "name = CAST(? AS TEXT)"


class HistoryWriter:
    """An open tag database of the newest schema. `finish` it, or its file is not to be used."""

    def __init__(self, copy: WorkingCopy) -> None:
        """For `create` and `open`, which close the copy when this fails."""
        self._copy = copy
        properties = copy.properties()
        version = properties.get(b"schema"), properties.get(b"schema_revision")
        if version != (b"1.0", b"3"):
            shown = " revision ".join((text or b"0").decode("latin-1") for text in version)
            raise copy.subject.unusable(f"has schema {shown}: it has to be migrated by its old server first")
        self.fqrn = properties.get(b"fqrn", b"").decode("utf-8", "backslashreplace")

    @classmethod
    def create(cls, path: str | os.PathLike[str], fqrn: str) -> HistoryWriter:
        """A new database without tags in a file that must not exist."""
        copy = WorkingCopy(path, Subject("the new tag database"), create=True)
        try:
            for statement in _TABLES:
                copy.run(statement)
            copy.set_properties({**_SCHEMA, "fqrn": fqrn})
            return cls(copy)
        except BaseException:
            copy.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], content_hash: ContentHash | None = None) -> HistoryWriter:
        """A working copy of a stored database; `content_hash`, its address, becomes the previous revision."""
        name = "the tag database" if content_hash is None else f"the tag database ({content_hash})"
        copy = WorkingCopy(path, Subject(name, content_hash), create=False)
        try:
            writer = cls(copy)
            if content_hash is not None:
                copy.set_properties({"previous_revision": str(content_hash)})
            return writer
        except BaseException:
            copy.close()
            raise

    def tags(self) -> tuple[Tag, ...]:
        """All tags, the oldest revision first."""
        found = []
        statement = "SELECT name, hash, revision, timestamp, description, size, branch FROM tags"
        for name, hash_text, revision, timestamp, description, size, branch in self._copy.stream(statement):
            root_hash = parse_hash(hash_text or b"")
            if root_hash is None:
                raise self._copy.subject.damaged(f"tag {_text(name)} names no root catalog")
            found.append(Tag(_text(name), root_hash, revision, timestamp, _text(description), _text(branch), size or 0))
        return tuple(sorted(found, key=lambda tag: (tag.revision, tag.timestamp_s, tag.name)))

    def put(self, tag: Tag) -> None:
        """Adds a tag, or replaces the one of the same name. Its branch is made when it is not there."""
        if tag.branch:
            self._copy.run(
                "INSERT OR IGNORE INTO branches (branch, parent, initial_revision) VALUES (?, '', ?)",
                (tag.branch, tag.revision),
            )
        self._copy.run(
            "INSERT OR REPLACE INTO tags (name, hash, revision, timestamp, channel, description, size, branch) "
            "VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
            (
                tag.name,
                str(tag.root_hash),
                tag.revision,
                tag.timestamp_s,
                tag.description,
                tag.size_bytes,
                tag.branch,
            ),
        )

    def remove(self, name: str) -> bool:
        """False: there is no such tag."""
        return self._copy.run(f"DELETE FROM tags WHERE {_NAME}", (name.encode("utf-8", "surrogateescape"),)) > 0

    def finish(self) -> None:
        """Completes the file and closes it."""
        self._copy.commit()
        self._copy.compact()
        self._copy.close()

    def close(self) -> None:
        """Gives the work up, unless it was finished. Idempotent."""
        self._copy.close()

    def __enter__(self) -> HistoryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
