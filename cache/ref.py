"""What an operation needs and where it comes from: references to objects, and the answer "not local".

Pure values. A reference says everything that is needed to fetch and verify an object, and nothing about servers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.address import ContentHash, Kind, object_path


@dataclass(frozen=True, slots=True)
class ExternalSpan:
    """Where an external object is: a path on the external data servers, whole or a range of it."""

    path: bytes
    offset: int = 0
    length: int | None = None  # None: the whole file


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One immutable object: its address, how it is stored on the servers, and what is known of its content."""

    content_hash: ContentHash
    kind: Kind = Kind.BULK
    verbatim: bool = False  # True: the stored bytes are the content; False: zlib or zstd, told apart by the first byte
    size_bytes: int | None = None  # the exact size of the content, where the catalog tells it
    limit_bytes: int | None = None  # refuse content above this size, where the exact size is not known
    external: ExternalSpan | None = None
    alternative_path: bool = False  # look under /.cvmfsalt-HASH instead of /data
    volatile: bool = False  # evict first
    label: str = field(default="", compare=False)  # for people: what this object is

    @property
    def server_path(self) -> str:
        """The path below the repository's base URL (not for external objects)."""
        if self.alternative_path:
            return f".cvmfsalt-{self.content_hash}{self.kind.value}"
        return object_path(self.content_hash, self.kind)

    def __str__(self) -> str:
        return self.label or f"object {self.content_hash}{self.kind.value}"


class NotLocal(Exception):  # not an error: an answer, and outside every error tree
    """These objects are needed and not here. Raised by `Store.open` alone."""

    def __init__(self, refs: tuple[ObjectRef, ...]) -> None:
        super().__init__(refs)
        self.refs = refs
