"""Copying many small files out of a repository: how near to what the connections in flight allow."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.processes import cvmfs_py, program
from benchmarks.serving import DelayedServer
from benchmarks.table import Row, timed
from cache.address import Kind, object_path, parse_hash
from cvmfs_py.network.options import NetworkConfig

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.processes import Cost
    from benchmarks.workbench import Workbench
    from tests.simulator.repository import Repository

TITLE = "copying small files: cvmfs-py cp -r"
FILES = 5_000
DELAYS_MS = (0, 10)
CONNECTIONS = NetworkConfig().parallel_connections


def run(bench: Workbench) -> list[Row]:
    repository = bench.repository("copying", lambda: trees.small_files(FILES))
    rows = _measure(bench, repository, f"{FILES:,} files")
    if bench.tree is not None:
        repository = bench.repository("tree-to-copy", lambda: trees.local_tree(str(bench.tree)))
        rows += _measure(bench, repository, str(bench.tree))
    return rows


def _measure(bench: Workbench, repository: Repository, name: str) -> list[Row]:
    rows = []
    paths = "\n".join(_object_paths(repository))
    for delay_ms in DELAYS_MS:
        plain_s: list[float] = []
        cold: list[Cost] = []
        warm: list[Cost] = []
        local_s: list[float] = []
        with DelayedServer(repository, delay_ms) as server:
            _plain(bench, server, paths)  # the server has everything in memory from here on
            for _ in range(bench.repeat):
                plain_s.append(_plain(bench, server, paths)["wall_s"])
                server.served()
                cache, copy = bench.fresh("cache"), bench.fresh("copy")
                cold.append(_copy(bench, server, cache, copy))
                served = server.served()
                warm.append(_copy(bench, server, cache, bench.fresh("copy")))
                local_s += _copy_locally(bench, copy)
        in_flight = f"{CONNECTIONS} in flight"
        count = paths.count("\n") + 1
        rows.append(
            timed(
                f"{delay_ms} ms: the simplest client, {in_flight}",
                plain_s,
                note=f"fetches {count:,} objects and throws them away: the server's own limit",
            )
        )
        if delay_ms:
            bound_s = served.requests / CONNECTIONS * delay_ms / 1000
            beside = f"bound {bound_s:.2f} s = {served.requests:,} requests / {in_flight} x {delay_ms} ms; target 2x"
        else:
            bound_s = median(plain_s) + (median(local_s) if local_s else 0)
            beside = f"bound {bound_s:.2f} s = the simplest client + local cp -r"
        cpu_us = median([cost.cpu_s for cost in cold]) / count * 1e6
        user_us = median([cost.user_s for cost in cold]) / count * 1e6
        rows.append(
            timed(
                f"{delay_ms} ms: {name}, cold cache",
                [cost.wall_s for cost in cold],
                beside=beside,
                limit_s=bound_s,
                note=f"{served.requests:,} requests, {served.body_bytes:,} bytes, {served.connections} connections,"
                f" {served.most_in_flight} in flight at most; CPU per file {cpu_us:.0f} us, {user_us:.0f} of it ours",
            )
        )
        rows.append(
            timed(
                f"{delay_ms} ms: {name}, warm cache",
                [cost.wall_s for cost in warm],
                beside="local cp -r" if local_s else "",
                limit_s=median(local_s) if local_s else None,
                note=f"CPU per file {median([cost.cpu_s for cost in warm]) / count * 1e6:.0f} us",
            )
        )
        if local_s:
            rows.append(timed(f"{delay_ms} ms: local cp -r of the copy", local_s))
    return rows


def _copy(bench: Workbench, server: DelayedServer, cache: Path, destination: Path) -> Cost:
    return bench.programs.measure(
        cvmfs_py("cp", "-q", "-r", f"{server.url}:/", str(destination), *server.options(cache))
    )


def _copy_locally(bench: Workbench, source: Path) -> list[float]:
    copying = program("cp")
    if copying is None:
        return []
    return [bench.programs.measure([copying, "-r", str(source), str(bench.fresh("local"))]).wall_s]


def _plain(bench: Workbench, server: DelayedServer, paths: str) -> dict[str, float]:
    answer = bench.programs.run_module("benchmarks.plain_client", str(server.port), str(CONNECTIONS), given=paths)
    result: dict[str, float] = json.loads(answer)
    return result


def _object_paths(repository: Repository) -> list[str]:
    """The URLs of everything that is no metadata."""
    found = []
    for path in sorted((repository.server_root / "data").glob("??/*")):
        content_hash = parse_hash(path.parent.name + path.name)
        if content_hash is not None:
            found.append(f"/cvmfs/{repository.fqrn}/{object_path(content_hash, Kind.BULK)}")
    return found
