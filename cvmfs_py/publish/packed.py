"""What is packed and how, and what becomes of it: plain values between who asks and the packer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from cache.address import Algorithm
from cvmfs_py.publish.chunking import ChunkSizes, chunk_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.address import ContentHash
    from catalog.entry import Chunk
    from cvmfs_py.publish.attributes import FileContent
    from cvmfs_py.publish.settings import RepositorySettings

Token = TypeVar("Token")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecipe:
    """How the content of a file becomes objects."""

    algorithm: Algorithm = Algorithm.SHA1
    compression: str = "zlib"
    chunking: ChunkSizes | None = None  # None: one object whatever the size
    is_external: bool = False  # only addressed, not stored: other servers have the file itself

    def is_chunked(self, size_bytes: int) -> bool:
        if self.chunking is None or size_bytes <= self.chunking.max_bytes:
            return False
        # Chunks of external files are ranges of the file, which compressed streams are not.
        return not self.is_external or self.compression == "none"


def recipe_of(settings: RepositorySettings) -> FileRecipe:
    """What a repository does with ordinary files."""
    return FileRecipe(algorithm=settings.algorithm, compression=settings.compression, chunking=chunk_sizes(settings))


class FileState(NamedTuple):
    """What identifies one state of a file on the local disk, and its attributes."""

    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int


class SourceFile(NamedTuple):
    """A regular file on the local disk as it was seen."""

    directory: bytes
    name: bytes
    state: FileState

    @property
    def path(self) -> bytes:
        return self.directory + b"/" + self.name


class StoredContent(NamedTuple):
    """The content that a file has in the storage, to compare with."""

    is_verbatim: bool
    content_hash: ContentHash | None
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, content: FileContent, compression: str) -> StoredContent:
        return cls(compression == "none", content.content_hash, tuple(content.chunks))


@dataclass(frozen=True, slots=True)
class PackedFile:
    """The objects of a file's content. A chunked file has at least two chunks and no hash."""

    size_bytes: int
    content_hash: ContentHash | None
    chunks: tuple[Chunk, ...]
    stored_bytes: int  # in new objects
    new_objects: int


@dataclass(frozen=True, slots=True)
class Packed(Generic[Token]):
    """The answer to one request."""

    token: Token
    file: PackedFile | None  # None: the content is what it was compared with
    state: FileState | None  # of a file on the disk: its state when it was read
    xattrs: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class NotPacked(Generic[Token]):
    """The answer to a request that failed."""

    token: Token
    reason: str
