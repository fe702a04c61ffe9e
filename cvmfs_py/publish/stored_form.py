"""From the stored form of objects to their content: zlib, zstd or as they are, told apart by the first bytes.

Knows no files and no addresses; hashing is done by the caller's function on the way. Stateless.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from cvmfs_py.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK_BYTES = 1 << 18
_PIECE_BYTES = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Source(Protocol):
    """A readable file."""

    def read(self, size: int, /) -> bytes: ...


def inflate_pieces(
    source: Source, seen: Callable[[bytes], object], shown: str, verbatim: bool = False
) -> Iterator[bytes]:
    """The content in pieces of bounded size. `seen` gets every stored byte; `shown` names the object in complaints."""
    block = source.read(_BLOCK_BYTES)
    if verbatim:
        while block:
            seen(block)
            yield block
            block = source.read(_BLOCK_BYTES)
    elif block.startswith(_ZSTD_MAGIC):
        yield from _zstd_pieces(source, block, seen, shown)
    else:
        yield from _zlib_pieces(source, block, seen, shown)


def _zlib_pieces(source: Source, block: bytes, seen: Callable[[bytes], object], shown: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    while block:
        seen(block)
        # What follows the end of the stream belongs to the object, and not to its content.
        while block and not inflater.eof:
            try:
                piece = inflater.decompress(block, _PIECE_BYTES)
            except zlib.error as error:
                raise IntegrityError(f"{shown} is no zlib stream: the repository is damaged") from error
            block = inflater.unconsumed_tail
            if piece:
                yield piece
        block = source.read(_BLOCK_BYTES)
    if not inflater.eof:
        raise IntegrityError(f"{shown} ends too early: the repository is damaged")


def _zstd_pieces(source: Source, block: bytes, seen: Callable[[bytes], object], shown: str) -> Iterator[bytes]:
    import zstandard  # 11 ms, and rarely needed

    inflater = zstandard.ZstdDecompressor().decompressobj()
    while block:
        seen(block)
        if not inflater.eof:
            try:
                piece = inflater.decompress(block)
            except zstandard.ZstdError as error:
                raise IntegrityError(f"{shown} is no zstd stream: the repository is damaged") from error
            if piece:
                yield piece
        block = source.read(_BLOCK_BYTES)
    if not inflater.eof:
        raise IntegrityError(f"{shown} ends too early: the repository is damaged")
