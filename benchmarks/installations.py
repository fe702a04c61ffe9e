"""The tree that mounts are measured with: several Python installations of this machine, published as one repository.

Real software has the file sizes, names and depths that programs meet, and the programs in it can be run. The tree is
made of hard links where that is possible, and is itself what stands beside every mount: the same files on a local disk.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import cvmfs_py

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.workbench import Workbench

FQRN = "bench.example.org"
ENTRIES = 100_000
LARGE_FILE = "large.bin"
LARGE_BYTES = 300 << 20
_BLOCK_BYTES = 1 << 20
_STORM_FILES = 8_700


@dataclass(frozen=True, slots=True)
class Installations:
    """A published tree. Paths of entries are relative to its top."""

    fqrn: str
    document_root: Path
    master_public_key: Path
    top: Path
    entries: tuple[str, ...]
    storm: tuple[str, ...]  # about 8,700 files of one installation: many small, some large
    groups: tuple[str, ...]  # installations of similar size, for processes that work side by side
    program: str  # an interpreter that finds its library beside itself


def installations(bench: Workbench, kept: Path | None) -> Installations:
    """Makes and publishes the tree, or takes what an earlier run has left in `kept`."""
    place = kept if kept is not None else bench.fresh("installations")
    top, document_root = place / "tree", place / "served"
    storage = document_root / "cvmfs" / FQRN
    if not (place / "complete").exists():
        if place.exists():
            shutil.rmtree(place)
        start = time.monotonic()
        storage.parent.mkdir(parents=True)
        _make_tree(top)
        bench.programs.measure(cvmfs_py("repo", "init", FQRN, "--storage", str(storage)))
        bench.programs.measure(cvmfs_py("repo", "publish", str(storage), "--from", str(top), "--quiet"))
        (place / "complete").touch()
        bench.say(f"published Python installations in {time.monotonic() - start:.0f} s")
    entries = tuple(sorted(_walk(top)))
    names = [each for each in _subdirectories(top) if (top / each / "bin" / "python3").exists()]
    names.sort(key=lambda name: abs(sum(each.startswith(name + "/") for each in entries) - _STORM_FILES))
    of_best = (each for each in entries if each.startswith(names[0] + "/"))
    storm = tuple(each for each in of_best if not (top / each).is_symlink() and (top / each).is_file())
    return Installations(
        FQRN,
        document_root,
        Path(f"{storage}.keys") / f"{FQRN}.pub",
        top,
        entries,
        storm[:_STORM_FILES],
        tuple(sorted(names[:4])),
        f"{names[0]}/bin/python3",
    )


def _make_tree(top: Path) -> None:
    """The smallest installations whole, and so much of the next one that there are about 100,000 entries."""
    top.mkdir(parents=True)
    versions = Path.home() / ".pyenv" / "versions"
    found = _subdirectories(versions) if versions.is_dir() else []
    sources = [versions / name for name in found] or [Path(sys.base_prefix)]
    left = ENTRIES
    for source, _ in sorted(((each, sum(1 for _ in _walk(each))) for each in sources), key=lambda each: each[1]):
        left -= _link(source, top / source.name, left)
        (top / source.name / ".cvmfscatalog").touch()
        if left <= 0:
            break
    content = random.Random(7)
    with open(top / LARGE_FILE, "wb") as stream:
        for _ in range(LARGE_BYTES // _BLOCK_BYTES):
            stream.write(content.randbytes(_BLOCK_BYTES))


def _link(source: Path, target: Path, limit: int) -> int:
    """Repeats a tree with hard links, or copies on another file system, up to so many entries."""
    target.mkdir()
    count = 1
    for relative in _walk(source):
        if count >= limit:
            break
        old, new = source / relative, target / relative
        if old.is_dir() and not old.is_symlink():
            new.mkdir()
        else:
            try:
                os.link(old, new, follow_symlinks=False)
            except OSError:
                shutil.copy2(old, new, follow_symlinks=False)
        count += 1
    return count


def _walk(top: Path) -> Iterator[str]:
    """Everything below, directories before their contents."""
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(top / directory) as listing:
            for item in sorted(listing, key=lambda each: each.name):
                relative = f"{directory}/{item.name}" if directory else item.name
                yield relative
                if item.is_dir(follow_symlinks=False):
                    pending.append(relative)


def _subdirectories(top: Path) -> list[str]:
    return sorted(item.name for item in os.scandir(top) if item.is_dir(follow_symlinks=False))
