"""The web server for repositories: real sockets, and our own client behind it."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.errors import UsageError
from cvmfs_py.mount.assemble import Wanted, open_repository
from cvmfs_py.serving.faults import Fault, Faults, parse_fault
from cvmfs_py.serving.requests import RequestError, parse_range, split_request
from cvmfs_py.serving.server import IDLE_S, LogLine, Server
from cvmfs_py.serving.sites import Site, Sites

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ZOO = Path(__file__).parent.parent / "data" / "zoo"
BASE = "/cvmfs/zoo.test.org"
OBJECT = max(sorted((ZOO / "server" / "data").glob("*/*")), key=lambda path: path.stat().st_size)
OBJECT_PATH = f"{BASE}/data/{OBJECT.parent.name}/{OBJECT.name}"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Running:
    port: int
    log: list[LogLine]

    async def talk(self, data: bytes) -> bytes:
        """What the server sends until it closes the connection."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            await stream.send_all(data)
            received = b""
            with trio.fail_after(10):
                async for part in stream:
                    received += part
        return received

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        head, _, body = (await self.talk(("\r\n".join(lines) + "\r\n\r\n").encode())).partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body)


@asynccontextmanager
async def served(faults: Faults | None = None, idle_s: float = IDLE_S) -> AsyncIterator[Running]:
    log: list[LogLine] = []
    server = Server(Sites((Site("zoo.test.org", ZOO / "server"),)), log.append, faults or Faults(), idle_s)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(server.run, "127.0.0.1", 0)
        yield Running(listeners[0].socket.getsockname()[1], log)
        nursery.cancel_scope.cancel()


async def test_headers_tell_what_may_be_kept_and_for_how_long() -> None:
    async with served() as running:
        manifest = await running.ask(f"{BASE}/.cvmfspublished")
        assert manifest.body == (ZOO / "server" / ".cvmfspublished").read_bytes()
        assert manifest.headers["cache-control"] == "max-age=61"
        assert manifest.headers["content-type"] == "application/x-cvmfs"
        data = await running.ask(OBJECT_PATH)
        assert data.body == OBJECT.read_bytes()
        assert data.headers["cache-control"] == "max-age=259200"
        assert data.headers["content-type"] == "application/octet-stream"
        information = await running.ask("/cvmfs/info/v1/repositories.json")
        assert information.headers["content-type"] == "application/json"
        assert b"zoo.test.org" in information.body


async def test_conditional_requests_and_head() -> None:
    async with served() as running:
        first = await running.ask(OBJECT_PATH)
        known = await running.ask(OBJECT_PATH, f"If-None-Match: {first.headers['etag']}")
        assert (known.status, known.body) == (304, b"")
        since = await running.ask(OBJECT_PATH, f"If-Modified-Since: {first.headers['last-modified']}")
        assert since.status == 304
        other = await running.ask(OBJECT_PATH, 'If-None-Match: "another"')
        assert (other.status, other.body) == (200, first.body)
        head = await running.ask(OBJECT_PATH, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(first.body))


@pytest.mark.parametrize(
    ("text", "first", "last"), [("bytes=0-9", 0, 9), ("bytes=100-", 100, None), ("bytes=-7", -7, None)]
)
async def test_ranges(text: str, first: int, last: int | None) -> None:
    content = OBJECT.read_bytes()
    async with served() as running:
        answer = await running.ask(OBJECT_PATH, f"Range: {text}")
        assert answer.status == 206
        assert answer.body == content[first : None if last is None else last + 1]
        assert answer.headers["content-range"].endswith(f"/{len(content)}")
        outside = await running.ask(OBJECT_PATH, f"Range: bytes={len(content)}-")
        assert outside.status == 416
        several = await running.ask(OBJECT_PATH, "Range: bytes=0-1,5-6")
        assert (several.status, len(several.body)) == (200, len(content))


@pytest.mark.parametrize(
    "path",
    [
        "/cvmfs/zoo.test.org/../zoo.test.org.pub",
        "/cvmfs/zoo.test.org/data/../../zoo.test.org.pub",
        "/cvmfs/zoo.test.org/%2e%2e/zoo.test.org.pub",
        "/cvmfs/zoo.test.org/data/txn/x",
        "/cvmfs/zoo.test.org/data/00",
        "/cvmfs/zoo.test.org/",
        "/cvmfs/zoo.test.org",
        "/cvmfs/other.test.org/.cvmfspublished",
        "//etc/passwd",
        "/etc/passwd",
        "/cvmfs/zoo.test.org/.cvmfspublished%00",
        "/cvmfs/zoo.test.org/.htpasswd",
    ],
)
async def test_nothing_but_repository_files_is_served(path: str) -> None:
    async with served() as running:
        assert (await running.ask(path)).status == 404


