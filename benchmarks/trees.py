"""The repositories that are measured: synthetic, the same on every machine, made in seconds.

Names and depths are those of an installed Python package. Nothing here measures anything.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Node, tree_from_directory

if TYPE_CHECKING:
    from pathlib import Path

CATALOG_ENTRIES = 1000  # of each nested catalog: its top, 9 directories, 110 files in each
_DIRECTORIES, _FILES = 9, 110
SMALL_FILES_PER_DIRECTORY = 100
_FIRST_MTIME_NS = 1_600_000_000_123_456_789


def publish(directory: Path, tree: Directory) -> Repository:
    """A repository of one revision."""
    directory.mkdir()
    repository = Repository.create(directory, "bench.example.org", level=1)
    repository.publish(tree)
    return repository


def nested_tree(entries: int) -> Directory:
    """So many entries below the root, in nested catalogs of 1,000 each."""
    count = entries // CATALOG_ENTRIES
    return Directory({b"package%04d" % number: _package() for number in range(count)})


def flat_tree(entries: int) -> Directory:
    """So many entries below the root, in one catalog, and all but one of them in one directory."""
    return Directory({b"all": Directory(lambda: list(_same_files(entries - 1).items()))})


def million() -> Directory:
    return nested_tree(1_000_000)


def small_files(count: int) -> Directory:
    """Files of up to 4 KB, each with its own content, half of which can be compressed."""
    rng = random.Random(5)
    made: dict[bytes, Node] = {}
    for first in range(0, count, SMALL_FILES_PER_DIRECTORY):
        numbers = range(first, min(first + SMALL_FILES_PER_DIRECTORY, count))
        made[b"package%04d" % (first // SMALL_FILES_PER_DIRECTORY)] = Directory(
            {b"module%05d.py" % number: File(_content(number, rng)) for number in numbers}
        )
    return Directory(made)


def local_tree(directory: str) -> Directory:
    """A copy of a local directory, with a nested catalog for each directory of its second level."""
    return tree_from_directory(directory, nested=lambda path: path.count(b"/") == 2)


def count_entries(repository: Repository) -> int:
    """All entries of the newest revision, without the root directory."""
    total = repository.head.catalog(b"").total
    # The top of each catalog is a row of its own there, besides the one in the catalog above.
    return sum(total[kind] for kind in ("regular", "symlink", "special", "dir")) - len(repository.head.catalogs)


def _package() -> Directory:
    return Directory(
        lambda: [(b"module%d" % number, Directory(_same_files(_FILES))) for number in range(_DIRECTORIES)],
        nested=True,
        marker=False,
    )


def _same_files(count: int) -> dict[bytes, Node]:
    """Files that differ in name and time: whoever lists them does not see that they have one content."""
    content = b"print('Hello')\n"
    return {b"file%06d.py" % number: File(content, mtime_ns=_FIRST_MTIME_NS + number) for number in range(count)}


def _content(number: int, rng: random.Random) -> bytes:
    half = rng.randrange(100, 2000)
    return b"# module %d\n" % number + rng.randbytes(half) + b"answer = 42\n" * (half // 12)
