"""How one attempt ended: the error classes of the field, and how transport facts map to them.

Pure. The numbers and texts are those that administrators know from logs. Decides nothing: reactions are in `routes`.
"""

from __future__ import annotations

import enum


class Outcome(enum.Enum):
    """The class of one attempt's end: number, text."""

    OK = (0, "OK")
    LOCAL_IO = (1, "local I/O failure")
    MALFORMED_URL = (2, "malformed URL")
    PROXY_UNRESOLVED = (3, "failed to resolve proxy address")
    HOST_UNRESOLVED = (4, "failed to resolve host address")
    ALL_PROXIES = (5, "all proxies failed, trying host fail-over")
    PROXY_CONNECTION = (6, "proxy connection problem")
    HOST_CONNECTION = (7, "host connection problem")
    PROXY_HTTP = (8, "proxy returned HTTP error")
    HOST_HTTP = (9, "host returned HTTP error")
    HOST_GONE = (9, "host says that the object does not exist")
    CORRUPTED = (10, "corrupted data received")
    TOO_BIG = (11, "resource too big to download")
    UNKNOWN = (12, "unknown network error")
    UNSUPPORTED = (13, "unsupported URL in protocol")
    PROXY_SLOW = (14, "proxy serving data too slowly")
    HOST_SLOW = (15, "host serving data too slowly")
    PROXY_SHORT = (16, "proxy data transfer cut short")
    HOST_SHORT = (17, "host data transfer cut short")
    CANCELED = (18, "request canceled")

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]

    @property
    def blames_proxy(self) -> bool:
        return self in _PROXY

    @property
    def blames_host(self) -> bool:
        return self in _HOST

    @property
    def is_transfer_problem(self) -> bool:
        """Connection, speed or completeness: what a second try over the same path may cure."""
        return self in _TRANSFER


_PROXY = frozenset(
    {Outcome.PROXY_UNRESOLVED, Outcome.PROXY_CONNECTION, Outcome.PROXY_HTTP, Outcome.PROXY_SLOW, Outcome.PROXY_SHORT}
)
_HOST = frozenset(
    {
        Outcome.HOST_UNRESOLVED,
        Outcome.HOST_CONNECTION,
        Outcome.HOST_HTTP,
        Outcome.HOST_GONE,
        Outcome.HOST_SLOW,
        Outcome.HOST_SHORT,
    }
)
_TRANSFER = frozenset(
    {
        Outcome.PROXY_CONNECTION,
        Outcome.HOST_CONNECTION,
        Outcome.PROXY_SLOW,
        Outcome.HOST_SLOW,
        Outcome.PROXY_SHORT,
        Outcome.HOST_SHORT,
    }
)


class Failure(enum.Enum):
    """What a transport can report; it does not know whom to blame."""

    UNRESOLVED = enum.auto()
    CONNECTION = enum.auto()
    SLOW = enum.auto()
    SHORT = enum.auto()
    GARBAGE = enum.auto()  # what came is not HTTP
    TLS = enum.auto()
    URL = enum.auto()


_DIRECT = {
    Failure.UNRESOLVED: Outcome.HOST_UNRESOLVED,
    Failure.CONNECTION: Outcome.HOST_CONNECTION,
    Failure.SLOW: Outcome.HOST_SLOW,
    Failure.SHORT: Outcome.HOST_SHORT,
    Failure.GARBAGE: Outcome.HOST_HTTP,
    Failure.TLS: Outcome.HOST_CONNECTION,
    Failure.URL: Outcome.HOST_HTTP,  # one misspelt host does not spoil the others
}
_PROXIED = {
    Failure.UNRESOLVED: Outcome.PROXY_UNRESOLVED,
    Failure.CONNECTION: Outcome.PROXY_CONNECTION,
    Failure.SLOW: Outcome.PROXY_SLOW,
    Failure.SHORT: Outcome.PROXY_SHORT,
    Failure.GARBAGE: Outcome.PROXY_HTTP,
    Failure.TLS: Outcome.HOST_CONNECTION,
    Failure.URL: Outcome.HOST_HTTP,
}

REDIRECTS = frozenset({301, 302, 303, 307})


def outcome_of_failure(failure: Failure, *, direct: bool) -> Outcome:
    return (_DIRECT if direct else _PROXIED)[failure]


def outcome_of_status(status: int, *, direct: bool, proxy_error: bool) -> Outcome:
    """The class of a final HTTP status. `proxy_error`: a header says that the proxy made the answer up itself."""
    if 200 <= status < 300:
        return Outcome.OK
    if status == 429:
        return Outcome.HOST_CONNECTION
    if status in REDIRECTS or status == 400 or status == 404 or 500 <= status < 600:
        if proxy_error and not direct:
            return Outcome.PROXY_HTTP
        return Outcome.HOST_GONE if status == 404 else Outcome.HOST_HTTP
    return Outcome.HOST_HTTP if direct else Outcome.PROXY_HTTP