async def test_an_alternative_name_may_be_a_link_to_an_object_but_not_out_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "data" / "ab").mkdir(parents=True)
    name = "cd" * 19
    (tmp_path / "data" / "ab" / f"{name}C").write_bytes(b"object")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / f".cvmfsalt-ab{name}C").symlink_to(f"data/ab/{name}C")
    (tmp_path / f".cvmfsalt-ac{name}C").symlink_to(tmp_path / "secret")
    sites = Sites((Site("a.b", tmp_path),))
    found = sites.find(f"/cvmfs/a.b/.cvmfsalt-ab{name}C".encode())
    assert found is not None
    assert found.size_bytes == 6
    found.close()
    assert sites.find(f"/cvmfs/a.b/.cvmfsalt-ac{name}C".encode()) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST /cvmfs/zoo.test.org/.cvmfspublished HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /" + b"x" * 20_000, 431),
    ],
)
async def test_hostile_requests_are_refused_and_the_server_goes_on(data: bytes, status: int) -> None:
    async with served() as running:
        assert (await running.talk(data)).startswith(f"HTTP/1.1 {status} ".encode())
        assert (await running.ask(f"{BASE}/.cvmfspublished")).status == 200


async def test_refusals_tell_what_would_be_right() -> None:
    async with served() as running:
        assert (await running.ask(OBJECT_PATH, method="DELETE")).headers["allow"] == "get, head"
        answer = await running.ask(OBJECT_PATH, "Range: bytes=999999999-")
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{OBJECT.stat().st_size}")


async def test_a_request_that_comes_byte_by_byte_does_not_last_for_ever() -> None:
    async with served(idle_s=0.5) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"G")
                    with trio.move_on_after(0.1):
                        assert await stream.receive_some(1) == b""
                        break
        assert running.log == []


async def test_one_connection_serves_many_requests_also_pipelined() -> None:
    request = f"GET {BASE}/.cvmfspublished HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = request.replace(b"Host: x", b"Connection: close")
    async with served() as running:
        received = await running.talk(request * 9 + last)
        assert received.count(b"HTTP/1.1 200 OK") == 10
        assert len(running.log) == 10


async def test_a_client_that_disappears_ends_only_its_own_connection() -> None:
    async with served() as running:
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            await stream.send_all(f"GET {OBJECT_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 20)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset on close
            await stream.aclose()
        assert (await running.ask(OBJECT_PATH)).body == OBJECT.read_bytes()


async def test_faults_strike_as_often_as_asked() -> None:
    async with served(Faults(rates={Fault.NOT_FOUND: 1.0})) as running:
        assert (await running.ask(OBJECT_PATH)).status == 404
    async with served(Faults(rates={Fault.SERVER_ERROR: 1.0})) as running:
        assert (await running.ask(OBJECT_PATH)).status == 500
    async with served(Faults(rates={Fault.GARBAGE: 1.0})) as running:
        answer = await running.ask(OBJECT_PATH)
        assert len(answer.body) == OBJECT.stat().st_size
        assert answer.body != OBJECT.read_bytes()
    async with served(Faults(rates={Fault.TRUNCATED: 1.0})) as running:
        answer = await running.ask(OBJECT_PATH)
        assert answer.body == OBJECT.read_bytes()[: OBJECT.stat().st_size // 2]
    assert Faults().strike() is None


@pytest.mark.parametrize("text", ["404", "404=2", "nonsense=0.5", "404=x", "404=-1"])
def test_wrong_faults_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault(text)


async def test_our_own_client_reads_a_whole_repository(tmp_path: Path) -> None:
    async with served() as running:
        wanted = Wanted(
            "zoo.test.org",
            {
                "CVMFS_SERVER_URL": f"http://127.0.0.1:{running.port}/cvmfs/zoo.test.org",
                "CVMFS_PUBLIC_KEY": str(ZOO / "zoo.test.org.pub"),
                "CVMFS_PY_CACHE_DIR": str(tmp_path / "cache"),
            },
        )
        async with open_repository(wanted) as repository:
            located = await repository.resolve(b"/hello.txt")
            names = [path async for path in repository.walk(b"")]
        assert located.entry.size == 13
        assert len(names) == 99


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with suppress(RequestError):
        split_request(data + b"\r\n\r\n")


@given(st.text(max_size=30), st.integers(0, 100))
def test_any_range_is_inside_of_the_file(text: str, size_bytes: int) -> None:
    try:
        found = parse_range(f"bytes={text}", size_bytes)
    except RequestError:
        return
    if found is not None:
        first, length = found
        assert 0 <= first < size_bytes
        assert 0 < length <= size_bytes - first
