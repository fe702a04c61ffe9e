"""Mounts, with both engines, beside the same files on a local disk: what programs wait for, and what is behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.installations import LARGE_FILE, Installations, installations
from benchmarks.mount_start import start_rows
from benchmarks.mounted import Mounted, Work, drop_caches
from benchmarks.processes import program
from benchmarks.serving import DelayedServer
from benchmarks.table import Row
from benchmarks.trees import million

if TYPE_CHECKING:
    from benchmarks.workbench import Workbench

TITLE = "programs on a mount of 100,000 entries, beside the same files on a local disk (`local`)"
ENGINES = ("channel", "pyfuse3")
LOCAL = "local"
PAGES, DENTRIES, ALL = 1, 2, 3
_WORK = Path(__file__).with_name("mount_work.py")
_MEMORY_TARGET_BYTES = {100_000: 30 << 20, 1_000_000: 60 << 20}


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing that a program does, and the state of the caches when it begins."""

    key: str
    name: str
    state: str
    arguments: tuple[str, ...]  # of mount_work; empty: find
    drop: int = 0  # what of the kernel's caches is dropped before
    target: str = ""  # of the ratio of the channel


def _workloads(tree: Installations, lists: Path) -> list[Workload]:
    """In this order, each begins where the one before has ended, or with what it drops."""
    storm = ("read", str(lists / "storm"))
    everything = ("lstat", str(lists / "entries"))
    large = ("stream", LARGE_FILE)
    return [
        Workload(
            "walk-first", "first walk (find)", "new mount, catalogs in our cache, no dentries", (), DENTRIES, "1.2"
        ),
        Workload("walk-second", "second walk (find)", "after the first", (), 0, "1.2, no message"),
        Workload("lstat", "lstat of every entry", "after a walk", everything, 0, "1.3, no message"),
        Workload(
            "lstat-again", "lstat of every entry, again", "after the first time", everything, 0, "1.3, no message"
        ),
        Workload("read-cold", "read 8,700 files", "in our cache, no pages, dentries known", storm, PAGES, "1.5"),
        Workload("read-hot", "read 8,700 files, again", "all in the kernel", storm, 0, "1.3, no message"),
        Workload("read-dentries", "read 8,700 files", "no dentries (and no pages of a mount)", storm, DENTRIES),
        Workload("read-nothing", "read 8,700 files", "neither dentries nor pages", storm, ALL),
        Workload("large-cold", "read a file of 300 MB", "in our cache, no pages", large, PAGES, "1.25"),
        Workload("large-hot", "read a file of 300 MB, again", "all in the kernel", large, 0, "1.11"),
        Workload("readers-cold", "8,700 files by 4 processes", "in our cache, no pages", ("readers", storm[1]), PAGES),
        Workload("walk-nothing", "walk (find)", "neither dentries nor pages, also not of our catalogs", (), ALL),
        Workload("trees-serial", "4 trees, one by one", "no dentries, no pages", ("trees", *tree.groups), ALL),
        Workload(
            "trees-at-once", "4 trees, 4 processes", "no dentries, no pages", ("trees-at-once", *tree.groups), ALL
        ),
    ]


def run(bench: Workbench) -> list[Row]:
    why_not = _why_not()
    if why_not:
        bench.say(f"mounts are not measured: {why_not}")
        return []
    tree = installations(bench, bench.kept)
    bench.say(f"{len(tree.entries):,} entries, {len(tree.storm):,} files of {tree.program.partition('/')[0]}")
    lists = bench.fresh("lists")
    lists.mkdir()
    (lists / "entries").write_text("".join(f"{each}\n" for each in tree.entries))
    (lists / "storm").write_text("".join(f"{each}\n" for each in tree.storm))
    suite = _Suite(bench, tree, _workloads(tree, lists))
    with DelayedServer(tree) as server:
        cache = bench.fresh("cache")
        bench.say("filling the cache")
        with Mounted(bench, server, cache, ENGINES[0]) as mounted:
            suite.fill(mounted.top)
        for number in range(bench.repeat):
            bench.say(f"round {number + 1} of {bench.repeat}")
            suite.run_all(LOCAL, tree.top, None)
            for engine in ENGINES:
                with Mounted(bench, server, cache, engine) as mounted:
                    suite.run_all(engine, mounted.top, mounted)
        rows = suite.rows()
        rows += start_rows(bench, server, tree, cache, ENGINES)
        rows += [_memory_row(bench, server, cache, engine, len(tree.entries)) for engine in ENGINES]
    if bench.million:
        repository = bench.repository("million", million)
        with DelayedServer(repository) as server:
            rows += [_memory_row(bench, server, bench.fresh("cache"), engine, 1_000_000) for engine in ENGINES]
    return rows


