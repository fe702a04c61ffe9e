"""A small static HTTP server that answers after a given time: a program of its own, started by its path.

    python -I delayed_server.py DIRECTORY DELAY-MS

Prints its port, then answers each line on its standard input with its counters since the last one, as a line of JSON;
ends with its standard input. Answers come from memory after the first time, so that the server costs as little as
possible; any number of connections are kept open.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass

CONNECTION_BACKLOG = 512


@dataclass(slots=True)
class Counters:
    """What was asked since the last line."""

    requests: int = 0
    body_bytes: int = 0
    connections: int = 0
    most_in_flight: int = 0
    missing: int = 0


class Files:
    """Answers by path, read once."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.realpath(directory)
        self._answers: dict[bytes, tuple[bytes, int]] = {}

    def answer(self, path: bytes) -> tuple[bytes, int]:
        """A whole answer and the size of its body; -1: there is no such file."""
        found = self._answers.get(path)
        if found is None:
            found = self._read(path)
            self._answers[path] = found
        return found

    def _read(self, path: bytes) -> tuple[bytes, int]:
        local = os.path.realpath(self._directory + os.fsdecode(path))
        try:
            if not local.startswith(self._directory + "/"):
                raise FileNotFoundError
            with open(local, "rb") as file:
                body = file.read()
        except OSError:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", -1
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, len(body)


class Connection(asyncio.Protocol):
    """Answers requests in their order, each after the delay."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.counters.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            path = self._buffer[:end].split(b" ", 2)[1]
            self._buffer = self._buffer[end + 4 :]
            self._server.answer(path, self._transport)


class Server:
    """Counters, files and the delay that all connections share."""

    def __init__(self, directory: str, delay_s: float) -> None:
        self.counters = Counters()
        self._files = Files(directory)
        self._delay_s = delay_s
        self._in_flight = 0

    def answer(self, path: bytes, transport: asyncio.Transport) -> None:
        answer, size_bytes = self._files.answer(path)
        counters = self.counters
        counters.requests += 1
        counters.body_bytes += max(size_bytes, 0)
        counters.missing += size_bytes < 0
        self._in_flight += 1
        counters.most_in_flight = max(counters.most_in_flight, self._in_flight)
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._send, answer, transport)
        else:
            self._send(answer, transport)

    def _send(self, answer: bytes, transport: asyncio.Transport) -> None:
        self._in_flight -= 1
        transport.write(answer)

    def tell(self, done: asyncio.Event) -> None:
        line = sys.stdin.buffer.readline()
        if not line:
            done.set()
            return
        print(json.dumps(asdict(self.counters)), flush=True)
        self.counters = Counters()


async def serve(directory: str, delay_s: float) -> None:
    server = Server(directory, delay_s)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), server.tell, done)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=CONNECTION_BACKLOG)
    async with listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await done.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]) / 1000))
