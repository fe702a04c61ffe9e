"""The lean transport and the client on top of it, against a server that does everything wrong on purpose.

Time limits are real but short; nothing here waits for a fixed time to pass.
"""

from __future__ import annotations

import gzip
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from cvmfs_py.network.client import AttemptEnd, Client, Collector, Target
from cvmfs_py.network.options import NetworkConfig
from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_list import DIRECT, Proxy
from cvmfs_py.network.routes import Route
from cvmfs_py.network.transport import TransportStatistics
from tests.simulator.fault_server import (
    Close,
    Drip,
    Endless,
    FaultServer,
    Pause,
    Reset,
    Script,
    SeenRequest,
    Silence,
    Steps,
    answer,
    chunked,
    refused_port,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_BYTES = 1 << 20
TIMEOUT_S = 0.4


class Bench:
    """A client with short limits, and what it has counted."""

    def __init__(self, config: NetworkConfig) -> None:
        self.statistics = TransportStatistics()
        self.client = Client(config, self.statistics)

    async def get(
        self,
        host: str,
        path: bytes = b"/file",
        *,
        proxy: Proxy = DIRECT,
        no_cache: bool = False,
        span: tuple[int, int] | None = None,
        label: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[AttemptEnd, bytes]:
        collector = Collector(LIMIT_BYTES)
        route = Route(host, proxy, no_cache, 0, timeout_s)
        end = await self.client.attempt(route, Target(path, span, label), collector)
        return end, collector.data


@asynccontextmanager
async def bench(**changes: object) -> AsyncIterator[Bench]:
    config = replace(NetworkConfig(), **changes)  # type: ignore[arg-type]
    made = Bench(config)
    try:
        yield made
    finally:
        await made.client.close()


async def outcome(script: Script, *, proxied: bool = False, **changes: object) -> tuple[Outcome, str]:
    """How one request to a scripted server (or proxy) ends."""
    with FaultServer(script) as server:
        async with bench(**changes) as made:
            if proxied:
                end, _ = await made.get("http://stratum.invalid/cvmfs/r", proxy=proxy_at(server))
            else:
                end, _ = await made.get(server.url)
        assert set(made.statistics.active.values()) <= {0}
        return end.outcome, end.reason


def proxy_at(server: FaultServer) -> Proxy:
    return Proxy(server.url, "127.0.0.1", server.port, "127.0.0.1")


async def test_an_ordinary_answer() -> None:
    with FaultServer({"/r/file": answer(200, b"hello")}) as server:
        async with bench() as made:
            end, data = await made.get(server.url + "/r")
    assert (end.outcome, data) == (Outcome.OK, b"hello")
    assert server.requests[0].line == "GET /r/file HTTP/1.1"
    headers = server.requests[0].headers
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["connection"] == "Keep-Alive"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("cvmfs-py/")
    assert not headers.keys() & {"pragma", "cache-control", "range", "cvmfs-info"}


async def test_optional_fields() -> None:
    with FaultServer({"/file": answer(200, b"x")}) as server:
        async with bench(send_info_header=True) as made:
            await made.get(server.url, no_cache=True, label="/a b")
    headers = server.requests[0].headers
    assert headers["pragma"] == headers["cache-control"] == "no-cache"
    assert headers["cvmfs-info"] == "/a%20b"


async def test_paths_are_escaped() -> None:
    with FaultServer(lambda request: answer(200, request.target.encode())) as server:
        async with bench() as made:
            _, data = await made.get(server.url, b"/a b\r\nX: y?\xff")
    assert data == b"/a%20b%0D%0AX:%20y%3F%FF"


async def test_over_a_proxy_the_whole_url_is_asked_for() -> None:
    with FaultServer(lambda request: answer(200, b"via")) as server:
        async with bench() as made:
            proxy = replace(proxy_at(server), authorization="Basic eA==")
            end, data = await made.get("http://stratum.invalid:8000/cvmfs/r", proxy=proxy)
    assert (end.outcome, data) == (Outcome.OK, b"via")
    assert server.requests[0].line == "GET http://stratum.invalid:8000/cvmfs/r/file HTTP/1.1"
    assert server.requests[0].headers["host"] == "stratum.invalid:8000"
    assert server.requests[0].headers["proxy-authorization"] == "Basic eA=="


BODY = bytes(range(256)) * 1000
GOOD: list[tuple[str, Steps]] = [
    ("fixed length", answer(200, BODY)),
    ("chunked", chunked([BODY[:1], BODY[1:70000], BODY[70000:]])),
    ("until close", [b"HTTP/1.1 200 OK\r\n\r\n" + BODY, Close()]),
    ("HTTP/1.0", [b"HTTP/1.0 200 OK\r\n\r\n" + BODY, Close()]),
    ("after informational heads", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(200, BODY)),
    (
        "in pieces",
        [answer(200, BODY)[:10], Pause(0.02), answer(200, BODY)[10:200], Pause(0.02), answer(200, BODY)[200:]],
    ),
    ("identity is no coding", answer(200, BODY, {"Content-Encoding": "identity"})),
    ("announced to be closed", answer(200, BODY, {"Connection": "close"})),
    ("slow, but not too slow", [answer(200, length=5), Drip(b"12345", 1, 0.1)]),
]


@pytest.mark.parametrize(("name", "steps"), GOOD, ids=[name for name, _ in GOOD])
async def test_good_answers(name: str, steps: Steps) -> None:
    with FaultServer(lambda _: steps) as server:
        async with bench(low_speed_limit_bytes_s=5) as made:
            for _ in range(2):
                end, data = await made.get(server.url, timeout_s=0.5)
                assert (end.outcome, end.reason) == (Outcome.OK, "")
                assert data == (b"12345" if name.startswith("slow") else BODY)


HEAD = b"HTTP/1.1 200 OK\r\n"
BAD: list[tuple[str, Steps, Outcome, Outcome, str]] = [
    (
        "closed without an answer",
        Close(),
        Outcome.HOST_SHORT,
        Outcome.PROXY_SHORT,
        "connection closed without an answer",
    ),
    ("reset", Reset(), Outcome.HOST_SHORT, Outcome.PROXY_SHORT, "connection reset"),
    ("silence", Silence(), Outcome.HOST_SLOW, Outcome.PROXY_SLOW, "no answer in 0.4 s"),
    (
        "silence after the head",
        [answer(200, length=5), Silence()],
        Outcome.HOST_SLOW,
        Outcome.PROXY_SLOW,
        "slower than 1024 B/s for 0.4 s",
    ),
    (
        "drip",
        [answer(200, length=100000), Drip(b"x" * 100000)],
        Outcome.HOST_SLOW,
        Outcome.PROXY_SLOW,
        "slower than 1024 B/s for 0.4 s",
    ),
    ("a dripping head", [Drip(HEAD * 100)], Outcome.HOST_SLOW, Outcome.PROXY_SLOW, "slower than 1024 B/s for 0.4 s"),
    (
        "short body",
        [answer(200, b"half", length=8), Close()],
        Outcome.HOST_SHORT,
        Outcome.PROXY_SHORT,
        "connection closed in the middle of the answer",
    ),
    (
        "short chunks",
        [chunked([b"half"])[:-5], Close()],
        Outcome.HOST_SHORT,
        Outcome.PROXY_SHORT,
        "connection closed in the middle of the answer",
    ),
    ("short head", [HEAD, Close()], Outcome.HOST_SHORT, Outcome.PROXY_SHORT, "connection closed without an answer"),
    ("garbage", b"\x00\x01\x02garbage" * 100, Outcome.HOST_HTTP, Outcome.PROXY_HTTP, "the answer is not HTTP"),
    ("a login page", b"<html>log in</html>\r\n\r\n", Outcome.HOST_HTTP, Outcome.PROXY_HTTP, "the answer is not HTTP"),
    ("endless garbage", Endless(), Outcome.HOST_HTTP, Outcome.PROXY_HTTP, "the answer is not HTTP"),
    (
        "header flood",
        [HEAD, Endless(b"A: b\r\n" * 1000)],
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "the head of the answer is larger than 64 KiB",
    ),
    (
        "many headers",
        HEAD + b"A: b\r\n" * 200 + b"\r\n",
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "the answer has more than 100 header fields",
    ),
    (
        "endless beginnings",
        Endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "the answer never comes to an end of its beginnings",
    ),
    (
        "two lengths",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "the answer has a malformed length",
    ),
    (
        "malformed chunks",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "the answer has a malformed chunk header",
    ),
    (
        "endless body",
        [HEAD + b"\r\n", Endless()],
        Outcome.CORRUPTED,
        Outcome.CORRUPTED,
        "larger than the 1048576 bytes that are accepted",
    ),
    (
        "endless chunks",
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", Endless(b"1000\r\n" + b"x" * 4096 + b"\r\n")],
        Outcome.CORRUPTED,
        Outcome.CORRUPTED,
        "larger than the 1048576 bytes that are accepted",
    ),
    (
        "a huge announced length",
        [answer(200, length=1 << 40), Silence()],
        Outcome.CORRUPTED,
        Outcome.CORRUPTED,
        "larger than the 1048576 bytes that are accepted",
    ),
    (
        "re-encoded",
        answer(200, gzip.compress(b"x"), {"Content-Encoding": "gzip"}),
        Outcome.CORRUPTED,
        Outcome.CORRUPTED,
        "re-encoded by proxy (Content-Encoding: gzip)",
    ),
    ("not found", answer(404, b"no"), Outcome.HOST_GONE, Outcome.HOST_GONE, "HTTP 404"),
    ("bad request", answer(400, b"no"), Outcome.HOST_HTTP, Outcome.HOST_HTTP, "HTTP 400"),
    ("server error", answer(503, b"no"), Outcome.HOST_HTTP, Outcome.HOST_HTTP, "HTTP 503"),
    (
        "the proxy's own error",
        answer(503, b"no", {"X-Squid-Error": "ERR_CONNECT_FAIL 111"}),
        Outcome.HOST_HTTP,
        Outcome.PROXY_HTTP,
        "HTTP 503 (ERR_CONNECT_FAIL 111)",
    ),
    ("forbidden", answer(403, b"no"), Outcome.HOST_HTTP, Outcome.PROXY_HTTP, "HTTP 403"),
    ("too many requests", answer(429, b"no"), Outcome.HOST_CONNECTION, Outcome.HOST_CONNECTION, "HTTP 429"),
    (
        "nothing to say",
        HEAD.replace(b"200", b"204") + b"\r\n",
        Outcome.HOST_HTTP,
        Outcome.HOST_HTTP,
        "unexpected HTTP 204",
    ),
    (
        "a redirect",
        answer(302, headers={"Location": "/other"}),
        Outcome.HOST_HTTP,
        Outcome.HOST_HTTP,
        "HTTP 302, and redirects are not followed",
    ),
    (
        "an endless error page",
        [b"HTTP/1.1 404 No\r\n\r\n", Endless()],
        Outcome.HOST_GONE,
        Outcome.HOST_GONE,
        "HTTP 404",
    ),
    ("a slow error page", [answer(404, length=5), Silence()], Outcome.HOST_GONE, Outcome.HOST_GONE, "HTTP 404"),
]


@pytest.mark.parametrize("case", BAD, ids=[case[0] for case in BAD])
async def test_bad_answers(case: tuple[str, Steps, Outcome, Outcome, str]) -> None:
    _, steps, direct, proxied, reason = case
    with trio.fail_after(5):
        assert await outcome(lambda _: steps) == (direct, reason)
        assert await outcome(lambda _: steps, proxied=True) == (proxied, reason)


async def test_nobody_there() -> None:
    async with bench() as made:
        port = refused_port()
        end, _ = await made.get(f"http://127.0.0.1:{port}")
        assert end == AttemptEnd(Outcome.HOST_CONNECTION, "connection refused")
        end, _ = await made.get("http://stratum.invalid/", proxy=Proxy("p", "127.0.0.1", port, "127.0.0.1"))
        assert end == AttemptEnd(Outcome.PROXY_CONNECTION, "connection refused")


async def test_names_that_do_not_exist() -> None:
    async with bench() as made:
        end, _ = await made.get("http://does-not-exist.invalid/r", timeout_s=3)
        assert end.outcome in (Outcome.HOST_UNRESOLVED, Outcome.HOST_CONNECTION)  # no resolver at all: time runs out
        end, _ = await made.get("http://h/r", proxy=Proxy("http://does-not-exist.invalid:3128", "x", 3128))
        assert end == AttemptEnd(Outcome.PROXY_UNRESOLVED, "proxy name not resolved")
        end, _ = await made.get("nonsense")
        assert end == AttemptEnd(Outcome.HOST_HTTP, "malformed URL")
        end, _ = await made.get("http://" + "a" * 80 + ".invalid/r")
        assert end.outcome is Outcome.HOST_UNRESOLVED


async def test_connections_are_kept_and_shared_in_turn() -> None:
    with FaultServer(lambda _: answer(200, b"x")) as server:
        async with bench() as made:
            for _ in range(5):
                assert (await made.get(server.url))[0].outcome is Outcome.OK
    assert server.connections == 1
    assert (made.statistics.connections_opened, made.statistics.connections_reused) == (1, 4)


async def test_connections_survive_small_error_pages() -> None:
    with FaultServer(lambda _: answer(404, b"x" * 1000)) as server:
        async with bench() as made:
            for _ in range(3):
                assert (await made.get(server.url))[0].outcome is Outcome.HOST_GONE
    assert server.connections == 1


@pytest.mark.parametrize(
    "steps",
    [
        [answer(200, b"x", {"Connection": "close"})],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"],
        [answer(200, b"x") + b"more than was announced"],
    ],
    ids=["close", "old version", "surplus bytes"],
)
async def test_connections_that_cannot_be_kept(steps: Steps) -> None:
    with FaultServer(lambda _: steps) as server:
        async with bench() as made:
            for _ in range(3):
                end, data = await made.get(server.url)
                assert (end.outcome, data) == (Outcome.OK, b"x")
    assert server.connections == 3


class ClosesAfterFirst:
    """Answers the first request of a connection, and ends the connection at the second."""

    def __init__(self, last: Steps) -> None:
        self.seen: set[int] = set()
        self.last = last

    def __call__(self, request: SeenRequest) -> Steps:
        if request.connection in self.seen:
            return self.last
        self.seen.add(request.connection)
        return answer(200, b"x")


@pytest.mark.parametrize("last", [Close(), Reset()], ids=["closed", "reset"])
async def test_a_connection_that_dies_when_it_is_used_again(last: Steps) -> None:
    with FaultServer(ClosesAfterFirst(last)) as server:
        async with bench() as made:
            for _ in range(4):
                end, data = await made.get(server.url)
                assert (end.outcome, data) == (Outcome.OK, b"x")
    assert made.statistics.stale_connections == 3
    assert server.connections == 4


async def test_a_connection_that_was_closed_while_idle() -> None:
    with FaultServer(lambda _: [answer(200, b"x"), Close()]) as server:
        async with bench() as made:
            for _ in range(3):
                assert (await made.get(server.url))[0].outcome is Outcome.OK
                assert made.client._lean._idle
                idle = next(iter(made.client._lean._idle))
                with trio.fail_after(5):
                    await trio.lowlevel.wait_readable(idle)  # the server's goodbye has arrived
    assert made.statistics.stale_connections == 0


async def test_only_a_stale_connection_is_replaced_silently() -> None:
    with FaultServer(ClosesAfterFirst([HEAD, Close()])) as server:
        async with bench() as made:
            assert (await made.get(server.url))[0].outcome is Outcome.OK
            end, _ = await made.get(server.url)
    assert end.outcome is Outcome.HOST_SHORT


async def test_the_pool_is_bounded() -> None:
    with FaultServer(lambda _: [Pause(0.1), answer(200, b"x")]) as server:
        async with bench(idle_connections=2) as made:
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(made.get, server.url)
            assert server.connections == 6
            assert len(made.client._lean._idle) == 2


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    with FaultServer(lambda _: [answer(200, length=5), Silence()]) as server:
        async with bench() as made:
            with trio.move_on_after(0.1):
                await made.get(server.url, timeout_s=60)
            assert not made.client._lean._idle
            assert set(made.statistics.active.values()) == {0}


async def test_no_time_limit_still_ends() -> None:
    with FaultServer(lambda _: answer(200, b"x")) as server:
        async with bench(low_speed_limit_bytes_s=0) as made:
            assert (await made.get(server.url, timeout_s=0))[0].outcome is Outcome.OK


def redirects(hops: int, target: str = "/file") -> Script:
    """A server that redirects that often before it answers."""
    state = {"left": hops}

    def script(request: SeenRequest) -> Steps:
        if state["left"]:
            state["left"] -= 1
            return answer(302, b"moved", {"Location": f"{target}?hop={state['left']}"})
        return answer(200, request.target.encode())

    return script


@pytest.mark.parametrize("hops", range(5))
async def test_redirects_are_followed_when_allowed(hops: int) -> None:
    with FaultServer(redirects(hops)) as server:
        async with bench(follow_redirects=True) as made:
            end, data = await made.get(server.url)
    assert end.outcome is Outcome.OK
    assert data.decode() == ("/file?hop=0" if hops else "/file")
    assert server.connections == 1


async def test_redirect_loops_end() -> None:
    found = await outcome(redirects(1000), follow_redirects=True)
    assert found == (Outcome.HOST_CONNECTION, "more than 4 redirects")


async def test_redirects_to_another_server() -> None:
    with FaultServer({"/moved": answer(200, b"there")}) as other:
        to_other = answer(301, headers={"Location": f"{other.url}/moved"})
        with FaultServer(lambda _: to_other) as server:
            async with bench(follow_redirects=True) as made:
                end, data = await made.get(server.url)
    assert (end.outcome, data) == (Outcome.OK, b"there")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://", "http://a b/"])
async def test_redirects_to_unusable_places(location: str) -> None:
    steps = answer(302, headers={"Location": location})
    found = await outcome(lambda _: steps, follow_redirects=True)
    assert found == (Outcome.HOST_HTTP, "HTTP 302 to an unusable place")


async def test_308_is_no_redirect() -> None:
    steps = answer(308, headers={"Location": "/x"})
    assert await outcome(lambda _: steps, follow_redirects=True) == (Outcome.HOST_HTTP, "HTTP 308")


def ranged(body: bytes) -> Script:
    """A server that understands ranges."""

    def script(request: SeenRequest) -> Steps:
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"
        return answer(206, part, {"Content-Range": span})

    return script


async def test_ranges() -> None:
    with FaultServer(ranged(BODY)) as server:
        async with bench() as made:
            end, data = await made.get(server.url, span=(100, 50))
    assert (end.outcome, data) == (Outcome.OK, BODY[100:150])
    assert server.requests[0].headers["range"] == "bytes=100-149"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (answer(200, BODY), "HTTP 200 without the requested range"),
        (answer(206, b"x" * 50), "HTTP 206 without the requested range"),
        (answer(206, b"x" * 50, {"Content-Range": "bytes 0-49/100"}), "HTTP 206 without the requested range"),
        (answer(206, b"x" * 40, {"Content-Range": "bytes 100-139/140"}), "HTTP 206 without the requested range"),
        (answer(416), "HTTP 416"),
    ],
)
async def test_ranges_that_were_not_asked_for(steps: Steps, reason: str) -> None:
    with FaultServer(lambda _: steps) as server:
        async with bench() as made:
            end, _ = await made.get(server.url, span=(100, 50))
    assert end == AttemptEnd(Outcome.HOST_HTTP, reason)


async def test_a_part_instead_of_the_whole() -> None:
    steps = answer(206, b"x", {"Content-Range": "bytes 0-0/1"})
    assert await outcome(lambda _: steps) == (Outcome.HOST_HTTP, "unexpected HTTP 206")
