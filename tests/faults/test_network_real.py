"""Fetching a real repository from real servers, over a real proxy, while they die, hang, lie and crawl."""

from __future__ import annotations

import random
import re
import shutil
import zlib
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from cache.address import Kind, parse_hash
from cache.memory import MemoryStore
from cache.ref import ExternalSpan, ObjectRef
from cvmfs_py.errors import FetchError, ObjectGoneError
from cvmfs_py.network.fetcher import Fetcher, open_fetcher
from cvmfs_py.network.options import NetworkConfig
from cvmfs_py.network.probing import probe_hosts
from tests.simulator.fault_server import FaultServer, Script, Silence, answer, refused_port
from tests.simulator.squid import Squid
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.needs("nginx", "squid")

ZOO = Path(__file__).parents[1] / "data" / "zoo"
CONFIG = NetworkConfig(
    timeout_s=2,
    timeout_direct_s=0.6,
    max_retries=0,
    backoff_init_s=0.01,
    backoff_max_s=0.02,
    dns_timeout_s=1,
    dns_retries=0,
)


def objects(limit: int | None = None) -> list[ObjectRef]:
    """References to what is in the fixture's store; not to all of it where everything would be the same."""
    refs = []
    for path in sorted((ZOO / "server" / "data").glob("??/*")):
        match = re.fullmatch(r"([0-9a-f]+(?:-[a-z0-9]+)?)([PCXHM]?)", path.name)
        assert match is not None
        content_hash = parse_hash(path.parent.name + match[1])
        assert content_hash is not None
        limit_bytes = 64 << 20
        verbatim = False
        try:
            zlib.decompress(path.read_bytes())
        except zlib.error:
            verbatim = True
        refs.append(ObjectRef(content_hash, Kind(match[2]), verbatim=verbatim, limit_bytes=limit_bytes))
    assert len(refs) > 100
    return refs[:limit]


@pytest.fixture(scope="module")
def web() -> Iterator[Nginx]:
    with Nginx(ZOO / "server") as server:
        yield server


@pytest.fixture(scope="module")
def proxy() -> Iterator[Squid]:
    with Squid() as server:
        yield server


@asynccontextmanager
async def fetching(*hosts: str, **changes: object) -> AsyncIterator[Fetcher]:
    config = replace(CONFIG, server_url=hosts, **changes)  # type: ignore[arg-type]
    with MemoryStore() as store:
        async with open_fetcher(config, store, random.Random(1)) as fetcher:
            yield fetcher


async def fetch_all(fetcher: Fetcher, refs: list[ObjectRef]) -> None:
    pins = await fetcher.ensure(refs)
    assert [pin.content_hash for pin in pins] == [ref.content_hash for ref in refs]
    for pin in pins:
        pin.close()


def refused() -> str:
    return f"http://127.0.0.1:{refused_port()}"


async def test_the_whole_repository(web: Nginx) -> None:
    refs = objects()
    async with fetching(web.url) as fetcher:
        await fetch_all(fetcher, refs)
        manifest = await fetcher.fetch_file(".cvmfspublished", 1 << 20)
        assert manifest.data == (ZOO / "server" / ".cvmfspublished").read_bytes()
        assert fetcher.standard.counters.attempts == len(refs) + 1
        assert fetcher.standard.transfers.connections_opened <= 16


async def test_the_whole_repository_over_a_proxy(web: Nginx, proxy: Squid) -> None:
    refs = objects()
    async with fetching(web.url, http_proxy=proxy.url) as fetcher:
        await fetch_all(fetcher, refs)
        assert fetcher.standard.counters.attempts == len(refs)
    asked = len(web.log)
    async with fetching(web.url, http_proxy=proxy.url) as fetcher:
        await fetch_all(fetcher, refs[:50])
    assert len(web.log) == asked  # the second time the proxy had it


