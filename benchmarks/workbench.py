"""What all benchmarks share: the scratch directory, programs, repositories, and how often to repeat."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import trees

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.processes import Programs
    from tests.simulator.repository import Repository
    from tests.simulator.tree import Directory


@dataclass(frozen=True, slots=True)
class Workbench:
    """One run."""

    scratch: Path
    programs: Programs
    tree: str | None = None  # a local directory to measure besides the synthetic trees
    repeat: int = 3
    kept: Path | None = None  # where the mounted repository stays for the next run
    million: bool = False  # measure the memory of a walk of a million entries, too

    def repository(self, name: str, make: Callable[[], Directory]) -> Repository:
        """A repository of this run, published in `scratch`."""
        start = time.monotonic()
        repository = trees.publish(self.scratch / f"repository-{name}", make())
        self.say(f"published {name}: {trees.count_entries(repository):,} entries, {time.monotonic() - start:.1f} s")
        return repository

    def fresh(self, name: str) -> Path:
        """A path in the scratch directory that is not used by anything else.

        Nothing is removed between measurements: a file system that has just freed thousands of inodes may take ten
        times as long for a new one.
        """
        parent = self.scratch / "fresh"
        parent.mkdir(exist_ok=True)
        return parent / f"{name}-{time.monotonic_ns()}"

    def say(self, text: str) -> None:
        print(f"benchmarks: {text}", file=sys.stderr, flush=True)
