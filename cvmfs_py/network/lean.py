"""A lean HTTP/1.1 exchange for `http://`, direct or over an `http://` proxy, with a pool of kept connections.

Does one thing, GET without a body, at a small part of the cost of a general HTTP library. No TLS, no redirects, no
decoding of content. What a peer sends is parsed by `framing`.

Concurrency: one response belongs to one task; the pool is touched between two awaits only.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import trio

from cvmfs_py.network.dial import dial, words_of
from cvmfs_py.network.framing import Body, FramingError, Head, body_of, split_head
from cvmfs_py.network.outcomes import Failure
from cvmfs_py.network.speed import SpeedWindow
from cvmfs_py.network.transport import Request, TransportError, TransportStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIVE_BYTES = 64 << 10
LARGE_RECEIVE_BYTES = 256 << 10
INFORMATIONAL_LIMIT = 5
IDLE_LIMIT_S = 60.0

Peer = tuple[str, int]


class _StaleConnection(Exception):
    """A kept connection was closed by the peer before it answered: not the peer's fault."""


class LeanTransport:
    """Connections to any number of peers."""

    def __init__(self, statistics: TransportStatistics, *, idle_limit: int = 64, ipv4_only: bool = False) -> None:
        self._statistics = statistics
        self._idle_limit = idle_limit
        self._ipv4_only = ipv4_only
        self._idle: OrderedDict[socket.socket, tuple[Peer, float]] = OrderedDict()  # the least recently used first
        self._by_peer: dict[Peer, list[socket.socket]] = {}

    async def open(self, request: Request) -> LeanResponse:
        proxy = request.proxy
        peer = (request.url.host, request.url.port) if proxy.is_direct else (proxy.address or proxy.host, proxy.port)
        head = format_request(request)
        connection = self._take_idle(peer)
        if connection is not None:
            try:
                self._statistics.connections_reused += 1
                return await self._exchange(connection, peer, head, request, reused=True)
            except _StaleConnection:
                self._statistics.stale_connections += 1
        connection = await dial(*peer, request.timeout_s, ipv4_only=self._ipv4_only)
        self._statistics.connections_opened += 1
        return await self._exchange(connection, peer, head, request, reused=False)

    async def close(self) -> None:
        while self._idle:
            self._idle.popitem()[0].close()
        self._by_peer.clear()

    async def _exchange(
        self, connection: socket.socket, peer: Peer, head: bytes, request: Request, *, reused: bool
    ) -> LeanResponse:
        window = SpeedWindow(request.timeout_s, request.low_speed_limit_bytes_s)
        response = None
        try:
            await _send(connection, head, window, reused=reused)
            answer, rest = await _receive_head(connection, window, reused=reused)
            response = LeanResponse(self, connection, peer, answer, body_of(answer), rest, window, self._statistics)
        except FramingError as error:
            raise TransportError(Failure.GARBAGE, str(error)) from error
        finally:
            if response is None:
                connection.close()
        return response

    def _take_idle(self, peer: Peer) -> socket.socket | None:
        kept = self._by_peer.get(peer)
        while kept:
            connection = kept.pop()
            _, since = self._idle.pop(connection)
            if trio.current_time() - since <= IDLE_LIMIT_S and not _has_input(connection):
                return connection
            connection.close()
        return None

    def keep(self, connection: socket.socket, peer: Peer) -> None:
        """Takes a connection back whose answer was read to its end."""
        if self._idle_limit <= 0:
            connection.close()
            return
        if len(self._idle) >= self._idle_limit:
            oldest, (owner, _) = self._idle.popitem(last=False)
            self._by_peer[owner].remove(oldest)
            oldest.close()
        self._idle[connection] = (peer, trio.current_time())
        self._by_peer.setdefault(peer, []).append(connection)


