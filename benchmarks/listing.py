"""Listing whole repositories: time from an empty and from a full cache, and memory, which must not grow.

Repositories of two shapes: nested catalogs of 1,000 entries, and one directory with everything.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.processes import cvmfs_py, program, python
from benchmarks.serving import DelayedServer
from benchmarks.table import Row, rate, timed

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workbench import Workbench
    from tests.simulator.repository import Repository

TITLE = "listing"
SIZES = (1_000, 10_000, 100_000)
DELAY_MS = 10
LOCAL_FILES = 10_000


def run(bench: Workbench) -> list[Row]:
    rows = [_local_listing(bench), _interpreter(bench)]
    shapes = {"nested catalogs": trees.nested_tree, "one directory": trees.flat_tree}
    for shape, make in shapes.items():
        small: dict[str, float] = {}
        for size in SIZES:
            name = f"{size:,} entries, {shape}"
            repository = bench.repository(f"{shape.replace(' ', '-')}-{size}", partial(make, size))
            rows += _measure(bench, repository, name, size, small, timing=size == SIZES[-1])
    if bench.tree is not None:
        repository = bench.repository("tree", lambda: trees.local_tree(str(bench.tree)))
        size = trees.count_entries(repository)
        rows += _measure(bench, repository, f"{size:,} entries, {bench.tree}", size, None, timing=True)
    return rows


def _measure(
    bench: Workbench, repository: Repository, name: str, entries: int, small: dict[str, float] | None, *, timing: bool
) -> list[Row]:
    """Rows of one repository. `small` keeps the memory for the smallest one of this shape, if there are several."""
    rows = []
    output = bench.scratch / "listing"
    cache = bench.fresh("cache")
    with DelayedServer(repository) as server:
        listings = {
            "ls -R": cvmfs_py("ls", "-R", server.url, *server.options(cache)),
            "ls -R --json": cvmfs_py("ls", "-R", "--json", server.url, *server.options(cache)),
        }
        if timing:
            rows.append(_cold(bench, repository, server, name, entries))
        bench.programs.measure(listings["ls -R"])
        for what, command in listings.items():
            costs = [bench.programs.measure(command, output=output) for _ in range(bench.repeat)]
            lines = _count_lines(output)
            if what.endswith("--json") and lines != entries + 1:
                raise SystemExit(f"benchmarks: {what} has listed {lines} instead of {entries + 1} entries")
            if timing:
                per_s = entries / median([cost.wall_s for cost in costs])
                rows.append(
                    timed(f"{what}, warm, {name}", [cost.wall_s for cost in costs], note=f"{per_s:,.0f} entries/s")
                )
            peak = median([cost.peak_rss_bytes for cost in costs])
            first = small.setdefault(what, peak) if small is not None else peak
            beside = f"memory for {SIZES[0]:,} entries" if first != peak else ""
            rows.append(Row(f"{what}, peak memory, {name}", peak, "B", beside, peak / first if beside else None))
    return rows


def _cold(bench: Workbench, repository: Repository, server: DelayedServer, name: str, entries: int) -> Row:
    samples = []
    for _ in range(bench.repeat):
        server.served()
        command = cvmfs_py("ls", "-R", server.url, *server.options(bench.fresh("cache")))
        samples.append(bench.programs.measure(command).wall_s)
        served = server.served()
    with DelayedServer(repository, DELAY_MS) as slow:
        command = cvmfs_py("ls", "-R", slow.url, *slow.options(bench.fresh("cache")))
        slow_s = bench.programs.measure(command).wall_s
    note = f"{served.requests} requests, {served.body_bytes:,} bytes; {slow_s:.2f} s at {DELAY_MS} ms per answer"
    return timed(f"ls -R, cold, {name}", samples, note=note)


def _local_listing(bench: Workbench) -> Row:
    """The same on local disk, as far as it may be compared: `ls -lR` over empty files."""
    top = bench.fresh("local")
    for number in range(LOCAL_FILES // 100):
        directory = top / f"directory{number:03d}"
        directory.mkdir(parents=True)
        for file in range(99):
            (directory / f"file{file:03d}.py").touch()
    listing = program("ls")
    if listing is None:
        return rate("ls -lR of local files", 0, "entries", note="there is no ls")
    costs = [bench.programs.measure([listing, "-lR", str(top)]) for _ in range(bench.repeat)]
    per_s = LOCAL_FILES / median([cost.wall_s for cost in costs])
    return rate(f"ls -lR of {LOCAL_FILES:,} local files (page cache warm)", per_s, "entries")


def _interpreter(bench: Workbench) -> Row:
    cost = bench.programs.measure(python("import trio"))
    return Row("python -I -c 'import trio', peak memory", cost.peak_rss_bytes, "B")


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)
