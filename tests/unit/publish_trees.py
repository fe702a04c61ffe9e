"""Small repositories for tests of writable trees: attributes, contents without objects, trees read back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash
from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.tree import WritableTree
from tests.simulator.reading import CatalogContent, assert_counters_consistent, read_catalogs

if TYPE_CHECKING:
    from pathlib import Path

    from catalog.entry import Chunk

DIRECTORY = Attributes(mode=0o755, mtime_s=1_600_000_000)
FILE = Attributes(mode=0o644, mtime_s=1_600_000_001, mtime_ns=7)
MARKER = b".cvmfscatalog"


@dataclass(frozen=True)
class Content:
    """What a row needs to know of a file; there are no objects behind it."""

    size_bytes: int = 0
    content_hash: ContentHash | None = None
    chunks: tuple[Chunk, ...] = ()


def content(text: str) -> Content:
    return Content(len(text), ContentHash(Algorithm.SHA1, hashlib.sha1(text.encode()).digest()))


class Repository:
    """A storage in a temporary directory, its current root, and its catalogs as they are found there."""

    def __init__(self, directory: Path, settings: RepositorySettings | None = None) -> None:
        self.settings = settings or RepositorySettings(fqrn="unit.test.org")
        self.storage = Storage(directory / "server")
        self.workdir = directory / "work"
        self.workdir.mkdir()
        self.root_hash: ContentHash | None = None
        self.revision = 0

    def open(self) -> WritableTree:
        return WritableTree(self.storage, self.settings, self.root_hash, self.workdir)

    def commit(self, tree: WritableTree) -> dict[bytes, CatalogContent]:
        """Commit, and read everything back."""
        self.revision += 1
        self.root_hash, _ = tree.commit(self.revision, 1_700_000_000 + self.revision)
        return self.read()

    def read(self) -> dict[bytes, CatalogContent]:
        catalogs = read_catalogs(self.storage.directory, str(self.root_hash))
        assert_counters_consistent(catalogs)
        return catalogs


def put_directories(tree: WritableTree, *paths: bytes) -> None:
    for path in paths:
        tree.put_directory(path, DIRECTORY)


def put_files(tree: WritableTree, *paths: bytes) -> None:
    """Files whose contents are their paths."""
    for path in paths:
        tree.put_file(path, FILE, content(path.decode("latin-1")))
