"""`https://` servers and proxies, through httpx.

httpx is imported when the first such request is made: the import alone takes longer than a warm command may. Ignores
the environment's proxies and certificates; the configuration alone decides.

Concurrency: one response belongs to one task.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from cvmfs_py.errors import ConfigError
from cvmfs_py.network.dial import causes_of, connect_error
from cvmfs_py.network.outcomes import Failure
from cvmfs_py.network.speed import SpeedWindow
from cvmfs_py.network.transport import NO_TIMEOUT_S, Request, TransportError, TransportStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from cvmfs_py.network.options import NetworkConfig
    from cvmfs_py.network.proxy_list import Proxy


class TlsTransport:
    """One httpx client per proxy, each with its own pool."""

    def __init__(self, config: NetworkConfig, statistics: TransportStatistics) -> None:
        self._config = config
        self._statistics = statistics
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._context: ssl.SSLContext | None = None

    async def open(self, request: Request) -> TlsResponse:
        import httpx

        client = self._client_for(request.proxy)
        timeout = httpx.Timeout(request.timeout_s or NO_TIMEOUT_S, pool=None)
        try:
            message = client.build_request("GET", str(request.url), headers=list(request.headers), timeout=timeout)
            answer = await client.send(message, stream=True, follow_redirects=False)
        except httpx.InvalidURL as error:
            raise TransportError(Failure.URL, "malformed URL") from error
        except httpx.TransportError as error:
            raise _translate(error, request.timeout_s) from error
        window = SpeedWindow(request.timeout_s, request.low_speed_limit_bytes_s)
        return TlsResponse(answer, window, request.timeout_s, self._statistics)

    async def close(self) -> None:
        while self._clients:
            await self._clients.popitem()[1].aclose()

    def _client_for(self, proxy: Proxy) -> httpx.AsyncClient:
        import httpx

        client = self._clients.get(proxy.url)
        if client is None:
            if self._context is None:
                self._context = _ssl_context(self._config)
            via = None
            if not proxy.is_direct:
                headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
                context = self._context if proxy.scheme == "https" else None
                # a name must stay a name where a certificate is going to be compared with it
                url = proxy.name if proxy.scheme == "https" else proxy.url
                via = httpx.Proxy(url, headers=headers, ssl_context=context)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._config.idle_connections)
            transport = httpx.AsyncHTTPTransport(verify=self._context, proxy=via, limits=limits, trust_env=False)
            client = httpx.AsyncClient(transport=transport, trust_env=False)
            client.headers.clear()  # ours say everything
            self._clients[proxy.url] = client
        return client


class TlsResponse:
    """An answer whose head has arrived."""

    def __init__(
        self, answer: httpx.Response, window: SpeedWindow, timeout_s: float, statistics: TransportStatistics
    ) -> None:
        self._answer = answer
        self._window = window
        self._timeout_s = timeout_s
        self._statistics = statistics
        self._pieces: AsyncIterator[bytes] = answer.aiter_raw()
        self._headers = dict(answer.headers.items())
        self._next = b""

    @property
    def status(self) -> int:
        return self._answer.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def receive(self) -> bytes:
        import httpx

        try:
            await self._window.wait(self._advance)
        except httpx.TransportError as error:
            raise _translate(error, self._timeout_s) from error
        self._window.received(len(self._next))
        self._statistics.received_bytes += len(self._next)
        return self._next

    async def close(self) -> None:
        with trio.CancelScope(shield=True):
            await self._answer.aclose()

    async def _advance(self) -> None:
        self._next = await anext(self._pieces, b"")


def _translate(error: httpx.TransportError, timeout_s: float) -> TransportError:
    import httpx

    limit_s = timeout_s or NO_TIMEOUT_S
    if isinstance(error, httpx.ConnectTimeout):
        return TransportError(Failure.CONNECTION, f"no connection in {limit_s:g} s")
    if isinstance(error, httpx.TimeoutException):
        return TransportError(Failure.SLOW, f"no answer in {limit_s:g} s")
    if isinstance(error, httpx.ProxyError):
        return TransportError(Failure.CONNECTION, f"the proxy refuses the tunnel ({error})")
    if isinstance(error, httpx.ConnectError):
        for cause in causes_of(error):
            if isinstance(cause, ssl.SSLError):
                reason = getattr(cause, "verify_message", "") or cause.reason or "no agreement"
                return TransportError(Failure.TLS, f"TLS failure, certificate: {reason}")
        return connect_error(error)
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return TransportError(Failure.URL, "malformed URL")
    if isinstance(error, httpx.RemoteProtocolError) and "without" not in str(error):
        return TransportError(Failure.GARBAGE, f"the answer is not HTTP ({error})")
    return TransportError(Failure.SHORT, "connection closed in the middle of the answer")


def _ssl_context(config: NetworkConfig) -> ssl.SSLContext:
    bundle, directory = config.x509_cert_bundle or None, config.x509_cert_dir or None
    try:
        context = ssl.create_default_context(cafile=bundle, capath=directory)
        if config.use_ssl_system_ca and (bundle or directory):
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificates in {bundle or directory or 'the system store'} cannot be used ({error}); "
            "check X509_CERT_BUNDLE and X509_CERT_DIR"
        ) from error
    return context