class LeanResponse:
    """An answer whose head has arrived."""

    __slots__ = ("_body", "_connection", "_head", "_peer", "_rest", "_size", "_statistics", "_transport", "_window")

    def __init__(
        self,
        transport: LeanTransport,
        connection: socket.socket,
        peer: Peer,
        head: Head,
        body: Body,
        rest: bytes,
        window: SpeedWindow,
        statistics: TransportStatistics,
    ) -> None:
        self._transport = transport
        self._connection: socket.socket | None = connection
        self._peer = peer
        self._head = head
        self._body = body
        self._rest = rest
        self._window = window
        self._statistics = statistics
        self._size = RECEIVE_BYTES

    @property
    def status(self) -> int:
        return self._head.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._head.headers

    async def receive(self) -> bytes:
        data, self._rest = self._rest, b""
        while True:
            content = self._decode(data) if data else b""
            if content or self._body.done:
                return content
            connection = self._connection
            if connection is None:
                raise TransportError(Failure.SHORT, "the answer was closed")
            data = await _receive(connection, self._size, self._window)
            if not data:
                if self._body.finish():
                    await self.close()
                    return b""
                raise TransportError(Failure.SHORT, "connection closed in the middle of the answer")
            if len(data) == self._size:
                self._size = LARGE_RECEIVE_BYTES

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._body.done and self._body.reusable and self._head.keeps_alive and not self._rest:
            self._transport.keep(connection, self._peer)
        else:
            connection.close()

    def _decode(self, data: bytes) -> bytes:
        try:
            content = self._body.feed(data)
        except FramingError as error:
            raise TransportError(Failure.GARBAGE, str(error)) from error
        self._statistics.received_bytes += len(content)
        return content


def format_request(request: Request) -> bytes:
    """The bytes of a request; over a proxy with the whole URL in the first line."""
    url = request.url
    target = (url.path or "/") if request.proxy.is_direct else str(url)
    lines = [f"GET {target} HTTP/1.1", f"Host: {url.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.proxy.authorization:
        lines.append(f"Proxy-Authorization: {request.proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _send(connection: socket.socket, data: bytes, window: SpeedWindow, *, reused: bool) -> None:
    while data:
        try:
            data = data[connection.send(data) :]
        except BlockingIOError:
            await window.wait(partial(trio.lowlevel.wait_writable, connection))
        except OSError as error:
            if reused:
                raise _StaleConnection from error
            raise TransportError(Failure.SHORT, words_of(error)) from error


async def _receive_head(connection: socket.socket, window: SpeedWindow, *, reused: bool) -> tuple[Head, bytes]:
    buffer = b""
    informational = 0
    while True:
        try:
            data = await _receive(connection, RECEIVE_BYTES, window)
        except TransportError as error:
            if reused and not buffer and error.failure is Failure.SHORT:
                raise _StaleConnection from error
            raise
        if not data:
            if reused and not buffer:
                raise _StaleConnection
            raise TransportError(Failure.SHORT, "connection closed without an answer")
        buffer += data
        while (parsed := split_head(buffer)) is not None:
            head, buffer = parsed
            if head.status >= 200:
                return head, buffer
            informational += 1
            if informational > INFORMATIONAL_LIMIT:
                raise FramingError("the answer never comes to an end of its beginnings")


async def _receive(connection: socket.socket, size_bytes: int, window: SpeedWindow) -> bytes:
    """Bytes from the peer, empty at the end of the connection. Always a checkpoint."""
    try:
        data = connection.recv(size_bytes)
        await trio.lowlevel.checkpoint()
    except BlockingIOError:
        data = None
    except OSError as error:
        raise TransportError(Failure.SHORT, words_of(error)) from error
    while data is None:
        await window.wait(partial(trio.lowlevel.wait_readable, connection))
        try:
            data = connection.recv(size_bytes)
        except BlockingIOError:
            continue
        except OSError as error:
            raise TransportError(Failure.SHORT, words_of(error)) from error
    window.received(len(data))
    return data


def _has_input(connection: socket.socket) -> bool:
    """Whether an idle connection has something to say: its end, or bytes that belong to no answer."""
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
