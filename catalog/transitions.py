"""Where one catalog ends and another begins: nested catalogs and bind mountpoints.

Reads the two tables of an open catalog into a map; says what to fetch for a transition. Attaches nothing.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, Kind, parse_hash
from cache.ref import ObjectRef
from catalog.errors import show_path
from catalog.properties import is_normal_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.schema import Schema
    from catalog.sql import Database

_TRANSITION_LIMIT = 1_000_000  # in one catalog; about 250 MB. Large repositories have some thousands in all
_GROWTH_LIMIT = 8  # the recorded size is informative, and a catalog so far above it is not the one that was meant
_SMALL_LIMIT_BYTES = 64 << 20
_UNKNOWN_LIMIT_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Transition:
    """A directory whose contents are in another catalog."""

    mountpoint: bytes  # as seen in the mount
    repository_path: bytes  # as the catalogs call it: another one below bind mountpoints
    content_hash: ContentHash | None  # None: the catalog is not known, and nothing below can be reached
    size_bytes: int  # recorded; 0: unknown
    is_bind: bool  # leads to the root catalog of another revision

    @property
    def ref(self) -> ObjectRef | None:
        if self.content_hash is None:
            return None
        return catalog_ref(self.content_hash, self.size_bytes, f"catalog of {show_path(self.mountpoint)}")


def catalog_ref(content_hash: ContentHash, recorded_size_bytes: int | None, label: str) -> ObjectRef:
    """The reference to a catalog of which its parent, a manifest or a tag tells the size (0 or None: it does not)."""
    limit_bytes = _UNKNOWN_LIMIT_BYTES
    if recorded_size_bytes:
        limit_bytes = max(_GROWTH_LIMIT * recorded_size_bytes, _SMALL_LIMIT_BYTES)
    return ObjectRef(content_hash, Kind.CATALOG, limit_bytes=limit_bytes, label=label)


class Transitions:
    """The transitions of one catalog by mountpoint."""

    __slots__ = ("_mountpoint", "_root_prefix", "_rows")

    def __init__(self, database: Database, schema: Schema, mountpoint: bytes, root_prefix: bytes) -> None:
        self._mountpoint = mountpoint
        self._root_prefix = root_prefix
        self._rows: dict[bytes, tuple[bytes, int, bool]] = {}  # mountpoint -> hash text, size, is bind
        self._read(database, f"SELECT {schema.nested_columns} FROM nested_catalogs", False)
        if schema.has_bind_mountpoints:
            self._read(database, "SELECT path, sha1, size FROM bind_mountpoints", True)

    def _read(self, database: Database, statement: str, is_bind: bool) -> None:
        prefix = self._root_prefix + b"/"
        subject = database.subject
        with closing(database.stream(statement)) as rows:
            for path, hash_text, size in rows:
                if type(path) is not bytes:
                    raise subject.damaged("a nested catalog's path is not text")
                path = path.partition(b"\0")[0]
                if not path.startswith(prefix) or not is_normal_path(path):
                    raise subject.damaged(f"it names a nested catalog at {show_path(path)}, which is not below it")
                if hash_text is None:
                    hash_text = b""
                if size is None:
                    size = 0
                if type(hash_text) is not bytes or type(size) is not int or size < 0:
                    raise subject.damaged(f"its nested catalog at {show_path(path)} has no proper hash or size")
                mountpoint = self._mountpoint + path[len(self._root_prefix) :]
                if mountpoint in self._rows:
                    raise subject.damaged(f"it names two catalogs at {show_path(path)}")
                self._rows[mountpoint] = (hash_text, size, is_bind)
                if len(self._rows) > _TRANSITION_LIMIT:
                    raise subject.damaged(f"it names more than {_TRANSITION_LIMIT} nested catalogs")

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, path: bytes) -> Transition | None:
        """The transition at exactly this path."""
        row = self._rows.get(path)
        if row is None:
            return None
        hash_text, size_bytes, is_bind = row
        content_hash = parse_hash(hash_text.partition(b"\0")[0])
        if content_hash is not None and content_hash.algorithm is Algorithm.MD5:
            content_hash = None  # content is never addressed by MD5
        repository_path = self._root_prefix + path[len(self._mountpoint) :]
        return Transition(path, repository_path, content_hash, size_bytes, is_bind)

    def above(self, path: bytes) -> Transition | None:
        """The transition that lies on the way to a path below this catalog, strictly above it."""
        if not self._rows:
            return None
        end = path.find(b"/", len(self._mountpoint) + 1)
        while end >= 0:
            if path[:end] in self._rows:
                return self.at(path[:end])
            end = path.find(b"/", end + 1)
        return None

    def below(self, path: bytes) -> Iterator[Transition]:
        """Those at or below a path, in the order in which a walk by name comes to them."""
        prefix = path + b"/"
        found = (each for each in self._rows if each == path or each.startswith(prefix))
        for mountpoint in sorted(found, key=lambda each: each.split(b"/")):
            transition = self.at(mountpoint)
            if transition is not None:
                yield transition

    def all(self) -> list[Transition]:
        """Ordered by mountpoint."""
        return [found for path in sorted(self._rows) if (found := self.at(path)) is not None]