async def test_the_whole_repository_from_files() -> None:
    async with fetching(f"file://{ZOO / 'server'}") as fetcher:
        await fetch_all(fetcher, objects())
        with pytest.raises(ObjectGoneError) as caught:
            await fetcher.fetch_file("no-such-file", 10)
    assert caught.value.attempts[0].reason == "no such file"


async def test_external_files_and_ranges_of_them() -> None:
    content = (ZOO / "external" / "external" / "random-200k").read_bytes()
    import hashlib

    from cache.address import Algorithm, ContentHash

    def ref_of(offset: int, length: int | None) -> ObjectRef:
        part = content[offset : None if length is None else offset + length]
        content_hash = ContentHash(Algorithm.SHA1, hashlib.sha1(part).digest())
        span = ExternalSpan(b"/external/random-200k", offset, length)
        return ObjectRef(content_hash, verbatim=True, size_bytes=len(part), external=span)

    refs = [ref_of(0, None), ref_of(0, 1000), ref_of(150_000, len(content) - 150_000)]
    with Nginx(ZOO / "external") as server:
        for url in (server.url, f"file://{ZOO / 'external'}"):
            async with fetching("http://unused", external_url=(url,)) as fetcher:
                await fetch_all(fetcher, refs)
        assert sorted(line.split()[0] for line in server.log) == ["200", "206", "206"]


FIRST_HOSTS: dict[str, Script | None] = {
    "dead": None,
    "silent": lambda _: Silence(),
    "missing everything": lambda _: answer(404, b"not found"),
    "bad request": lambda _: answer(400),
    "broken": lambda _: answer(500, b"oops"),
    "overloaded": lambda _: answer(429),
    "a login page": lambda _: answer(200, b"<html>log in first</html>"),
    "re-encoding": lambda _: answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
    "redirecting": lambda _: answer(302, headers={"Location": "/elsewhere"}),
    "not HTTP": lambda _: b"220 mail.example ESMTP\r\n" * 10,
}


@pytest.mark.parametrize("what", FIRST_HOSTS)
async def test_the_first_host_is(what: str, web: Nginx) -> None:
    refs = objects(limit=40)
    script = FIRST_HOSTS[what]
    with trio.fail_after(5):
        if script is None:
            async with fetching(refused(), web.url) as fetcher:
                await fetch_all(fetcher, refs)
            return
        with FaultServer(script) as first:
            async with fetching(first.url, web.url) as fetcher:
                await fetch_all(fetcher, refs)
                assert fetcher.standard.routes.hosts.current == web.url
                assert fetcher.standard.routes.hosts.failovers == 1
            assert len(first.requests) <= 3 * 16  # those under way, their repetitions, and who slipped in between


CORRUPTING = ("a login page", "re-encoding")


@pytest.mark.parametrize("what", [what for what in FIRST_HOSTS if what not in ("dead", *CORRUPTING)])
async def test_the_first_proxy_is(what: str, web: Nginx, proxy: Squid) -> None:
    refs = objects(limit=20)
    script = FIRST_HOSTS[what]
    assert script is not None
    with trio.fail_after(5), FaultServer(script) as first:
        async with fetching(web.url, web.url + "/.", http_proxy=f"{first.url};{proxy.url}", timeout_s=0.4) as fetcher:
            # answers that might be the host's own are blamed on it, so that these end with an error
            if what in ("missing everything", "bad request", "broken", "overloaded", "redirecting"):
                with pytest.raises(FetchError):
                    await fetch_all(fetcher, refs)
            else:
                await fetch_all(fetcher, refs)
                assert fetcher.standard.routes.proxies.index == 1


@pytest.mark.parametrize(
    ("what", "reason"), [("a login page", "neither zlib nor zstd"), ("re-encoding", "re-encoded by")]
)
async def test_a_corrupting_proxy(what: str, reason: str, web: Nginx) -> None:
    """What a proxy corrupts is blamed on the host; the error says exactly what came."""
    with FaultServer(FIRST_HOSTS[what] or {}) as first:
        async with fetching(web.url, http_proxy=first.url) as fetcher:
            with pytest.raises(FetchError, match=reason):
                await fetch_all(fetcher, objects(limit=1))
    assert len(first.requests) == 2


