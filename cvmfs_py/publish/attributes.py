"""What a publisher says of an entry: its attributes, its content, and what had to be left out. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache.address import ContentHash
    from catalog.entry import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Owner, permissions, time and extended attributes of an entry of any kind.

    Of `mode` only the permission bits (07777) count; the kind of the entry comes from the method that takes this.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    mtime_ns: int = 0  # 0..999999999, to be added
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)  # full names: b"user.x", b"security.capability"


class FileContent(Protocol):
    """The objects of a regular file; `PackedFile` is one."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def content_hash(self) -> ContentHash | None: ...  # None: chunked
    @property
    def chunks(self) -> Sequence[Chunk]: ...  # in order; empty: not chunked


@dataclass(frozen=True, slots=True)
class TreeWarning:
    """Something that could not be published as it was. The publication goes on."""

    path: bytes
    message: str
