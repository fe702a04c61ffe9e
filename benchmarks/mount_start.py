"""Mounting and starting a program: from nothing, and from our cache; at servers that answer at once or late."""

from __future__ import annotations

import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.mounted import Mounted, drop_caches
from benchmarks.processes import cvmfs_py, program
from benchmarks.serving import DelayedServer
from benchmarks.table import Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.installations import Installations
    from benchmarks.mounted import Work
    from benchmarks.workbench import Workbench

DELAYS_MS = (0, 10)
PROGRAM = "import asyncio, email.message, http.client, json, unittest, xml.dom.minidom"


def start_rows(
    bench: Workbench, server: DelayedServer, tree: Installations, cache: Path, engines: Sequence[str]
) -> list[Row]:
    rows = _program_rows(bench, tree, engines)
    for engine in engines:
        warm = [_first_answer_s(bench, server, cache, engine) for _ in range(bench.repeat)]
        cold = [_first_answer_s(bench, server, bench.fresh("cache"), engine) for _ in range(bench.repeat)]
        rows.append(_plain_row(f"mount to first answer, nothing in our cache: {engine}", "mount-cold", engine, cold))
        rows.append(_plain_row(f"mount to first answer, all in our cache: {engine}", "mount-warm", engine, warm))
    return rows


def _plain_row(name: str, workload: str, engine: str, samples: list[float]) -> Row:
    counts = {"workload": workload, "engine": engine}
    return Row(name, median(samples), "s", samples=tuple(samples), counts=counts)


def _first_answer_s(bench: Workbench, server: DelayedServer, cache: Path, engine: str) -> float:
    """`cvmfs-py mount` and `ls`, as a user types them."""
    top = bench.fresh("mount")
    top.mkdir(parents=True)
    options = [*server.options(cache), "--server", server.url]
    command = cvmfs_py("mount", "--engine", engine, *options, server.fqrn, str(top))
    ls, umount = program("ls"), program("umount")
    assert ls is not None
    assert umount is not None
    start = time.perf_counter()
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=bench.programs.environment)
        subprocess.run([ls, str(top)], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start
    finally:
        subprocess.run([umount, str(top)], check=False)


def _program_rows(bench: Workbench, tree: Installations, engines: Sequence[str]) -> list[Row]:
    local_s = []
    for _ in range(bench.repeat):
        drop_caches(3)
        local_s.append(_run_s(bench, tree.top / tree.program))
    rows = [Row("cold start of a program: local", median(local_s), "s", note="no pages", samples=tuple(local_s))]
    for delay_ms in DELAYS_MS:
        with DelayedServer(tree, delay_ms) as server:
            for engine in engines:
                samples = []
                for _ in range(bench.repeat):
                    with Mounted(bench, server, bench.fresh("cache"), engine) as mounted:
                        with mounted.working() as work:
                            samples.append(_run_s(bench, mounted.top / tree.program))
                        with mounted.working() as work_again:
                            again_s = _run_s(bench, mounted.top / tree.program)
                rows.append(_program_row(engine, delay_ms, samples, work, median(local_s)))
                if not delay_ms:
                    rows.append(_again_row(engine, again_s, work_again))
    return rows


def _program_row(engine: str, delay_ms: int, samples: list[float], work: Work, local_s: float) -> Row:
    counts = {"workload": f"program-{delay_ms}ms", "engine": engine, "state": "nothing cached", **work.as_dict()}
    name = f"    {engine}, nothing cached, {delay_ms} ms an answer"
    return Row(name, median(samples), "s", "", median(samples) / local_s, work.words(), tuple(samples), counts)


def _again_row(engine: str, seconds: float, work: Work) -> Row:
    counts = {"workload": "program-again", "engine": engine, "state": "just run before", **work.as_dict()}
    return Row(f"    {engine}, once more", seconds, "s", note=work.words(), counts=counts)


def _run_s(bench: Workbench, interpreter: Path) -> float:
    command = [str(interpreter), "-I", "-S", "-c", PROGRAM]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=bench.programs.environment)
    return time.perf_counter() - start