async def test_dead_proxies_then_a_living_one(web: Nginx, proxy: Squid) -> None:
    text = f"{refused()}|{refused()};{refused()};{proxy.url}"
    async with fetching(web.url, http_proxy=text) as fetcher:
        await fetch_all(fetcher, objects(limit=40))
        assert fetcher.standard.routes.proxies.index == 2


async def test_dead_proxies_then_none(web: Nginx) -> None:
    async with fetching(web.url, http_proxy=f"{refused()};DIRECT") as fetcher:
        await fetch_all(fetcher, objects(limit=20))


async def test_a_fallback_proxy(web: Nginx, proxy: Squid) -> None:
    async with fetching(web.url, http_proxy=refused(), fallback_proxy=proxy.url) as fetcher:
        await fetch_all(fetcher, objects(limit=20))
        assert fetcher.standard.routes.proxies.index == fetcher.standard.routes.proxies.fallback_start == 1


async def test_a_proxy_that_forbids(web: Nginx, proxy: Squid) -> None:
    with Squid(deny=True) as forbidding:
        async with fetching(web.url, http_proxy=f"{forbidding.url};{proxy.url}") as fetcher:
            await fetch_all(fetcher, objects(limit=20))
            assert fetcher.standard.routes.proxies.index == 1
        async with fetching(web.url, http_proxy=forbidding.url) as fetcher:
            with pytest.raises(FetchError, match=r"HTTP 403 \(ERR_ACCESS_DENIED"):
                await fetch_all(fetcher, objects(limit=1))


async def test_a_host_that_is_dead_behind_a_proxy(web: Nginx, proxy: Squid) -> None:
    async with fetching(refused(), web.url, http_proxy=proxy.url) as fetcher:
        await fetch_all(fetcher, objects(limit=20))
        assert fetcher.standard.routes.hosts.current == web.url
    async with fetching(refused(), http_proxy=proxy.url) as fetcher:
        with pytest.raises(FetchError, match=r"HTTP 503 \(ERR_CONNECT_FAIL"):
            await fetch_all(fetcher, objects(limit=1))


async def test_an_object_that_is_gone_behind_a_proxy(web: Nginx, proxy: Squid) -> None:
    ref = replace(objects(limit=1)[0], kind=Kind.HISTORY)  # the same hash under a name that does not exist
    async with fetching(web.url, web.url + "/.", http_proxy=proxy.url) as fetcher:
        with pytest.raises(ObjectGoneError):
            await fetch_all(fetcher, [ref])


async def test_sharded_proxies(web: Nginx, proxy: Squid) -> None:
    with Squid() as other:
        async with fetching(web.url, http_proxy=f"{proxy.url}|{other.url}", proxy_shard=True) as fetcher:
            await fetch_all(fetcher, objects(limit=60))
            other.kill()
            await fetch_all(fetcher, objects(limit=120))


async def test_a_server_that_dies_in_the_middle(web: Nginx) -> None:
    refs = sorted(objects(), key=lambda ref: (ZOO / "server" / ref.server_path).stat().st_size)
    with Nginx(ZOO / "server", limit_rate_bytes_s=20_000) as dying:
        async with fetching(dying.url, web.url, timeout_direct_s=2) as fetcher, trio.open_nursery() as nursery:
            nursery.start_soon(fetch_all, fetcher, refs)
            await fetch_all(fetcher, refs[:5])  # the others are under way, and slow
            dying.kill()
        assert fetcher.standard.routes.hosts.current == web.url


async def test_a_proxy_that_dies_in_the_middle(web: Nginx, proxy: Squid) -> None:
    refs = objects()
    with Squid() as dying:
        async with fetching(web.url, http_proxy=f"{dying.url};{proxy.url}") as fetcher:
            await fetch_all(fetcher, refs[:30])
            dying.kill()
            await fetch_all(fetcher, refs)
            assert fetcher.standard.routes.proxies.index == 1


