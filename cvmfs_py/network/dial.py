"""Connecting: from a name and a port to a non-blocking socket, or to a reason in words.

Every wait is bounded by the given time. Keeps nothing.
"""

from __future__ import annotations

import errno
import os
import socket

import trio

from cvmfs_py.network.outcomes import Failure
from cvmfs_py.network.transport import NO_TIMEOUT_S, TransportError

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "no answer to the connection attempt",
    errno.EMFILE: "too many open files",
}


async def dial(host: str, port: int, timeout_s: float, *, ipv4_only: bool = False) -> socket.socket:
    """A connected TCP socket. Several addresses are tried side by side, a bit staggered."""
    limit_s = timeout_s or NO_TIMEOUT_S
    with trio.move_on_after(limit_s):
        try:
            if ipv4_only:
                host = await _ipv4_of(host, port)
            stream = await trio.open_tcp_stream(host, port)
        except (OSError, UnicodeError) as error:
            raise connect_error(error) from error
        connected = socket.socket(fileno=stream.socket.detach())
        connected.setblocking(False)
        return connected
    raise TransportError(Failure.CONNECTION, f"no connection in {limit_s:g} s")


async def _ipv4_of(host: str, port: int) -> str:
    found = await trio.socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    return str(found[0][4][0])


def connect_error(error: BaseException) -> TransportError:
    """What went wrong, from an error and those that it wraps."""
    for cause in causes_of(error):
        if isinstance(cause, (socket.gaierror, UnicodeError)):
            return TransportError(Failure.UNRESOLVED, "name not resolved")
    for cause in causes_of(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return TransportError(Failure.CONNECTION, words_of(cause))
    return TransportError(Failure.CONNECTION, str(error) or "connection failed")


def words_of(error: OSError) -> str:
    """An operating-system error in words."""
    if error.errno is None:
        return str(error) or "connection failed"
    return _WORDS.get(error.errno) or os.strerror(error.errno).lower()


def causes_of(error: BaseException) -> list[BaseException]:
    """The error and everything it was caused by, outermost first."""
    found: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending and len(found) < 50:
        current = pending.pop(0)
        found.append(current)
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        following = current.__cause__ or current.__context__
        if following is not None:
            pending.append(following)
    return found
