"""The server: connections, keep-alive, conditional and range requests, bounded in number, size and time.

Concurrency: a task for each connection, all in one event loop. Bodies of files go out with sendfile, without a copy.
"""

from __future__ import annotations

import email.utils
import errno
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from cvmfs_py import __version__
from cvmfs_py.serving.faults import Fault, Faults
from cvmfs_py.serving.requests import Request, RequestError, parse_range, split_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfs_py.serving.sites import Found, Sites

IDLE_S = 75.0  # until the next request of a connection is complete, however slowly it comes
STALL_S = 60.0  # without any progress of the client
CONNECTION_LIMIT = 1024
SEND_BYTES = 1 << 20

_REASONS = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One answered request."""

    client: str
    request: str
    status: int
    sent_bytes: int

    def __str__(self) -> str:
        moment = time.strftime("%d/%b/%Y:%H:%M:%S %z")
        return f'{self.client} - - [{moment}] "{self.request}" {self.status} {self.sent_bytes}'


@dataclass(slots=True)
class Server:
    """Serves sites until it is cancelled."""

    sites: Sites
    log: Callable[[LogLine], None]
    faults: Faults = field(default_factory=Faults)
    idle_s: float = IDLE_S

    async def run(
        self, host: str, port: int, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accepts connections; reports the listening sockets (for port 0) when ready."""
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=1024)
        slots = trio.Semaphore(CONNECTION_LIMIT)
        task_status.started(listeners)

        async def serve(stream: trio.SocketStream) -> None:
            async with slots, stream:
                try:
                    await _Connection(self, stream).run()
                except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError, trio.TooSlowError):
                    return  # the client has gone

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)


class _Connection:
    """One client's connection."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        try:
            self._client = str(stream.socket.getpeername()[0])
        except OSError:
            self._client = "-"

    async def run(self) -> None:
        buffer = b""
        while True:
            try:
                head = await self._receive(buffer)
            except RequestError as error:
                await self._refuse("-", error)
                return
            if head is None:
                return
            request, buffer = head
            if not await self._answer(request) or not request.keeps_alive:
                return

    async def _receive(self, buffer: bytes) -> tuple[Request, bytes] | None:
        """The next request and what came after it; None: there will be none."""
        with trio.move_on_after(self._server.idle_s):
            while (head := split_request(buffer)) is None:
                data = await self._stream.receive_some(16 << 10)
                if not data:
                    return None
                buffer += data
            return head
        return None

    async def _answer(self, request: Request) -> bool:
        """Answers one request; whether the connection can go on."""
        line = f"{request.method} {request.target} HTTP/1.{request.minor_version}"
        if self._server.faults.delay_s:
            await trio.sleep(self._server.faults.delay_s)
        fault = self._server.faults.strike()
        if fault is Fault.SILENT:
            await trio.sleep(STALL_S)
            return False
        try:
            if request.method not in ("GET", "HEAD"):
                raise RequestError(405, "only GET and HEAD are served", "Allow: GET, HEAD")
            if fault in (Fault.NOT_FOUND, Fault.SERVER_ERROR):
                raise RequestError(int(fault.value), "a fault on purpose")
            found = self._server.sites.find(request.path)
            if found is None:
                raise RequestError(404, "there is no such file")
            try:
                return await self._send_found(request, line, found, fault)
            finally:
                found.close()
        except RequestError as error:
            await self._refuse(line, error, with_body=request.method != "HEAD", alive=request.keeps_alive)
            return True

    async def _send_found(self, request: Request, line: str, found: Found, fault: Fault | None) -> bool:
        headers = _validators(found)
        if _is_known(request, found):
            await self._send_head(304, headers, request.keeps_alive)
            self._log(line, 304, 0)
            return True
        first, length, status = 0, found.size_bytes, 200
        if "range" in request.headers and request.headers.get("if-range", found.etag) == found.etag:
            wanted = parse_range(request.headers["range"], found.size_bytes)
            if wanted is not None:
                (first, length), status = wanted, 206
                headers.append(f"Content-Range: bytes {first}-{first + length - 1}/{found.size_bytes}")
        headers += [f"Content-Type: {found.content_type}", f"Content-Length: {length}", "Accept-Ranges: bytes"]
        head = _format_head(status, headers, request.keeps_alive)
        self._log(line, status, length if request.method == "GET" else 0)
        if request.method == "HEAD":
            await self._send(head)
            return True
        if fault is Fault.TRUNCATED:
            length //= 2
        await self._send_body(head, found, first, length, damaged=fault is Fault.GARBAGE)
        return fault is not Fault.TRUNCATED

    async def _send_body(self, head: bytes, found: Found, first: int, length: int, *, damaged: bool) -> None:
        if found.fd is None:
            await self._send(head + found.data[first : first + length])
            return
        if damaged or length <= 64 << 10:
            data = os.pread(found.fd, length, first)
            if damaged:
                data = bytes(byte ^ 0x55 for byte in data)
            await self._send(head + data)
            if len(data) < length:
                raise trio.BrokenResourceError("the file became shorter")
            return
        await self._send(head)
        socket = self._stream.socket
        end = first + length
        while first < end:
            with trio.fail_after(STALL_S):
                try:
                    sent = os.sendfile(socket.fileno(), found.fd, first, min(SEND_BYTES, end - first))
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(socket)
                    continue
                except OSError as error:
                    if error.errno in (errno.EPIPE, errno.ECONNRESET):
                        raise trio.BrokenResourceError from error
                    raise
                await trio.lowlevel.checkpoint()
            if not sent:
                raise trio.BrokenResourceError("the file became shorter")
            first += sent

    async def _refuse(self, line: str, error: RequestError, *, with_body: bool = True, alive: bool = False) -> None:
        body = f"{error.status} {_REASONS[error.status]}: {error}\n".encode()
        headers = ["Content-Type: text/plain", f"Content-Length: {len(body)}", *error.headers]
        head = _format_head(error.status, headers, alive)
        self._log(line, error.status, len(body))
        await self._send(head + body if with_body else head)

    async def _send_head(self, status: int, headers: list[str], alive: bool) -> None:
        await self._send(_format_head(status, headers, alive))

    async def _send(self, data: bytes) -> None:
        with trio.fail_after(STALL_S):
            await self._stream.send_all(data)

    def _log(self, line: str, status: int, sent_bytes: int) -> None:
        self._server.log(LogLine(self._client, line, status, sent_bytes))


def _format_head(status: int, headers: list[str], alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Server: cvmfs-py/{__version__}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        *headers,
        f"Connection: {'keep-alive' if alive else 'close'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _validators(found: Found) -> list[str]:
    headers = [f"Cache-Control: max-age={found.max_age_s}"]
    if found.etag:
        headers += [f"ETag: {found.etag}", f"Last-Modified: {email.utils.formatdate(found.mtime_s, usegmt=True)}"]
    return headers


def _is_known(request: Request, found: Found) -> bool:
    """Whether the client has this version already."""
    if not found.etag:
        return False
    if "if-none-match" in request.headers:
        tags = [tag.strip().removeprefix("W/") for tag in request.headers["if-none-match"].split(",")]
        return found.etag in tags or "*" in tags
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return found.mtime_s <= email.utils.parsedate_to_datetime(since).timestamp()
    except (ValueError, TypeError, OverflowError):
        return False
