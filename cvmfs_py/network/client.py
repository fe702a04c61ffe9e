"""One attempt: one GET over one route, its answer checked and handed to a receiver, its end put into an outcome.

Decides nothing about what happens next (`routes`), holds no slots (`limiter`), verifies nothing (receivers do).

Concurrency: any number of attempts at a time; each belongs to one task.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import trio

from cvmfs_py.errors import IntegrityError
from cvmfs_py.network import headers as fields
from cvmfs_py.network.file_urls import FileTransport
from cvmfs_py.network.lean import LeanTransport
from cvmfs_py.network.outcomes import REDIRECTS, Outcome, outcome_of_failure, outcome_of_status
from cvmfs_py.network.transport import Request, Response, Transport, TransportError, TransportStatistics
from cvmfs_py.network.urls import Url, parse_base, parse_location, url_of

if TYPE_CHECKING:
    from cvmfs_py.network.options import NetworkConfig
    from cvmfs_py.network.proxy_list import Proxy
    from cvmfs_py.network.routes import Route

REDIRECT_LIMIT = 4
FILE_REASONS = {403: "permission denied", 404: "no such file"}  # no HTTP was spoken
DRAIN_LIMIT_BYTES = 64 << 10  # of an error page, to keep its connection
DRAIN_LIMIT_S = 1.0
BATCH_BYTES = 1 << 20  # of a large object, for one visit to a worker thread

# zlib and the hashes release the interpreter's lock; more threads than cores only take turns
_crunching = trio.CapacityLimiter(max(2, os.cpu_count() or 2))


class Receiver(Protocol):
    """Takes a body. Raises IntegrityError as soon as it cannot be what was asked for."""

    @property
    def is_small(self) -> bool: ...

    def expect(self, stored_bytes: int) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def feed_all(self, pieces: list[bytes]) -> None: ...


class Collector:
    """A receiver for small things that have no hash: keeps them in memory, up to a limit."""

    is_small = True

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)

    def expect(self, stored_bytes: int) -> None:
        if stored_bytes > self._limit_bytes:
            raise IntegrityError(f"larger than the {self._limit_bytes} bytes that are accepted")

    def feed(self, data: bytes) -> None:
        self._size_bytes += len(data)
        self.expect(self._size_bytes)
        self._pieces.append(data)

    def feed_all(self, pieces: list[bytes]) -> None:
        for data in pieces:
            self.feed(data)


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of whichever host it will be."""

    path: bytes  # below the host's URL
    span: tuple[int, int] | None = None  # offset and length: a part of the file, and nothing else will do
    label: str = ""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended, for machines and for people."""

    outcome: Outcome
    reason: str = ""


_DONE = AttemptEnd(Outcome.OK)


class Client:
    """The transports of one manager."""

    def __init__(self, config: NetworkConfig, statistics: TransportStatistics) -> None:
        self._config = config
        self._statistics = statistics
        self._fields = fields.standing_fields(config)
        self._lean = LeanTransport(statistics, idle_limit=config.idle_connections, ipv4_only=config.ipv4_only)
        self._files = FileTransport(statistics)
        self._tls: Transport | None = None

    async def close(self) -> None:
        await self._lean.close()
        if self._tls is not None:
            await self._tls.close()

    async def attempt(self, route: Route, target: Target, receiver: Receiver) -> AttemptEnd:
        """Tries one route. What the receiver got of a failed attempt is worth nothing."""
        base = parse_base(route.host)
        if base is None:
            return AttemptEnd(Outcome.HOST_HTTP, "malformed URL")
        direct = route.proxy.is_direct or base.scheme == "file"
        if not direct and route.proxy.address is None:
            return AttemptEnd(Outcome.PROXY_UNRESOLVED, "proxy name not resolved")
        active = self._statistics.active
        active[route.host] = active.get(route.host, 0) + 1
        try:
            return await self._follow(url_of(base, target.path), route, target, receiver, direct=direct)
        except TransportError as error:
            return AttemptEnd(outcome_of_failure(error.failure, direct=direct), error.reason)
        except IntegrityError as error:
            return AttemptEnd(Outcome.CORRUPTED, str(error))
        finally:
            active[route.host] -= 1

    async def _follow(self, url: Url, route: Route, target: Target, receiver: Receiver, *, direct: bool) -> AttemptEnd:
        headers = self._headers(route, target)
        for _ in range(REDIRECT_LIMIT + 1):
            request = Request(url, route.proxy, headers, route.timeout_s, self._config.low_speed_limit_bytes_s)
            response = await self._transport_for(url, route.proxy).open(request)
            try:
                if response.status not in REDIRECTS or not self._config.follow_redirects:
                    end = await self._take(response, target, receiver, direct=direct)
                    if url.scheme == "file" and response.status in FILE_REASONS:
                        end = replace(end, reason=FILE_REASONS[response.status])
                    return end
                location = parse_location(response.headers.get("location", ""), url)
                await _drain(response)
            finally:
                await response.close()
            if location is None or location.scheme == "file":
                return AttemptEnd(Outcome.HOST_HTTP, f"HTTP {response.status} to an unusable place")
            url = location
        return AttemptEnd(Outcome.HOST_CONNECTION, f"more than {REDIRECT_LIMIT} redirects")

    async def _take(self, response: Response, target: Target, receiver: Receiver, *, direct: bool) -> AttemptEnd:
        """Checks an answer's head and hands its body over."""
        status, headers = response.status, response.headers
        made_up = fields.proxy_error(headers)
        outcome = outcome_of_status(status, direct=direct, proxy_error=made_up is not None)
        if outcome is not Outcome.OK:
            await _drain(response)
            if status in REDIRECTS:
                return AttemptEnd(outcome, f"HTTP {status}, and redirects are not followed")
            return AttemptEnd(outcome, f"HTTP {status} ({made_up})" if made_up else f"HTTP {status}")
        if target.span is None and status != 200:
            return AttemptEnd(Outcome.HOST_HTTP, f"unexpected HTTP {status}")
        if target.span is not None and not _is_part(response, target.span):
            return AttemptEnd(Outcome.HOST_HTTP, f"HTTP {status} without the requested range")
        coding = fields.recoding(headers)
        if coding is not None:
            raise IntegrityError(f"re-encoded by proxy (Content-Encoding: {coding[:40]})")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            receiver.expect(int(length[:20]))
        if receiver.is_small:
            while data := await response.receive():
                receiver.feed(data)
        else:
            await _feed_in_threads(response, receiver)
        return _DONE

    def _headers(self, route: Route, target: Target) -> tuple[tuple[str, str], ...]:
        headers = self._fields
        if target.span is not None:
            offset, length = target.span
            headers = (*headers, ("Range", f"bytes={offset}-{offset + length - 1}"))
        if self._config.send_info_header and target.label:
            headers = (*headers, fields.info_field(target.label))
        return (*headers, *fields.NO_CACHE) if route.no_cache else headers

    def _transport_for(self, url: Url, proxy: Proxy) -> Transport:
        if url.scheme == "file":
            return self._files
        if url.scheme == "http" and proxy.scheme == "http":
            return self._lean
        if self._tls is None:
            from cvmfs_py.network.tls import TlsTransport  # brings httpx

            self._tls = TlsTransport(self._config, self._statistics)
        return self._tls


