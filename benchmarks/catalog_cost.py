"""Look-ups and listings inside one catalog: the rates of `catalog_bench`, measured in a process of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.table import Row, rate

if TYPE_CHECKING:
    from benchmarks.workbench import Workbench

TITLE = "catalog of 100,000 entries, in process, no network"
_NAMES = {
    "lookup_present_per_s": ("look-ups by path, present", "look-ups"),
    "lookup_absent_per_s": ("look-ups by path, absent", "look-ups"),
    "row_per_s": ("entries by row number", "entries"),
    "listing_by_name_per_s": ("listing ordered by name, streamed", "entries"),
    "listing_pages_per_s": ("listing in pages", "entries"),
    "attach_per_s": ("catalogs attached", "catalogs"),
}


def run(bench: Workbench) -> list[Row]:
    found = json.loads(bench.programs.run_module("benchmarks.catalog_bench"))
    rows = [rate(name, found[key], what) for key, (name, what) in _NAMES.items()]
    memory = found["listing_memory_kib"] * 1024
    note = f"the catalog has {found['catalog_bytes'] / 2**20:.1f} MiB"
    return [*rows, Row("memory that listing it adds", memory, "B", note=note)]
