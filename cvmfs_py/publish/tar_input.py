"""The bytes of an archive, however it is compressed: told apart by its first bytes, read once and forwards.

Knows nothing of what is in it. Concurrency: one thread.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias, cast

from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_BYTES = 1 << 20
_MAGIC_BYTES = 6
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError)

# so many bytes of the archive as it is stored are read, of so many; None: nobody knows
ReadObserver: TypeAlias = "Callable[[int, int | None], None]"


class TarInput:
    """An archive that is being read. Use it as a context manager; a stream that was given stays open."""

    def __init__(self, source: str | bytes | os.PathLike[str] | BinaryIO, observer: ReadObserver | None = None) -> None:
        """`source`: a file, `-` for the standard input, or a stream."""
        self._observer = observer
        self._owned: list[BinaryIO] = []
        self._damages: tuple[type[Exception], ...] = _DAMAGES
        self.read_bytes = 0  # of what the archive is when nothing is compressed
        if source in ("-", b"-"):
            self.name = "the standard input"
            stream = cast("BinaryIO", io.FileIO(0, closefd=False))
        elif isinstance(source, (str, bytes, os.PathLike)):
            self.name = os.fsencode(source).decode("utf-8", "backslashreplace")
            stream = self._open(source)
        else:
            self.name = "the archive"
            stream = source
        try:
            self._stream = self._inflated(stream)
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """So many bytes; less only at the end."""
        try:
            data = self._stream.read(size)
            while len(data) < size and (more := self._stream.read(size - len(data))):
                data += more
        except self._damages as error:
            raise PublishError(f"{self.name} cannot be read: it is damaged or cut off ({error})") from error
        self.read_bytes += len(data)
        return data

    def close(self) -> None:
        for stream in reversed(self._owned):
            stream.close()
        self._owned.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: str | bytes | os.PathLike[str]) -> BinaryIO:
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115  # `close` closes it
        except OSError as error:
            raise PublishError(f"{self.name} cannot be read: {error.strerror}") from error
        self._owned.append(cast("BinaryIO", file))
        return cast("BinaryIO", file)

    def _inflated(self, stream: BinaryIO) -> BinaryIO:
        magic = b""
        try:
            while len(magic) < _MAGIC_BYTES and (more := stream.read(_MAGIC_BYTES - len(magic))):
                magic += more
        except OSError as error:
            raise PublishError(f"{self.name} cannot be read: {error.strerror}") from error
        raw = io.BufferedReader(_Rest(magic, stream, self._observer), _BUFFER_BYTES)
        inflated: object = None
        if magic.startswith(b"\x1f\x8b"):
            inflated = gzip.GzipFile(fileobj=raw)
        elif magic.startswith(b"BZh"):
            inflated = bz2.BZ2File(raw)
        elif magic.startswith(b"\xfd7zXZ\0"):
            inflated = lzma.LZMAFile(raw)  # noqa: SIM115  # it owns nothing
        elif magic.startswith(_ZSTD_MAGIC):
            import zstandard  # 11 ms, and rarely needed

            self._damages = (*_DAMAGES, zstandard.ZstdError)
            inflated = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        if inflated is None:
            return cast("BinaryIO", raw)
        return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", inflated), _BUFFER_BYTES))


class _Rest(io.RawIOBase):
    """A stream of which the beginning was read already. Closing it leaves the stream open."""

    def __init__(self, beginning: bytes, stream: BinaryIO, observer: ReadObserver | None) -> None:
        self._beginning = beginning
        self._stream = stream
        self._observer = observer
        self._read_bytes = 0
        self._size_bytes = None if observer is None else _size_of(stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._beginning[: len(view)] or self._stream.read(len(view))
        self._beginning = self._beginning[len(data) :]
        view[: len(data)] = data
        self._read_bytes += len(data)
        if self._observer is not None:
            self._observer(self._read_bytes, self._size_bytes)
        return len(data)


def _size_of(stream: BinaryIO) -> int | None:
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
