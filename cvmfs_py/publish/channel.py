"""Messages between a process and its helper: a value and bytes that go with it, over a pair of sockets.

Both ends are this program in the same version. Concurrency: one thread at each end.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvmfs_py.publish.compression import Bytes

_HEADER = struct.Struct("<IQ")
_TAKEN_BYTES = 1 << 18


class Channel:
    """One end. Using it when the other end was closed raises EOFError."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._incoming = bytearray()  # what came in while a message was sent

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, value: object, payload: Bytes = b"") -> None:
        """Sends a message. Takes in what the other end sends meanwhile: two ends that only send wait for ever."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        for part in (_HEADER.pack(len(data), len(payload)) + data, payload):
            rest = memoryview(part)
            while rest:
                try:
                    rest = rest[self._end.send(rest, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    self._take_in()
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise EOFError from error

    @property
    def has_received(self) -> bool:
        """Whether a message, or its beginning, came in while one was sent."""
        return bool(self._incoming)

    def receive(self) -> tuple[Any, bytearray]:
        """The next message; waits for it."""
        value_bytes, payload_bytes = _HEADER.unpack(self._exactly(_HEADER.size))
        value = pickle.loads(self._exactly(value_bytes))
        return value, self._exactly(payload_bytes)

    def _take_in(self) -> None:
        """Waits until something can be sent or is received; never for the rest of a message."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN | select.POLLOUT)
        if poll.poll()[0][1] & select.POLLIN:
            data = self._end.recv(_TAKEN_BYTES)
            if not data:
                raise EOFError
            self._incoming += data

    def _exactly(self, size: int) -> bytearray:
        data = self._incoming[:size]
        del self._incoming[:size]
        start = len(data)
        data += bytes(size - start)
        rest = memoryview(data)[start:]
        while rest:
            try:
                count = self._end.recv_into(rest)
            except ConnectionResetError as error:
                raise EOFError from error
            if not count:
                raise EOFError
            rest = rest[count:]
        return data
