"""`python -m benchmarks`: runs the benchmarks and prints one table."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import facts
from benchmarks.processes import Programs
from benchmarks.table import as_dict, format_table
from benchmarks.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.table import Row

SUITES = {
    "startup": "benchmarks.startup",
    "catalog": "benchmarks.catalog_cost",
    "listing": "benchmarks.listing",
    "copying": "benchmarks.copying",
    "transport": "benchmarks.transport",
    "trust": "benchmarks.trust_cost",
    "cache": "benchmarks.cache_cost",
    "publishing": "benchmarks.publishing",
    "mount": "benchmarks.mount_cost",
}


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-bench-", dir=options.directory) as folder:
        scratch = Path(folder)
        bench = Workbench(
            scratch, Programs(scratch), options.tree, options.repeat, options.kept, million=options.million
        )
        machine = facts(scratch)
        sections: list[tuple[str, Sequence[Row]]] = []
        for name in options.suites or SUITES:
            module = importlib.import_module(SUITES[name])
            bench.say(f"measuring {name}")
            sections.append((f"{name}: {module.TITLE}", module.run(bench)))
        machine["load average at the end"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
        machine["run"] = f"{time.strftime('%Y-%m-%d %H:%M')}, {time.monotonic() - start:.0f} s, repeat {bench.repeat}"
        width = max(map(len, machine))
        print("\n".join(f"{name:<{width}}  {fact}" for name, fact in machine.items()))
        print(format_table(sections), flush=True)
        if options.json is not None:
            rows = [{"suite": title.partition(":")[0], **as_dict(row)} for title, found in sections for row in found]
            options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
        bench.say("removing the scratch directory")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measure what this program costs and print one table; takes minutes. More: benchmarks/README.md",
    )
    parser.add_argument("suites", metavar="SUITE", nargs="*", help=f"any of {', '.join(SUITES)}; default: all")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers to this file too")
    parser.add_argument("--repeat", metavar="N", type=int, default=3, help="how often to measure (default %(default)s)")
    parser.add_argument("--tree", metavar="DIR", help="list and copy a repository made from this local directory too")
    parser.add_argument(
        "--kept", metavar="DIR", type=Path, help="mount: make the repository there, or use the one that is there"
    )
    parser.add_argument("--million", action="store_true", help="mount: walk a million entries, too; takes minutes")
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="where to work (default: the system's temporary directory); the file system"
        " there is part of what is measured",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"there is no suite {unknown[0]!r}; choose from {', '.join(SUITES)}")
    if options.directory is not None and not os.path.isdir(options.directory):
        parser.error(f"{options.directory} is no directory")
    if options.repeat < 1:
        parser.error("--repeat must be at least 1")
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
