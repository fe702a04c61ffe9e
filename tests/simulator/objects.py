"""Writes content-addressed objects below a repository's web root: compresses, hashes, stores under the hash.

Knows nothing of catalogs. Not thread-safe; an object that is already there is not written again.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cache.address import Algorithm, ContentHash, Digester, Kind, hash_bytes, object_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMPRESSION_CODES = {"zlib": 0, "none": 1, "zstd": 2}
_BLOCK_BYTES = 1 << 20


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Verbatim:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was stored: the address, and the sizes of content and stored bytes."""

    content_hash: ContentHash
    kind: Kind
    size_bytes: int
    stored_bytes: int


class ObjectWriter:
    """The objects below one web root. `level` is that of zlib: benchmarks may want 1."""

    def __init__(self, root: Path, algorithm: Algorithm, *, level: int = 6) -> None:
        self._root = root
        self._algorithm = algorithm
        self._level = level
        (root / "data").mkdir(parents=True, exist_ok=True)

    def path(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> Path:
        return self._root / object_path(content_hash, kind)

    def put(
        self,
        content: bytes,
        kind: Kind = Kind.BULK,
        *,
        compression: str = "zlib",
        algorithm: Algorithm | None = None,
    ) -> StoredObject:
        """Store content that fits into memory."""
        compressor = new_compressor(compression, self._level)
        stored = compressor.compress(content) + compressor.flush()
        content_hash = self.put_stored(stored, kind, algorithm=algorithm)
        return StoredObject(content_hash, kind, len(content), len(stored))

    def put_stored(self, stored: bytes, kind: Kind = Kind.BULK, *, algorithm: Algorithm | None = None) -> ContentHash:
        """Store bytes as they are, under their hash."""
        content_hash = hash_bytes(algorithm or self._algorithm, stored)
        path = self.path(content_hash, kind)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(stored)
        return content_hash

    def put_blocks(
        self,
        blocks: Iterable[bytes],
        kind: Kind = Kind.BULK,
        *,
        compression: str = "zlib",
        algorithm: Algorithm | None = None,
        to: Path | None = None,
    ) -> StoredObject:
        """Store content of any size. `to`: under this path instead of the hash, as external data is."""
        compressor = new_compressor(compression, self._level)
        digester = Digester(algorithm or self._algorithm)
        size_bytes = stored_bytes = 0
        number, temporary = tempfile.mkstemp(dir=self._root / "data", prefix="txn-")
        with os.fdopen(number, "wb") as file:
            for block in blocks:
                size_bytes += len(block)
                piece = compressor.compress(block)
                digester.update(piece)
                stored_bytes += file.write(piece)
            piece = compressor.flush()
            digester.update(piece)
            stored_bytes += file.write(piece)
        content_hash = digester.content_hash()
        path = to or self.path(content_hash, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        return StoredObject(content_hash, kind, size_bytes, stored_bytes)


def new_compressor(compression: str, level: int) -> Compressor:
    if compression == "zlib":
        return zlib.compressobj(level)
    if compression == "none":
        return _Verbatim()
    if compression == "zstd":
        import zstandard  # the rare case

        return zstandard.ZstdCompressor(level=3).compressobj()
    raise ValueError(f"no such compression: {compression}")


def read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def read_chunks(content: bytes | Path, chunk_sizes: tuple[int, ...] | int) -> Iterator[bytes]:
    """The content cut to chunks: of one size, or of these sizes (the content has to end with the last)."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield from _cut(file.read, chunk_sizes)
    else:
        position = 0

        def read(size: int) -> bytes:
            nonlocal position
            position += size
            return content[position - size : position]

        yield from _cut(read, chunk_sizes)


class _Read(Protocol):
    def __call__(self, size: int, /) -> bytes: ...


def _cut(read: _Read, chunk_sizes: tuple[int, ...] | int) -> Iterator[bytes]:
    if isinstance(chunk_sizes, int):
        while chunk := read(chunk_sizes):
            yield chunk
        return
    for size in chunk_sizes:
        chunk = read(size)
        if len(chunk) != size:
            raise ValueError("the chunk sizes sum up to more than the content")
        yield chunk
    if read(1):
        raise ValueError("the chunk sizes sum up to less than the content")
