"""How fast catalogs answer: look-ups and listings in a generated catalog of 100,000 entries.

`python -m benchmarks.catalog_bench` prints one JSON object. Look-ups are random paths through the whole tree of
catalogs, rows are random row numbers, listings are one directory of all entries; memory is what a listing adds.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, Kind
from cache.ref import ObjectRef
from catalog.pathkey import path_key
from catalog.tree import CatalogTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ENTRIES = 100_000
LOOKUPS = 20_000
DIRECTORY = b"/sw/all"
ROUNDS = 3  # the best counts
ANY_HASH = ContentHash(Algorithm.SHA1, b"\1" * 20)

COLUMNS = (
    "md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER, hash BLOB,"
    " size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT,"
    " uid INTEGER, gid INTEGER, xattr BLOB"
)


class OpenedFile:
    """A local object as the catalog wants it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.path = str(path)
        self.size_bytes = os.fstat(self.fd).st_size

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        return os.pread(self.fd, self.size_bytes if size is None else size, offset)

    def close(self) -> None:
        os.close(self.fd)


def make_catalog(path: Path, entries: int) -> None:
    """One directory with all entries, in random order as publications leave them."""
    connection = sqlite3.connect(path)
    connection.executescript(
        f"""
        CREATE TABLE properties (key TEXT PRIMARY KEY, value TEXT);
        INSERT INTO properties VALUES ('schema', '2.5'), ('schema_revision', '7'), ('revision', '1');
        CREATE TABLE catalog ({COLUMNS}, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
        CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
        CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB);
        CREATE TABLE nested_catalogs (path TEXT PRIMARY KEY, sha1 TEXT, size INTEGER);
        CREATE TABLE bind_mountpoints (path TEXT PRIMARY KEY, sha1 TEXT, size INTEGER);
        CREATE TABLE statistics (counter TEXT PRIMARY KEY, value INTEGER);
        """
    )
    numbers = list(range(entries))
    random.Random(1).shuffle(numbers)
    connection.executemany(
        f"INSERT INTO catalog VALUES ({', '.join('?' * 16)})",
        [
            (*path_key(p), *above, 1, None, 4096, 0o40755, 0, None, 1, name, "", 0, 0, None)
            for p, above, name in parents()
        ],
    )
    connection.executemany(f"INSERT INTO catalog VALUES ({', '.join('?' * 16)})", map(file_row, numbers))
    connection.commit()
    connection.close()


def parents() -> Iterable[tuple[bytes, tuple[int, int], str]]:
    return [(b"", (0, 0), ""), (b"/sw", path_key(b""), "sw"), (DIRECTORY, path_key(b"/sw"), "all")]


def file_row(number: int) -> tuple[object, ...]:
    path = file_path(number)
    digest = hashlib.sha1(path, usedforsecurity=False).digest()
    name = path.rpartition(b"/")[2].decode()
    return (
        *path_key(path),
        *path_key(DIRECTORY),
        1,
        digest,
        number,
        0o100644,
        1_700_000_000,
        5,
        4,
        name,
        "",
        0,
        0,
        None,
    )


def file_path(number: int) -> bytes:
    return DIRECTORY + b"/file-with-a-name-%06d.py" % number


def best_rate(work: Callable[[], int]) -> float:
    """Units a second."""
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - start))
    return max(rates)


def run(entries: int = ENTRIES) -> dict[str, object]:
    """Measures everything; rates are in units a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog"
        make_catalog(path, entries)
        size_bytes = path.stat().st_size

        def open_object(_: ObjectRef) -> OpenedFile:
            return OpenedFile(path)

        tree = CatalogTree(ObjectRef(ANY_HASH, Kind.CATALOG))
        try:
            rates = measure(tree, open_object, entries)
        finally:
            tree.close()
    return {"entries": entries, "catalog_bytes": size_bytes, "python": sys.version.split()[0], **rates}


def measure(tree: CatalogTree, open_object: Callable[[ObjectRef], OpenedFile], entries: int) -> dict[str, int]:
    numbers = [random.Random(2).randrange(entries) for _ in range(LOOKUPS)]
    present = [file_path(number) for number in numbers]
    absent = [path + b"c" for path in present]

    def attach() -> int:
        for _ in range(50):
            tree.close()
            tree.lookup(b"", open_object)
        return 50

    def look_up_present() -> int:
        return sum(tree.lookup(path, open_object) is not None for path in present)

    def look_up_absent() -> int:
        return sum(tree.lookup(path, open_object) is None for path in absent)

    def read_rows() -> int:
        catalog = tree.catalog_for(DIRECTORY, open_object)
        return sum(catalog.entry(4 + number) is not None for number in numbers)

    def list_pages() -> int:
        view = tree.open_directory(DIRECTORY, open_object)
        assert view is not None
        count = 0
        after: int | None = 0
        while after is not None:
            page = view.page(after, 500)
            count += len(page.entries)
            after = page.next_rowid
        return count

    def list_by_name() -> int:
        view = tree.open_directory(DIRECTORY, open_object)
        assert view is not None
        return sum(1 for _ in view.by_name())

    rates = {"attach": best_rate(attach)}
    before_kib = peak_kib()
    rates["listing_pages"] = best_rate(list_pages)
    rates["listing_by_name"] = best_rate(list_by_name)
    listing_kib = peak_kib() - before_kib
    rates["lookup_present"] = best_rate(look_up_present)
    rates["lookup_absent"] = best_rate(look_up_absent)
    rates["row"] = best_rate(read_rows)
    return {**{f"{name}_per_s": round(rate) for name, rate in rates.items()}, "listing_memory_kib": listing_kib}


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    print(json.dumps(run(), indent=2))


if __name__ == "__main__":
    main()