def _why_not() -> str:
    if os.geteuid() != 0:
        return "only root may drop the caches of the kernel, and their state is half of each number"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there"
    return ""


class _Suite:
    """The workloads and their samples."""

    def __init__(self, bench: Workbench, tree: Installations, workloads: list[Workload]) -> None:
        self._bench = bench
        self._tree = tree
        self._workloads = workloads
        self._samples: dict[tuple[str, str], list[float]] = {}
        self._works: dict[tuple[str, str], Work] = {}

    def fill(self, top: Path) -> None:
        """Brings everything that is read here into our cache, once."""
        for workload in self._workloads:
            if workload.key in ("walk-first", "read-cold", "large-cold", "trees-serial"):
                self._time_s(workload, top)

    def run_all(self, engine: str, top: Path, mounted: Mounted | None) -> None:
        for workload in self._workloads:
            key = (workload.key, engine)
            if workload.drop:
                drop_caches(workload.drop)
            if mounted is None:
                seconds = self._time_s(workload, top)
            else:
                with mounted.working() as work:
                    seconds = self._time_s(workload, top)
                self._works[key] = work
            self._samples.setdefault(key, []).append(seconds)

    def rows(self) -> list[Row]:
        found = []
        for workload in self._workloads:
            local_s = median(self._samples[(workload.key, LOCAL)])
            for engine in (LOCAL, *ENGINES):
                samples = self._samples[(workload.key, engine)]
                work = self._works.get((workload.key, engine))
                found.append(_row(workload, engine, samples, local_s, work))
        return found

    def _time_s(self, workload: Workload, top: Path) -> float:
        if workload.arguments:
            work, *arguments = workload.arguments
            command = [sys.executable, "-I", "-S", str(_WORK), work, str(top), *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=self._bench.programs.environment)
            return float(json.loads(done.stdout)["wall_s"])
        find = program("find")
        if find is None:
            raise SystemExit("benchmarks: there is no find(1)")
        start = time.perf_counter()
        subprocess.run([find, "."], cwd=top, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def _row(workload: Workload, engine: str, samples: list[float], local_s: float, work: Work | None) -> Row:
    value = median(samples)
    if work is None:
        counts: dict[str, object] = {"workload": workload.key, "state": workload.state, "engine": engine}
        name = f"{workload.name}: {engine}"
        return Row(name, value, "s", note=workload.state, samples=tuple(samples), counts=counts)
    return Row(
        f"    {engine}",
        value,
        "s",
        f"target {workload.target}" if workload.target and engine == ENGINES[0] else "",
        value / local_s,
        work.words(),
        tuple(samples),
        counts={"workload": workload.key, "state": workload.state, "engine": engine, **work.as_dict()},
    )


def _memory_row(bench: Workbench, server: DelayedServer, cache: Path, engine: str, entries: int) -> Row:
    """A walk that also asks for everything about each entry, which is the most that a daemon can be made to know."""
    with Mounted(bench, server, cache, engine) as mounted:
        idle_bytes = mounted.memory_bytes()
        find = program("find")
        assert find is not None
        with mounted.working() as work:
            subprocess.run([find, ".", "-size", "+1G"], cwd=mounted.top, stdout=subprocess.DEVNULL, check=True)
        grown_bytes = mounted.memory_bytes() - idle_bytes
    target_bytes = _MEMORY_TARGET_BYTES[1_000_000 if entries >= 1_000_000 else 100_000]
    return Row(
        f"memory that a walk of {entries:,} entries adds: {engine}",
        grown_bytes,
        "B",
        f"the target, {target_bytes >> 20} MiB",
        grown_bytes / target_bytes,
        f"idle {idle_bytes >> 20} MiB; {work.words()}",
        counts={"workload": "memory", "engine": engine, "entries": entries, "idle_bytes": idle_bytes, **work.as_dict()},
    )
