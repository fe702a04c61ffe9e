"""What every transport offers: a request goes out, a head comes back, then the body in pieces.

Only types. Transports know HTTP (or files), not routes, hashes or retries; they raise `TransportError` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.network.outcomes import Failure
    from cvmfs_py.network.proxy_list import Proxy
    from cvmfs_py.network.urls import Url

NO_TIMEOUT_S = 300.0  # what a time limit of 0 means for us: every wait ends


class TransportError(Exception):
    """A transport's report; `failure` is for machines, the text for people."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """One GET. `timeout_s` bounds the connect, and is the window in which `low_speed_limit_bytes_s` must be reached."""

    url: Url
    proxy: Proxy
    headers: tuple[tuple[str, str], ...]
    timeout_s: float
    low_speed_limit_bytes_s: int


@dataclass(slots=True)
class TransportStatistics:
    """Counters of all transports of one manager."""

    connections_opened: int = 0
    connections_reused: int = 0
    stale_connections: int = 0
    received_bytes: int = 0  # of bodies, as sent
    active: dict[str, int] = field(default_factory=dict)  # requests under way, by host


class Response(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; repeated fields joined by a comma."""

    async def receive(self) -> bytes:
        """The next piece of the body, empty at its proper end."""

    async def close(self) -> None:
        """Always to be called, also by a cancelled task; keeps the connection where the body was read to its end."""


class Transport(Protocol):
    """Something that can carry out a request."""

    async def open(self, request: Request) -> Response: ...

    async def close(self) -> None: ...
