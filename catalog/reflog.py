"""The reflog: the list of all objects that manifests ever named, which garbage collection begins with.

Reads and writes a working copy of the database. Neither stores nor hashes it. Concurrency: one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import ContentHash, Kind, parse_hash
from catalog.errors import Subject
from catalog.writing import CREATE_PROPERTIES, WorkingCopy

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_TYPES = {Kind.CATALOG: 0, Kind.CERTIFICATE: 1, Kind.HISTORY: 2, Kind.METAINFO: 3}
_KINDS = {number: kind for kind, number in _TYPES.items()}
_CREATE_REFS = "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash))"


@dataclass(frozen=True, slots=True)
class LoggedObject:
    """A line of the reflog: a root catalog, certificate, tag database or metainfo, and when it was published."""

    content_hash: ContentHash
    kind: Kind
    timestamp_s: int


class Reflog:
    """An open reflog. `finish` it, or its file is not to be used."""

    def __init__(self, copy: WorkingCopy) -> None:
        """For `create` and `open`, which close the copy when this fails."""
        self._copy = copy
        properties = copy.properties()
        if properties.get(b"schema") != b"1.0":
            raise copy.subject.unusable("has a schema version that is not known")
        self.fqrn = properties.get(b"fqrn", b"").decode("utf-8", "backslashreplace")

    @classmethod
    def create(cls, path: str | os.PathLike[str], fqrn: str) -> Reflog:
        """A new reflog in a file that must not exist."""
        copy = WorkingCopy(path, Subject("the new reflog"), create=True)
        try:
            copy.run(CREATE_PROPERTIES)
            copy.run(_CREATE_REFS)
            copy.set_properties({"schema": "1.0", "schema_revision": "0", "fqrn": fqrn})
            return cls(copy)
        except BaseException:
            copy.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Reflog:
        """A working copy of a reflog."""
        copy = WorkingCopy(path, Subject("the reflog"), create=False)
        try:
            return cls(copy)
        except BaseException:
            copy.close()
            raise

    def add(self, content_hash: ContentHash, kind: Kind, timestamp_s: int) -> bool:
        """False: it is in the list already, and keeps its time."""
        statement = "INSERT OR IGNORE INTO refs (hash, type, timestamp) VALUES (?, ?, ?)"
        return self._copy.run(statement, (str(content_hash), _TYPES[kind], timestamp_s)) > 0

    def remove(self, content_hash: ContentHash) -> bool:
        """False: it was not in the list."""
        return self._copy.run("DELETE FROM refs WHERE hash = ?", (str(content_hash),)) > 0

    def refs(self) -> Iterator[LoggedObject]:
        """All lines, in the order in which they were added. The list must not be changed meanwhile."""
        for hash_text, number, timestamp in self._copy.stream("SELECT hash, type, timestamp FROM refs ORDER BY rowid"):
            content_hash = parse_hash(hash_text or b"")
            if content_hash is None or number not in _KINDS:
                raise self._copy.subject.damaged(f"it holds a line that is none: {hash_text!r}")
            yield LoggedObject(content_hash, _KINDS[number], timestamp or 0)

    def finish(self) -> None:
        """Completes the file and closes it."""
        self._copy.commit()
        self._copy.close()

    def close(self) -> None:
        """Gives the work up, unless it was finished. Idempotent."""
        self._copy.close()

    def __enter__(self) -> Reflog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
