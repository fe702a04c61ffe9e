"""A scripted TCP server for everything that a healthy web server would never do.

    with FaultServer(lambda request: answer(200, b"hello")) as server:
        ... server.url, server.port, server.requests

The script is called for every request with what came in, and returns a list of steps (or one step): bytes to send,
`Pause(seconds)`, `Drip(data, piece_bytes, interval_s)`, `Endless(piece)`, `Silence()`, `Reset()`, `Close()`. After the
last step the connection is kept for the next request. `answer(...)` makes the bytes of an ordinary answer. A script can
also be a dictionary from path to steps. `refused_port()` gives a port at which nobody listens.

Threads: one that accepts, one per connection; all end with the block, whatever they are doing.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SeenRequest:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    connection: int  # a serial number: equal for requests over the same connection
    at_s: float

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def path(self) -> str:
        """The target without scheme and authority (requests to proxies have both)."""
        if "://" not in self.target:
            return self.target
        return "/" + self.target.split("://", 1)[1].partition("/")[2]


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Drip:
    data: bytes
    piece_bytes: int = 1
    interval_s: float = 0.05


@dataclass(frozen=True)
class Endless:
    piece: bytes = b"x" * 65536


class Silence:
    """Says nothing, and keeps the connection open."""


class Reset:
    """Ends the connection the rude way (RST)."""


class Close:
    """Ends the connection."""


Step = bytes | Pause | Drip | Endless | Silence | Reset | Close
Steps = Step | Sequence[Step]
Script = Callable[[SeenRequest], Steps] | Mapping[str, Steps]


def answer(
    status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None, *, length: int | None = None
) -> bytes:
    """An answer with a Content-Length (a false one, if `length` says so)."""
    fields = {"Content-Length": str(len(body) if length is None else length), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(pieces: Sequence[bytes], headers: Mapping[str, str] | None = None) -> bytes:
    """An answer in chunks."""
    lines = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *(f"{n}: {v}" for n, v in (headers or {}).items())]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body + b"0\r\n\r\n"


def refused_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FaultServer:
    """Listens on a port of 127.0.0.1, a free one unless one is given, for the length of the block."""

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._alarm, self._alarm_trigger = socket.socketpair()  # becomes readable, for everybody, when it is over
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[SeenRequest] = []
        self.connections = 0
        self.open_connections = 0
        self.most_connections = 0  # open at once

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def __enter__(self) -> FaultServer:
        acceptor = threading.Thread(target=self._accept)
        self._threads.append(acceptor)
        acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Dies: open connections are cut, new ones refused."""
        self._stopping.set()
        self._alarm_trigger.close()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._alarm.close()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._alarm], [], [])
            if self._alarm in ready:
                return
            connection, _ = self._listener.accept()
            with self._lock:
                self.connections += 1
                self.open_connections += 1
                self.most_connections = max(self.most_connections, self.open_connections)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, serial: int) -> None:
        try:
            self._converse(connection, serial)
        finally:
            with self._lock:
                self.open_connections -= 1

    def _converse(self, connection: socket.socket, serial: int) -> None:
        buffer = b""
        with connection, contextlib.suppress(OSError, _Ended):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                while b"\r\n\r\n" not in buffer:
                    self._wait(connection)
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
                request = SeenRequest(line, headers, serial, time.monotonic())
                with self._lock:
                    self.requests.append(request)
                for step in self._steps(request):
                    self._perform(step, connection)

    def _steps(self, request: SeenRequest) -> Sequence[Step]:
        script = self._script
        steps = script(request) if callable(script) else script.get(request.path, answer(404))
        return steps if isinstance(steps, Sequence) and not isinstance(steps, bytes) else [steps]

    def _perform(self, step: Step, connection: socket.socket) -> None:
        if isinstance(step, bytes):
            self._send(connection, step)
        elif isinstance(step, Pause):
            self._sleep(step.seconds)
        elif isinstance(step, Drip):
            for start in range(0, len(step.data), step.piece_bytes):
                self._send(connection, step.data[start : start + step.piece_bytes])
                self._sleep(step.interval_s)
        elif isinstance(step, Endless):
            while True:
                self._send(connection, step.piece)
        elif isinstance(step, Silence):
            while True:
                self._wait(connection)
                if not connection.recv(65536):
                    raise _Ended
        elif isinstance(step, Reset):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Ended
        else:
            raise _Ended

    def _send(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(connection, writing=True)
            view = view[connection.send(view) :]

    def _sleep(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Ended

    def _wait(self, connection: socket.socket, *, writing: bool = False) -> None:
        waiting = [self._alarm] if writing else [self._alarm, connection]
        readable, _, _ = select.select(waiting, [connection] if writing else [], [])
        if self._alarm in readable:
            raise _Ended


class _Ended(Exception):
    """The connection is over."""
