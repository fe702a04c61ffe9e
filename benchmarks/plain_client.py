"""The simplest client that can be: fetches paths over kept connections and throws the answers away.

    python -m benchmarks.plain_client PORT CONNECTIONS < PATHS

What it reaches is the limit of the server and the machine, for whatever else fetches the same. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


class Exchange(asyncio.Protocol):
    """One connection: asks for the next path whenever an answer is complete."""

    def __init__(self, paths: list[bytes], left: list[int], done: asyncio.Event) -> None:
        self._paths = paths
        self._left = left  # of all connections: answers to come
        self._done = done
        self._missing_bytes = -1  # of the answer under way; -1: its head is not here yet
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._missing_bytes < 0:
            head, end, body = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = b""
            self._missing_bytes = int(head.rpartition(b": ")[2])
            data = body
        self._missing_bytes -= len(data)
        if not self._missing_bytes:
            self._missing_bytes = -1
            self._left[0] -= 1
            if not self._left[0]:
                self._done.set()
            self._ask()

    def _ask(self) -> None:
        if self._paths:
            self._transport.write(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % self._paths.pop())


async def fetch(port: int, connections: int, paths: list[bytes]) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = [len(paths)]
    count = len(paths)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    made = [
        await loop.create_connection(lambda: Exchange(paths, left, done), "127.0.0.1", port) for _ in range(connections)
    ]
    await done.wait()
    result = {
        "requests": count,
        "wall_s": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
    }
    for transport, _ in made:
        transport.close()
    return result


if __name__ == "__main__":
    wanted = [line.strip().encode() for line in sys.stdin if line.strip()]
    print(json.dumps(asyncio.run(fetch(int(sys.argv[1]), int(sys.argv[2]), wanted))))
