"""From content to the stored form of objects: plain zlib streams, zstd frames, or the bytes as they are.

Knows no files, hashes or catalogs; the way back is for `stored_form`. Deterministic: the same content gives the same
bytes as long as the same library does it. Stateless but for one stream's compressor, which belongs to one thread.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

ZLIB = "zlib"
NONE = "none"
ZSTD = "zstd"

# libdeflate's level 5 is a little smaller than zlib's level 6 over a Python installation (97.0 against 97.5 MB of 301),
# and takes 2.0 s where its own level 6 takes 2.6 s and zlib 6.4 s.
LIBDEFLATE_LEVEL = 5
ZLIB_LEVEL = 6
ZSTD_LEVEL = 6

Bytes = bytes | bytearray | memoryview


class StreamCompressor(Protocol):
    """Compresses content that comes in pieces into one stream."""

    def compress(self, data: Bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compress(content: Bytes, compression: str) -> Bytes:
    """The stored form of content that is in memory as a whole."""
    return _WHOLE[compression](content)


def new_compressor(compression: str) -> StreamCompressor:
    """For content of any size; slower than `compress`."""
    if compression == ZLIB:
        return zlib.compressobj(ZLIB_LEVEL)
    if compression == ZSTD:
        import zstandard  # 11 ms, and rarely needed

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    return _Verbatim()


def check_compression(name: str) -> str:
    """The name again, or a ConfigError."""
    if name not in _WHOLE:
        raise ConfigError(f"there is no compression {name!r}: use {', '.join(_WHOLE)}")
    return name


class _Verbatim:
    """The compressor that does nothing."""

    __slots__ = ()

    def compress(self, data: Bytes) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


def _whole_zlib() -> Callable[[Bytes], Bytes]:
    try:
        import deflate
    except ImportError:
        return lambda content: zlib.compress(content, ZLIB_LEVEL)
    compress_zlib = deflate.zlib_compress
    # Empty files are everywhere: they are the object that every other publisher makes of them, too.
    empty = zlib.compress(b"", ZLIB_LEVEL)
    return lambda content: compress_zlib(content, LIBDEFLATE_LEVEL) if content else empty


def _whole_zstd(content: Bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)


_WHOLE: dict[str, Callable[[Bytes], Bytes]] = {
    ZLIB: _whole_zlib(),
    NONE: lambda content: content,
    ZSTD: _whole_zstd,
}
