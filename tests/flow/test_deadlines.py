"""Requests with a deadline: they end in time, whatever servers do, and leave time for those that answer."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from cache.memory import MemoryStore
from cvmfs_py.errors import FetchError
from cvmfs_py.network.fetcher import Fetcher, open_fetcher
from cvmfs_py.network.options import NetworkConfig
from tests.simulator.fault_server import Drip, FaultServer, Silence, answer, refused_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def fetching(*hosts: str, http_proxy: str = "DIRECT", use_geoapi: bool = False) -> AsyncIterator[Fetcher]:
    """With time limits that nobody would wait for."""
    config = NetworkConfig(
        server_url=hosts,
        http_proxy=http_proxy,
        timeout_s=1000,
        timeout_direct_s=1000,
        max_retries=100,
        backoff_init_s=1000,
        backoff_max_s=1000,
        failover_indefinitely=True,
        use_geoapi=use_geoapi,
        host_aliases="",
    )
    with MemoryStore() as store:
        async with open_fetcher(config, store, random.Random(1)) as fetcher:
            yield fetcher


@pytest.mark.parametrize("use_geoapi", [False, True])
async def test_silent_hosts_do_not_hide_one_that_answers(use_geoapi: bool) -> None:
    with FaultServer(lambda _: Silence()) as silent, FaultServer(lambda _: answer(200, b"here")) as good:
        hosts = (silent.url, f"{silent.url}/2", f"http://127.0.0.1:{refused_port()}", good.url)
        async with fetching(*hosts, use_geoapi=use_geoapi) as fetcher:
            with trio.fail_after(5):
                got = await fetcher.fetch_file("x", 10, deadline=trio.current_time() + 2)
            assert (got.data, got.host) == (b"here", good.url)


async def test_the_deadline_is_kept_and_every_attempt_is_told() -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    with FaultServer(lambda _: Silence()) as silent:
        async with fetching(dead, silent.url, f"{silent.url}/2") as fetcher:
            started = trio.current_time()
            with trio.fail_after(5), pytest.raises(FetchError) as caught:
                await fetcher.fetch_file("x", 10, deadline=started + 0.6)
            assert trio.current_time() - started < 2
            reasons = {attempt.host: attempt.reason for attempt in caught.value.attempts}
            assert reasons[dead] == "connection refused"
            assert "no answer" in reasons[silent.url]
            assert len(silent.requests) <= 2


async def test_nothing_is_repeated_or_waited_for() -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    async with fetching(dead, http_proxy=f"{dead};DIRECT") as fetcher:
        with trio.fail_after(2), pytest.raises(FetchError) as caught:
            await fetcher.fetch_file("x", 10, deadline=trio.current_time() + 100)
        assert [attempt.proxy for attempt in caught.value.attempts] == [dead, "DIRECT"]
        assert fetcher.standard.counters.retries == 0


async def test_a_deadline_that_is_over() -> None:
    with FaultServer(lambda _: Silence()) as silent:
        async with fetching(silent.url) as fetcher:
            with trio.fail_after(2), pytest.raises(FetchError, match="in time"):
                await fetcher.fetch_file("x", 10, deadline=trio.current_time() - 1)


async def test_a_document_that_never_gets_complete() -> None:
    """It comes faster than the limit, a few bytes at a time, and goes on and on."""
    dripping = Drip(answer(200, bytes(5000)), 10, 0.02)
    with FaultServer(lambda _: dripping) as slow, FaultServer(lambda _: answer(200, b"here")) as good:
        config = NetworkConfig(
            server_url=(slow.url, good.url), timeout_direct_s=0.2, low_speed_limit_bytes_s=20, max_retries=0
        )
        with MemoryStore() as store, trio.fail_after(5):
            async with open_fetcher(config, store, random.Random(1)) as fetcher:
                got = await fetcher.fetch_file("x", 10_000)
                assert (got.data, got.host) == (b"here", good.url)
            alone = replace(config, server_url=(slow.url,))
            async with open_fetcher(alone, store, random.Random(1)) as fetcher:
                with pytest.raises(FetchError, match=r"not complete in 1\.2 s"):
                    await fetcher.fetch_file("x", 10_000)
