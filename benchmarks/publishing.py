"""What it costs to publish a large tree of small files, beside packing it with tar and gzip in the same run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import cvmfs_py, program
from benchmarks.table import Row, timed

if TYPE_CHECKING:
    from benchmarks.workbench import Workbench

TITLE = "publish a tree, beside `tar c TREE | gzip -6 > FILE`"
TARGET_RATIO = 0.7
TARGET_MEMORY_BYTES = 300 << 20
NAME = "bench.example.org"


def run(bench: Workbench) -> list[Row]:
    tree = _tree(bench)
    entries, size_bytes = _count(tree)
    bench.say(f"publishing {tree}: {entries:,} entries, {size_bytes >> 20:,} MiB; reading it once before")
    shell, tar, gzip = program("sh"), program("tar"), program("gzip")
    rows = []
    packed_s = None
    if shell and tar and gzip:
        packed = bench.fresh("packed")
        pipeline = f"{tar} c -C {shlex.quote(str(tree))} . | {gzip} -6 > {shlex.quote(str(packed))}"
        bench.programs.measure([shell, "-c", f"{tar} c -C {shlex.quote(str(tree))} . | cat > /dev/null"])
        packed_s = bench.programs.measure([shell, "-c", pipeline]).wall_s
        rows.append(timed("tar | gzip -6", [packed_s], note=f"{entries:,} entries, {size_bytes >> 20:,} MiB"))
    storage = bench.fresh("published")
    bench.programs.measure(cvmfs_py("repo", "init", NAME, "--storage", str(storage)))
    summary = bench.fresh("summary")
    publish = cvmfs_py("repo", "publish", str(storage), "--from", str(tree), "--json")
    first = bench.programs.measure(publish, output=summary)
    counts = json.loads(summary.read_bytes())
    rows.append(
        timed(
            "repo publish, all new",
            [first.wall_s],
            beside="the time of tar | gzip",
            limit_s=packed_s,
            note=f"target {TARGET_RATIO}; CPU {first.cpu_s:.0f} s; {_counts(counts)}",
        )
    )
    rows.append(
        Row(
            "its peak memory (the largest of its processes)",
            first.peak_rss_bytes,
            "B",
            "300 MiB",
            first.peak_rss_bytes / TARGET_MEMORY_BYTES,
        )
    )
    again = bench.programs.measure([*publish, "--force"], output=summary)
    rows.append(timed("repo publish, nothing changed", [again.wall_s], note=_counts(json.loads(summary.read_bytes()))))
    return rows


def _tree(bench: Workbench) -> Path:
    """The tree of --tree; else Python installations, which are on many machines and everywhere of the same kind."""
    if bench.tree is not None:
        return Path(bench.tree)
    versions = Path.home() / ".pyenv" / "versions"
    return versions if versions.is_dir() else Path(sys.base_prefix) / "lib"


def _count(tree: Path) -> tuple[int, int]:
    entries = size_bytes = 0
    for directory, names, files in os.walk(tree):
        entries += len(names) + len(files)
        for name in files:
            info = os.lstat(os.path.join(directory, name))
            size_bytes += info.st_size
    return entries, size_bytes


def _counts(summary: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in summary.items() if isinstance(value, int))
