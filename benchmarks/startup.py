"""How long `cvmfs-py ls` takes when everything is in the cache, beside what the interpreter alone takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.processes import cvmfs_py, python
from benchmarks.serving import DelayedServer
from benchmarks.table import Row, timed
from benchmarks.trees import small_files

if TYPE_CHECKING:
    from benchmarks.processes import Cost
    from benchmarks.workbench import Workbench

TITLE = "start-up (all in turns, so that a busy moment meets each of them)"
ROUNDS_PER_REPEAT = 7
TARGET_S = 0.250


def run(bench: Workbench) -> list[Row]:
    repository = bench.repository("startup", lambda: small_files(100))
    with DelayedServer(repository) as server:
        options = server.options(bench.fresh("cache"))
        pinned = ["--root-hash", str(repository.head.root_hash)]
        listing = cvmfs_py("ls", server.url, *options)
        bench.programs.measure(listing)
        server.served()
        bench.programs.measure(listing)
        asked = server.served().requests
        bench.programs.measure([*listing, *pinned])
        asked_pinned = server.served().requests
        commands = {
            "python -I -c pass": python("pass"),
            "python -I -c 'import trio'": python("import trio"),
            "cvmfs-py --version": cvmfs_py("--version"),
            "cvmfs-py ls --help": cvmfs_py("ls", "--help"),
            "cvmfs-py ls, warm cache": listing,
            "cvmfs-py ls, warm cache, --root-hash": [*listing, *pinned],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(ROUNDS_PER_REPEAT * bench.repeat):
            for name, command in commands.items():
                costs[name].append(bench.programs.measure(command))
    nothing, warm, warm_pinned = "python -I -c pass", "cvmfs-py ls, warm cache", "cvmfs-py ls, warm cache, --root-hash"
    notes = {
        warm: f"target {TARGET_S * 1000:.0f} ms; {asked} requests",
        warm_pinned: f"{asked_pinned} requests",
    }
    base_s = min(cost.wall_s for cost in costs[nothing])
    rows = []
    for name, found in costs.items():
        note = f"CPU {min(cost.cpu_s for cost in found) * 1000:.0f} ms at best"
        if name in notes:
            note = f"{note}; {notes[name]}"
        row = timed(name, [cost.wall_s for cost in found], note=note)
        best_ratio = min(row.samples) / base_s
        rows.append(Row(row.name, row.value, "s", f"best / best of {nothing}", best_ratio, row.note, row.samples))
    return rows
