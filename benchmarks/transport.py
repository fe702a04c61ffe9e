"""The CPU time of one HTTP request: the lean transport, httpx, and everything that belongs to fetching an object."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from benchmarks import trees
from benchmarks.serving import DelayedServer
from benchmarks.table import Row
from cache.address import Kind, object_path, parse_hash
from cache.directory import DirectoryStore
from cache.memory import MemoryStore
from cache.ref import ObjectRef
from cvmfs_py.network.fetcher import open_fetcher
from cvmfs_py.network.headers import standing_fields
from cvmfs_py.network.lean import LeanTransport
from cvmfs_py.network.options import NetworkConfig
from cvmfs_py.network.proxy_list import DIRECT
from cvmfs_py.network.tls import TlsTransport
from cvmfs_py.network.transport import Request, TransportStatistics
from cvmfs_py.network.urls import parse_base, url_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.workbench import Workbench
    from cache.store import Store
    from cvmfs_py.network.transport import Transport
    from tests.simulator.repository import Repository

TITLE = "CPU time of one request (this process only; the server has its own)"
REQUESTS = 2_000
SMALL_LIMIT_BYTES = 64 << 10
MEMORY_BYTES = 256 << 20


def run(bench: Workbench) -> list[Row]:
    repository = bench.repository("transport", lambda: trees.small_files(REQUESTS))
    refs = _refs(repository)
    with DelayedServer(repository) as server:
        config = NetworkConfig(server_url=(server.url,))
        lean_us, httpx_us, memory_us, disk_us = [], [], [], []
        for _ in range(bench.repeat):
            lean_us.append(trio.run(_per_request_s, LeanTransport(TransportStatistics()), config, refs))
            httpx_us.append(trio.run(_per_request_s, TlsTransport(config, TransportStatistics()), config, refs))
            with MemoryStore(MEMORY_BYTES) as memory:
                memory_us.append(trio.run(_per_object_s, memory, config, refs))
            with DirectoryStore(str(bench.fresh("cache"))) as disk:
                disk_us.append(trio.run(_per_object_s, disk, config, refs))
    lean = min(lean_us)
    beside = "best / best of the lean transport"
    return [
        _row("lean transport", lean_us, beside, lean),
        _row("httpx, over the same interface", httpx_us, beside, lean),
        _row("fetched, hashed, inflated, committed; in memory", memory_us, beside, lean),
        _row("the same, into a cache directory", disk_us, beside, lean),
    ]


def _row(name: str, samples_s: list[float], beside: str, limit_s: float) -> Row:
    return Row(
        name, sorted(samples_s)[len(samples_s) // 2], "s", beside, min(samples_s) / limit_s, "", tuple(samples_s)
    )


async def _per_request_s(transport: Transport, config: NetworkConfig, refs: list[ObjectRef]) -> float:
    """One after the other over one connection."""
    base = parse_base(config.server_url[0])
    assert base is not None
    fields = standing_fields(config)

    async def get(ref: ObjectRef) -> None:
        path = object_path(ref.content_hash, ref.kind).encode()
        response = await transport.open(Request(url_of(base, path), DIRECT, fields, 10, 1024))
        while await response.receive():
            pass
        await response.close()

    try:
        await get(refs[0])  # connects, and imports what is imported late
        return await _cpu_s_each(get, refs)
    finally:
        await transport.close()


async def _per_object_s(store: Store, config: NetworkConfig, refs: list[ObjectRef]) -> float:
    async with open_fetcher(config, store) as fetcher:

        async def fetch(ref: ObjectRef) -> None:
            for pin in await fetcher.ensure((ref,)):
                pin.close()

        await fetch(refs[0])
        return await _cpu_s_each(fetch, refs[1:])


async def _cpu_s_each(work: Callable[[ObjectRef], Awaitable[None]], refs: list[ObjectRef]) -> float:
    start = time.process_time()
    for ref in refs:
        await work(ref)
    return (time.process_time() - start) / len(refs)


def _refs(repository: Repository) -> list[ObjectRef]:
    found = []
    for path in sorted((repository.server_root / "data").glob("??/*")):
        content_hash = parse_hash(path.parent.name + path.name)
        if content_hash is not None:
            found.append(ObjectRef(content_hash, Kind.BULK, limit_bytes=SMALL_LIMIT_BYTES))
    return found