async def _feed_in_threads(response: Response, receiver: Receiver) -> None:
    """Collects pieces and works on them in a thread, so that large objects do not hold up everybody else."""
    pieces: list[bytes] = []
    waiting_bytes = 0
    while data := await response.receive():
        pieces.append(data)
        waiting_bytes += len(data)
        if waiting_bytes >= BATCH_BYTES:
            await trio.to_thread.run_sync(receiver.feed_all, pieces, limiter=_crunching)
            pieces, waiting_bytes = [], 0
    if pieces:
        await trio.to_thread.run_sync(receiver.feed_all, pieces, limiter=_crunching)


def _is_part(response: Response, span: tuple[int, int]) -> bool:
    """Whether an answer is exactly the requested part."""
    if response.status != 206:
        return False
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:[0-9]+|\*)", response.headers.get("content-range", ""))
    return match is not None and (int(match[1]), int(match[2]) + 1) == (span[0], span[0] + span[1])


async def _drain(response: Response) -> None:
    """Reads a short rest, so that the connection can be kept. What goes wrong here does not matter any more."""
    length = response.headers.get("content-length", "")
    if not length.isdigit() or int(length[:10]) > DRAIN_LIMIT_BYTES:
        return
    with trio.move_on_after(DRAIN_LIMIT_S), contextlib.suppress(TransportError):
        while await response.receive():
            pass
