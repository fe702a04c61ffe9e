"""The fetcher against scripted servers: what gets into the store, what is asked how often, what fails how."""

from __future__ import annotations

import random
import zlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from cache.address import Algorithm, Kind, hash_bytes
from cache.errors import CacheFullError
from cache.memory import MemoryStore
from cache.ref import ExternalSpan, NotLocal, ObjectRef
from cvmfs_py.errors import ConfigError, FetchError, ObjectGoneError
from cvmfs_py.network.fetcher import Fetcher, open_fetcher
from cvmfs_py.network.options import NetworkConfig
from tests.simulator.fault_server import (
    Close,
    FaultServer,
    Pause,
    SeenRequest,
    Silence,
    Steps,
    answer,
    refused_port,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CONFIG = NetworkConfig(
    timeout_s=0.5,
    timeout_direct_s=0.5,
    max_retries=0,
    backoff_init_s=0.01,
    backoff_max_s=0.02,
    dns_timeout_s=1,
    dns_retries=0,
    host_aliases="",
)


class World:
    """Objects by path, and how often each path was asked for."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def add(self, content: bytes, kind: Kind = Kind.BULK, *, verbatim: bool = False) -> ObjectRef:
        stored = content if verbatim else zlib.compress(content)
        ref = ObjectRef(hash_bytes(Algorithm.SHA1, stored), kind, verbatim=verbatim, size_bytes=len(content))
        self.stored["/" + ref.server_path] = stored
        return ref

    def __call__(self, request: SeenRequest) -> Steps:
        stored = self.stored.get(request.path)
        return answer(404, b"no such object") if stored is None else answer(200, stored)

    def garbled(self, request: SeenRequest) -> Steps:
        """The same with garbage after every object."""
        stored = self.stored.get(request.path)
        return answer(404) if stored is None else answer(200, stored + b"garbage")

    def counted(self, server: FaultServer) -> dict[str, int]:
        return {path: server.paths.count(path) for path in set(server.paths)}


@asynccontextmanager
async def fetching(
    *servers: FaultServer | str, store: MemoryStore | None = None, **changes: object
) -> AsyncIterator[tuple[Fetcher, MemoryStore]]:
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    config = replace(CONFIG, server_url=urls, **changes)  # type: ignore[arg-type]
    with store or MemoryStore() as opened:
        async with open_fetcher(config, opened, random.Random(1)) as fetcher:
            yield fetcher, opened


async def content_of(fetcher: Fetcher, *refs: ObjectRef) -> list[bytes]:
    contents = []
    for pin in await fetcher.ensure(refs):
        with pin:
            contents.append(pin.read())
    return contents


def refused() -> str:
    return f"http://127.0.0.1:{refused_port()}"


async def test_objects_arrive_in_order_and_stay() -> None:
    world = World()
    contents = [b"content %d" % number * number for number in range(40)]
    refs = [world.add(content) for content in contents]
    with FaultServer(world) as server:
        async with fetching(server) as (fetcher, store):
            assert await content_of(fetcher, *refs) == contents
            assert await content_of(fetcher, *reversed(refs)) == contents[::-1]
            for ref, content in zip(refs, contents, strict=True):
                with store.open(ref) as pin:
                    assert pin.read() == content
    assert set(world.counted(server).values()) == {1}
    assert server.connections <= 16


async def test_every_kind_has_its_path() -> None:
    world = World()
    refs = [world.add(kind.name.encode(), kind) for kind in Kind]
    with FaultServer(world) as server:
        async with fetching(server) as (fetcher, _):
            assert await content_of(fetcher, *refs) == [kind.name.encode() for kind in Kind]
    assert {path[-1] for path in server.paths if not path[-1].isdigit()} >= set("PCXHM")


async def test_the_alternative_path() -> None:
    world = World()
    ref = replace(world.add(b"catalog", Kind.CATALOG), alternative_path=True)
    world.stored[f"/.cvmfsalt-{ref.content_hash}C"] = zlib.compress(b"catalog")
    with FaultServer(world) as server:
        async with fetching(server) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"catalog"]
    assert server.paths == [f"/.cvmfsalt-{ref.content_hash}C"]


async def test_a_large_object_is_worked_on_in_threads() -> None:
    world = World()
    content = random.Random(3).randbytes(5 << 20) + b"\0" * (5 << 20)
    refs = [world.add(content), world.add(content + b"1", verbatim=True)]
    with FaultServer(world) as server:
        async with fetching(server, timeout_direct_s=5) as (fetcher, _):
            assert await content_of(fetcher, *refs) == [content, content + b"1"]


async def test_what_many_want_is_fetched_once() -> None:
    world = World()
    ref = world.add(b"wanted" * 100)
    with FaultServer(lambda request: [Pause(0.1), *_steps(world(request))]) as server:
        async with fetching(server) as (fetcher, _):
            found: list[bytes] = []

            async def want() -> None:
                found.extend(await content_of(fetcher, ref, ref))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(want)
            assert found == [b"wanted" * 100] * 40
    assert len(server.requests) == 1


def _steps(steps: Steps) -> list[bytes]:
    assert isinstance(steps, bytes)
    return [steps]


async def test_an_object_that_no_server_has() -> None:
    with FaultServer(World()) as first, FaultServer(World()) as second:
        async with fetching(first, second) as (fetcher, _):
            with pytest.raises(ObjectGoneError, match="file /x does not exist on any server") as caught:
                await fetcher.ensure([replace(World().add(b"x"), label="file /x")])
    assert [attempt.reason for attempt in caught.value.attempts] == ["HTTP 404", "HTTP 404"]
    assert [attempt.host for attempt in caught.value.attempts] == [first.url, second.url]


async def test_an_object_that_only_the_second_server_has() -> None:
    world = World()
    refs = [world.add(b"%d" % number) for number in range(20)]
    with FaultServer(World()) as first, FaultServer(world) as second:
        async with fetching(first, second) as (fetcher, _):
            assert len(await content_of(fetcher, *refs)) == 20
            assert fetcher.standard.routes.hosts.current == second.url
    assert len(second.requests) == 20


async def test_corruption_is_asked_for_once_more_without_caches_and_then_elsewhere() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(world.garbled) as first, FaultServer(world) as second:
        async with fetching(first, second) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]
    assert [request.headers.get("cache-control") for request in first.requests] == [None, "no-cache"]
    assert [request.headers.get("cache-control") for request in second.requests] == [None]


async def test_corruption_that_caches_are_to_blame_for() -> None:
    world = World()
    ref = world.add(b"content")

    def caching(request: SeenRequest) -> Steps:
        return world(request) if "pragma" in request.headers else answer(200, b"<html>old</html>")

    with FaultServer(caching) as server:
        async with fetching(server) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]
    assert len(server.requests) == 2


async def test_corruption_everywhere() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(world.garbled) as first, FaultServer(world.garbled) as second:
        async with fetching(first, second) as (fetcher, store):
            with pytest.raises(FetchError) as caught:
                await fetcher.ensure([ref])
            with pytest.raises(NotLocal):
                store.open(ref)
    reasons = [attempt.reason for attempt in caught.value.attempts]
    assert reasons == ["corrupted data (hash mismatch)"] * 4
    assert not isinstance(caught.value, ObjectGoneError)


async def test_all_dead_fails_fast_and_tells_everything() -> None:
    hosts = [refused(), refused(), refused()]
    async with fetching(*hosts) as (fetcher, _):
        started = trio.current_time()
        with pytest.raises(FetchError) as caught:
            await fetcher.ensure([World().add(b"x")])
        assert trio.current_time() - started < 1
    assert [(attempt.host, attempt.reason) for attempt in caught.value.attempts] == [
        (host, "connection refused") for host in hosts
    ]
    assert "connection refused" in str(caught.value)


async def test_each_waiter_gets_an_own_error() -> None:
    ref = World().add(b"x")
    errors: list[FetchError] = []
    with FaultServer(lambda _: [Pause(0.1), Close()]) as server:
        async with fetching(server) as (fetcher, _):

            async def want() -> None:
                with pytest.raises(FetchError) as caught:
                    await fetcher.ensure([ref])
                errors.append(caught.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(want)
                nursery.start_soon(want)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])
    assert len(server.requests) == 1


async def test_the_first_failure_ends_the_waiting_but_not_the_other_downloads() -> None:
    world = World()
    slow, gone = world.add(b"slow"), World().add(b"gone")

    def script(request: SeenRequest) -> Steps:
        return [Pause(1), *_steps(world(request))] if request.path in world.stored else answer(404)

    with FaultServer(script) as server:
        async with fetching(server, timeout_direct_s=5) as (fetcher, _):
            started = trio.current_time()
            with pytest.raises(ObjectGoneError):
                await fetcher.ensure([slow, gone])
            assert trio.current_time() - started < 0.8
            assert await content_of(fetcher, slow) == [b"slow"]
    assert world.counted(server)["/" + slow.server_path] == 1


async def test_a_cancelled_caller_loses_only_its_wait() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(lambda request: [Pause(0.3), *_steps(world(request))]) as server:
        async with fetching(server) as (fetcher, _):
            with trio.move_on_after(0.05) as scope:
                await fetcher.ensure([ref])
            assert scope.cancelled_caught
            assert await content_of(fetcher, ref) == [b"content"]
    assert len(server.requests) == 1


async def test_leaving_cancels_what_is_under_way() -> None:
    with FaultServer(lambda _: Silence()) as server, trio.fail_after(5):
        async with fetching(server, timeout_direct_s=60) as (fetcher, _):
            with trio.move_on_after(0.1):
                await fetcher.ensure([World().add(b"x")])


async def test_errors_of_the_block_are_not_wrapped() -> None:
    with pytest.raises(FetchError, match="of the block"):
        async with fetching(refused()) as (_fetcher, _):
            raise FetchError("of the block")


async def test_a_full_store_is_the_store_s_error() -> None:
    world = World()
    ref = world.add(random.Random(1).randbytes(100_000))

    class FullStore(MemoryStore):
        def begin(self, ref: ObjectRef):  # type: ignore[no-untyped-def]
            raise CacheFullError("no room for it")

    with FaultServer(world) as server:
        async with fetching(server, store=FullStore()) as (fetcher, _):
            with pytest.raises(CacheFullError, match="no room for it"):
                await fetcher.ensure([ref])
            with pytest.raises(CacheFullError):
                await fetcher.ensure([ref, world.add(b"another")])


async def test_others_follow_a_request_that_found_a_dead_host() -> None:
    world = World()
    refs = [world.add(b"%d" % number) for number in range(200)]
    dead = refused()
    with FaultServer(world) as server:
        async with fetching(dead, server, parallel_connections=4) as (fetcher, _):
            assert len(await content_of(fetcher, *refs)) == 200
            # only those that were under way when the host was found dead have tried it
            assert fetcher.standard.counters.attempts <= 204


async def test_metadata_before_data_before_prefetch() -> None:
    world = World()
    catalog, data, hint = world.add(b"c", Kind.CATALOG), world.add(b"d"), world.add(b"h")
    first = world.add(b"first")
    with FaultServer(lambda request: [Pause(0.05), *_steps(world(request))]) as server:
        async with fetching(server, parallel_connections=1) as (fetcher, _):

            async def want(ref: ObjectRef, prefetch: bool = False) -> None:
                for pin in await fetcher.ensure([ref], prefetch=prefetch):
                    pin.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(want, first)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(want, hint, True)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(want, data)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(want, catalog)
    assert server.paths == ["/" + ref.server_path for ref in (first, catalog, data, hint)]


async def test_small_files() -> None:
    with FaultServer({"/r/.cvmfspublished": answer(200, b"manifest")}) as server:
        dead = refused()
        async with fetching(dead, server.url + "/r") as (fetcher, _):
            got = await fetcher.fetch_file(".cvmfspublished", 1000)
            assert (got.data, got.host, got.proxy) == (b"manifest", server.url + "/r", "DIRECT")
            await fetcher.fetch_file(".cvmfspublished", 8, no_cache=True)
            with pytest.raises(FetchError, match="larger than the 7 bytes"):
                await fetcher.fetch_file(".cvmfspublished", 7)
            with pytest.raises(FetchError, match=r"connection refused.*HTTP 404"):
                await fetcher.fetch_file(".cvmfswhitelist", 1000)
    assert "cache-control" not in server.requests[0].headers
    assert server.requests[1].headers["cache-control"] == "no-cache"


async def test_switching_hosts_on_request() -> None:
    async with fetching("http://a", "http://b", "http://c") as (fetcher, _):
        hosts = fetcher.standard.routes.hosts
        fetcher.switch_host("its manifest is not signed", "http://a")
        assert hosts.current == "http://b"
        fetcher.switch_host("its manifest is not signed", "http://a")  # left already
        assert hosts.current == "http://b"
        fetcher.switch_host("because")
        assert hosts.current == "http://c"


async def test_external_data() -> None:
    body = bytes(range(256)) * 10
    chunk = body[100:300]
    whole = ObjectRef(
        hash_bytes(Algorithm.SHA1, body), verbatim=True, size_bytes=len(body), external=ExternalSpan(b"/dir/a b")
    )
    part = ObjectRef(
        hash_bytes(Algorithm.SHA1, chunk),
        Kind.CHUNK,
        verbatim=True,
        size_bytes=200,
        external=ExternalSpan(b"/dir/a b", 100, 200),
    )

    def script(request: SeenRequest) -> Steps:
        if "range" in request.headers:
            return answer(206, chunk, {"Content-Range": f"bytes 100-299/{len(body)}"})
        return answer(200, body)

    with FaultServer(script) as server:
        async with fetching("http://unused", external_url=(server.url + "/base",)) as (fetcher, _):
            assert await content_of(fetcher, whole, part) == [body, chunk]
    assert sorted(request.headers.get("range", "") for request in server.requests) == ["", "bytes=100-299"]
    assert set(server.paths) == {"/base/dir/a%20b"}
    async with fetching("http://unused") as (fetcher, _):
        with pytest.raises(ConfigError, match="CVMFS_EXTERNAL_URL"):
            await fetcher.ensure([whole])


async def test_no_server_is_a_matter_of_configuration() -> None:
    async with fetching() as (fetcher, _):
        with pytest.raises(ConfigError, match="CVMFS_SERVER_URL"):
            await fetcher.fetch_file(".cvmfspublished", 10)


async def test_a_round_robin_name_is_a_group_of_addresses(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World()
    refs = [world.add(b"%d" % number) for number in range(10)]
    hosts = tmp_path_factory.mktemp("dns") / "hosts"
    with FaultServer(world) as proxy:
        hosts.write_text("127.0.0.1 proxy.test\n127.0.0.2 proxy.test\n::1 proxy.test\n")
        changes = {"http_proxy": f"proxy.test:{proxy.port}", "host_aliases": str(hosts)}
        async with fetching("http://stratum.invalid/", **changes) as (fetcher, _):
            assert len(await content_of(fetcher, *refs)) == 10
            members = fetcher.standard.routes.proxies.groups[0]
            assert [member.address for member in members] == ["127.0.0.1", "127.0.0.2"]
            assert {member.name for member in members} == {f"http://proxy.test:{proxy.port}"}


async def test_names_are_asked_for_again_in_the_background(tmp_path_factory: pytest.TempPathFactory) -> None:
    hosts = tmp_path_factory.mktemp("dns") / "hosts"
    with FaultServer(lambda _: answer(200, b"x")) as proxy:
        hosts.write_text("127.0.0.1 proxy.test\n")
        changes = {"http_proxy": f"proxy.test:{proxy.port}", "host_aliases": str(hosts), "dns_min_ttl_s": 0}
        async with fetching("http://stratum.invalid/", **changes) as (fetcher, _):
            groups = fetcher.standard.routes.proxies

            async def until(condition: Callable[[], bool]) -> None:
                with trio.fail_after(5):
                    while not condition():
                        await fetcher.fetch_file("x", 10)

            await fetcher.fetch_file("x", 10)
            hosts.write_text("127.0.0.1 proxy.test\n127.0.0.3 proxy.test\n")
            await until(lambda: len(groups.groups[0]) == 2)
            hosts.write_text("")  # a name that cannot be resolved any more keeps its addresses
            await until(lambda: bool(fetcher.standard.resolutions["proxy.test"].failure))
            assert len(groups.groups[0]) == 2


async def test_dead_names_do_not_spoil_a_group() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(world) as proxy:
        text = f"http://no-1.invalid:3128/path|http://no-2.invalid:3128/path|{proxy.url}"
        async with fetching("http://stratum.invalid/", http_proxy=text) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]


async def test_discovered_proxies(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("pac")
    world = World()
    ref = world.add(b"content")
    with FaultServer(world) as proxy:
        (directory / "ok.pac").write_text(
            f'function FindProxyForURL(u, h) {{ return "PROXY 127.0.0.1:{proxy.port}"; }}'
        )
        (directory / "code.pac").write_text('function FindProxyForURL(u, h) { if (h) return "DIRECT"; }')
        pac_urls = (f"file://{directory}/none.pac", f"file://{directory}/code.pac", f"file://{directory}/ok.pac")
        server = "http://stratum.invalid/"
        async with fetching(server, http_proxy="auto", pac_urls=pac_urls) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]
        async with fetching(server, http_proxy="auto", environment_http_proxy=proxy.url) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]
        async with fetching(server, http_proxy="auto", pac_urls=pac_urls[:2]) as (fetcher, _):
            with pytest.raises(ConfigError, match="no proxies were found"):
                await fetcher.ensure([ref])
        async with fetching(proxy, http_proxy="auto;DIRECT", pac_urls=pac_urls[:2]) as (fetcher, _):
            assert await content_of(fetcher, ref) == [b"content"]


async def test_geographical_order() -> None:
    def script(request: SeenRequest) -> Steps:
        return answer(200, b"3,1,2\n") if "/api/v1.0/geo/" in request.path else answer(200, b"x")

    with FaultServer(script) as server:
        port = server.port
        urls = [f"http://{name}:{port}/r" for name in ("localhost", "127.0.0.2", "127.0.0.1")]
        async with fetching(*urls, use_geoapi=True, geo_key="key", max_servers=2) as (fetcher, _):
            await fetcher.fetch_file("x", 10)
            # asked in alphabetical order: 127.0.0.1, 127.0.0.2, localhost
            assert fetcher.standard.routes.hosts.hosts == (urls[0], urls[2])
    assert "/r/api/v1.0/geo/key/127.0.0.1,127.0.0.2,localhost" in server.paths


async def test_an_unusable_geo_answer_changes_nothing() -> None:
    with FaultServer(lambda _: answer(200, b"<html>")) as server:
        urls = (server.url + "/a", server.url + "/b")
        async with fetching(*urls, use_geoapi=True) as (fetcher, _):
            await fetcher.fetch_file("x", 10)
            assert fetcher.standard.routes.hosts.hosts == urls


async def test_other_proxies_while_mounted() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(world) as server:
        async with fetching(server, http_proxy="invalid") as (fetcher, _):
            with pytest.raises(FetchError, match="proxy name not resolved"):
                await fetcher.ensure([ref])
            manager = fetcher.standard
            await manager.apply_lists(replace(manager.lists, proxies="DIRECT"))
            assert await content_of(fetcher, ref) == [b"content"]  # failures are not remembered

            with pytest.raises(ConfigError, match="no proxies were found"):
                await manager.apply_lists(replace(manager.lists, proxies="auto"))
            assert manager.lists.proxies == "DIRECT"
            await manager.apply_lists(replace(manager.lists, fallback_proxies="127.0.0.1:1;127.0.0.1:2|127.0.0.1:3"))
            urls = [[proxy.url for proxy in group] for group in manager.routes.proxies.groups]
            assert urls == [["http://127.0.0.1:1"], ["http://127.0.0.1:2", "http://127.0.0.1:3"]]
            assert manager.routes.proxies.fallback_start == 0


async def test_other_hosts_and_time_limits_while_mounted() -> None:
    world = World()
    ref = world.add(b"content")
    with FaultServer(world) as server, FaultServer(lambda _: Silence()) as silent:
        async with fetching(silent, timeout_direct_s=60) as (fetcher, _):
            manager = fetcher.standard
            manager.apply_timeouts(0.2, 0.2)
            with trio.fail_after(2), pytest.raises(FetchError, match=r"no answer in 0\.2 s"):
                await fetcher.ensure([ref])
            await manager.apply_lists(replace(manager.lists, hosts=(server.url,)))
            assert await content_of(fetcher, ref) == [b"content"]


async def test_groups_can_be_switched_by_hand() -> None:
    with FaultServer(lambda _: answer(200, b"x")) as server:
        async with fetching(server, http_proxy=f"{server.url};DIRECT") as (fetcher, _):
            assert (await fetcher.fetch_file("x", 10)).proxy == server.url
            fetcher.standard.switch_proxy_group()
            assert (await fetcher.fetch_file("x", 10)).proxy == "DIRECT"
