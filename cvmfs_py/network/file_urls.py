"""`file://` hosts: a repository in a directory, read with the same outcomes as one behind HTTP.

Reads in worker threads, because the directory may be on a network file system.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import trio

from cvmfs_py.network.outcomes import Failure
from cvmfs_py.network.transport import Request, TransportError, TransportStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

PIECE_BYTES = 256 << 10


class FileTransport:
    """Opens files as if a server had sent them."""

    def __init__(self, statistics: TransportStatistics) -> None:
        self._statistics = statistics

    async def open(self, request: Request) -> FileResponse:
        path = unquote_to_bytes(request.url.path)
        wanted = next((value for name, value in request.headers if name == "Range"), None)
        return await trio.to_thread.run_sync(_open, path, wanted, self._statistics)

    async def close(self) -> None:
        return None


class FileResponse:
    """An open file, or the status that says why there is none."""

    def __init__(
        self,
        status: int,
        headers: dict[str, str],
        fd: int | None,
        span: tuple[int, int],
        statistics: TransportStatistics,
    ) -> None:
        self._status = status
        self._headers = headers
        self._fd = fd
        self._offset, self._end = span
        self._statistics = statistics

    @property
    def status(self) -> int:
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def receive(self) -> bytes:
        size_bytes = min(PIECE_BYTES, self._end - self._offset)
        if self._fd is None or size_bytes <= 0:
            return b""
        try:
            data = await trio.to_thread.run_sync(os.pread, self._fd, size_bytes, self._offset)
        except OSError as error:
            raise TransportError(Failure.SHORT, os.strerror(error.errno or 0).lower()) from error
        if not data:
            raise TransportError(Failure.SHORT, "the file became shorter while it was read")
        self._offset += len(data)
        self._statistics.received_bytes += len(data)
        return data

    async def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _open(path: bytes, wanted: str | None, statistics: TransportStatistics) -> FileResponse:
    try:
        # without O_NONBLOCK, a pipe in place of a file would wait for ever
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return FileResponse(404, {}, None, (0, 0), statistics)
    except PermissionError:
        return FileResponse(403, {}, None, (0, 0), statistics)
    except (OSError, ValueError) as error:
        raise TransportError(Failure.CONNECTION, f"cannot open the file: {error}") from error
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        return FileResponse(404, {}, None, (0, 0), statistics)
    span = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", wanted or "")
    if span is None:
        return FileResponse(200, {"content-length": str(facts.st_size)}, fd, (0, facts.st_size), statistics)
    start, end = int(span[1]), min(int(span[2]) + 1, facts.st_size)
    if start >= end:
        os.close(fd)
        return FileResponse(416, {}, None, (0, 0), statistics)
    headers = {"content-length": str(end - start), "content-range": f"bytes {start}-{end - 1}/{facts.st_size}"}
    return FileResponse(206, headers, fd, (start, end), statistics)
