"""What time it is for a server: how far the clock here is off. Asks over the routes of a manager; keeps nothing."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from cvmfs_py.network import headers as fields
from cvmfs_py.network.client import AttemptEnd
from cvmfs_py.network.lean import LeanTransport
from cvmfs_py.network.limiter import Priority
from cvmfs_py.network.outcomes import Outcome, outcome_of_failure
from cvmfs_py.network.transport import Request, Transport, TransportError, TransportStatistics
from cvmfs_py.network.urls import parse_base, url_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.network.manager import Manager
    from cvmfs_py.network.routes import Route

PATH = ".cvmfspublished"


@dataclass(frozen=True, slots=True)
class ServerTime:
    """One comparison of two clocks."""

    host: str
    ahead_s: float  # of the clock here before the server's; accurate to a second or two


async def fetch_server_time(manager: Manager, limit_s: float) -> ServerTime | None:
    """Compares with the first server that answers and says its time. FetchError when none answers; None: no time."""

    async def attempt(route: Route) -> tuple[AttemptEnd, tuple[ServerTime | None] | None]:
        base = parse_base(route.host)
        if base is None:
            return AttemptEnd(Outcome.HOST_HTTP, "malformed URL"), None
        if base.scheme == "file":
            return AttemptEnd(Outcome.OK), (None,)
        transport: Transport
        if base.scheme == "http" and route.proxy.scheme == "http":
            transport = LeanTransport(TransportStatistics(), ipv4_only=manager.config.ipv4_only)
        else:
            from cvmfs_py.network.tls import TlsTransport  # brings httpx

            transport = TlsTransport(manager.config, TransportStatistics())
        headers = (*fields.standing_fields(manager.config), *fields.NO_CACHE)
        request = Request(url_of(base, PATH.encode()), route.proxy, headers, route.timeout_s, 0)
        try:
            asked_s = time.time()
            response = await transport.open(request)
            here_s = (asked_s + time.time()) / 2
            server_s = parse_date(response.headers)
            await response.close()
        except TransportError as error:
            return AttemptEnd(outcome_of_failure(error.failure, direct=route.proxy.is_direct), error.reason), None
        finally:
            with trio.CancelScope(shield=True):
                await transport.close()
        ahead_s = None if server_s is None else here_s - server_s
        return AttemptEnd(Outcome.OK), (None if ahead_s is None else ServerTime(route.host, ahead_s),)

    turn = manager.limiter.turn(Priority.METADATA)
    (found,) = await manager.perform(PATH, turn, attempt, no_cache=True, deadline=trio.current_time() + limit_s)
    return found


def parse_date(headers: Mapping[str, str]) -> float | None:
    """The server's time: of its answer, and how long a proxy has kept that."""
    try:
        date = email.utils.parsedate_to_datetime(headers.get("date", ""))
        age = headers.get("age", "0").strip()
        return date.timestamp() + (int(age[:9]) if age.isascii() and age.isdigit() else 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