async def test_everything_dies_and_comes_back() -> None:
    refs = objects(limit=30)
    with Nginx(ZOO / "server") as server:
        port = server.port
        async with fetching(server.url) as fetcher:
            await fetch_all(fetcher, refs[:10])
            server.kill()
            started = trio.current_time()
            with pytest.raises(FetchError, match="connection refused"):
                await fetch_all(fetcher, refs[10:11])
            assert trio.current_time() - started < 1
            with Nginx(ZOO / "server", port=port):
                await fetch_all(fetcher, refs)


async def test_a_crawling_host(web: Nginx) -> None:
    big = max(objects(), key=lambda ref: (ZOO / "server" / ref.server_path).stat().st_size)
    with Nginx(ZOO / "server", limit_rate_bytes_s=50_000) as crawling:
        limits = {"low_speed_limit_bytes_s": 500_000, "timeout_direct_s": 1}
        async with fetching(crawling.url, web.url, **limits) as fetcher:
            await fetch_all(fetcher, [big])
            assert fetcher.standard.routes.hosts.current == web.url
        async with fetching(crawling.url, **limits) as fetcher:
            with pytest.raises(FetchError, match="slower than 500000 B/s for 1 s"):
                await fetch_all(fetcher, [big])


async def test_missing_and_corrupt_objects_on_the_first_host(web: Nginx, tmp_path: Path) -> None:
    refs = objects(limit=90)
    shutil.copytree(ZOO / "server", tmp_path / "server")
    for number, ref in enumerate(refs):
        path = tmp_path / "server" / ref.server_path
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(path.read_bytes() + b"garbage")
    with Nginx(tmp_path / "server") as damaged:
        async with fetching(damaged.url, web.url, host_reset_after_s=0.01) as fetcher:
            await fetch_all(fetcher, refs)


async def test_probing_hosts(web: Nginx) -> None:
    dead = refused()
    with FaultServer(lambda _: Silence()) as silent:
        async with fetching(dead, silent.url, web.url) as fetcher:
            ranked = await probe_hosts(fetcher.standard)
            assert [host for host, _ in ranked] == [web.url, dead, silent.url]
            assert [time_s is None for _, time_s in ranked] == [False, True, True]
            assert fetcher.standard.routes.hosts.current == web.url


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem", directory / "key.pem"


async def test_tls(certificate: tuple[Path, Path], proxy: Squid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", refused())  # the environment's proxies do not count
    refs = objects(limit=30)
    with Nginx(ZOO / "server", tls=certificate) as server:
        bundle = str(certificate[0])
        for changes in ({}, {"http_proxy": proxy.url}):
            async with fetching(server.url, x509_cert_bundle=bundle, **changes) as fetcher:
                await fetch_all(fetcher, refs)
                with pytest.raises(ObjectGoneError):
                    await fetcher.fetch_file("no-such-file", 10)
        async with fetching(server.url) as fetcher:
            with pytest.raises(FetchError, match=r"TLS failure.*certificate"):
                await fetch_all(fetcher, refs[:1])
        dead_proxy = refused()
        async with fetching(server.url, x509_cert_bundle=bundle, http_proxy=dead_proxy) as fetcher:
            with pytest.raises(FetchError, match=f"via {dead_proxy}: connection refused"):
                await fetch_all(fetcher, refs[:1])
    async with fetching(server.url, x509_cert_bundle=bundle) as fetcher:
        with pytest.raises(FetchError, match="connection refused"):
            await fetch_all(fetcher, refs[:1])


async def test_tls_with_someone_who_does_not_speak_it(certificate: tuple[Path, Path]) -> None:
    for script in (lambda _: Silence(), lambda _: answer(200, b"x")):
        with FaultServer(script) as server:
            url = server.url.replace("http:", "https:")
            async with fetching(url, x509_cert_bundle=str(certificate[0])) as fetcher:
                with trio.fail_after(5), pytest.raises(FetchError):
                    await fetch_all(fetcher, objects(limit=1))
