"""From stored bytes to content, piece by piece, told apart by the first byte: zlib or zstd.

Pure, synchronous. Never produces much more at a time than it is allowed to, whatever a stream says about itself.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 256 << 10
ZLIB_FIRST_BYTE = 0x78
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

# A zstd block of 4 bytes can stand for 128 KiB, and the decompressor cannot be told to stop, only be fed less at a
# time: this bounds what one step can produce to 16 MiB.
_ZSTD_STEP_BYTES = 512


class InflateError(Exception):
    """The stream is damaged or of no known kind."""


class Inflater(Protocol):
    """Turns stored bytes into content."""

    @property
    def done(self) -> bool:
        """Whether the stream has come to its end; what follows is not content."""

    def feed(self, data: bytes | memoryview, limit_bytes: int) -> Iterator[bytes]:
        """The content in `data` in pieces; a caller that has got more than `limit_bytes` stops asking."""


class Verbatim:
    """Stored bytes that are the content."""

    __slots__ = ()
    done = True

    def feed(self, data: bytes | memoryview, limit_bytes: int) -> Iterator[bytes]:
        yield bytes(data)


class _Zlib:
    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    @property
    def done(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes | memoryview, limit_bytes: int) -> Iterator[bytes]:
        stream = self._stream
        if stream.eof:  # bytes after the end are hashed, but are not content
            return
        # one more than allowed, so that too much is noticed and the common case needs a single step
        piece_bytes = min(PIECE_BYTES, limit_bytes + 1)
        try:
            content = stream.decompress(data, piece_bytes)
            yield content
            # a full piece may leave content behind although all input was taken
            while not stream.eof and (stream.unconsumed_tail or len(content) == piece_bytes):
                content = stream.decompress(stream.unconsumed_tail, piece_bytes)
                yield content
        except zlib.error as error:
            raise InflateError("damaged zlib stream") from error


class _Zstd:
    __slots__ = ("_error", "_stream")

    def __init__(self) -> None:
        import zstandard  # slow to import, and rarely needed

        self._error = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    @property
    def done(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes | memoryview, limit_bytes: int) -> Iterator[bytes]:
        view = memoryview(data)
        try:
            for start in range(0, len(view), _ZSTD_STEP_BYTES):
                if self._stream.eof:
                    return
                content = self._stream.decompress(view[start : start + _ZSTD_STEP_BYTES])
                if content:
                    yield content
        except self._error as error:
            raise InflateError("damaged zstd stream") from error


def inflater_for(first_byte: int) -> Inflater:
    """The inflater for a stream that begins with this byte."""
    if first_byte == ZLIB_FIRST_BYTE:
        return _Zlib()
    if first_byte == ZSTD_MAGIC[0]:
        return _Zstd()
    raise InflateError("neither zlib nor zstd")
