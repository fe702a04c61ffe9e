"""The files below a repository's web root as a server has them, and ways to damage them.

Knows neither keys nor catalogs. A file is always replaced by another, never written to: whoever is reading it goes on
reading the old bytes, and its other names (hard links) keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.address import Kind
from tests.simulator.objects import ObjectWriter

if TYPE_CHECKING:
    from pathlib import Path

    from cache.address import Algorithm, ContentHash


class WebRoot:
    """What lies below `/cvmfs/FQRN`."""

    def __init__(self, server_root: Path, algorithm: Algorithm, *, level: int = 6) -> None:
        self.server_root = server_root
        self.objects = ObjectWriter(server_root, algorithm, level=level)

    def replace_manifest(self, data: bytes) -> None:
        _replace(self.server_root / ".cvmfspublished", data)

    def replace_whitelist(self, data: bytes) -> None:
        _replace(self.server_root / ".cvmfswhitelist", data)

    def object_path(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> Path:
        return self.objects.path(content_hash, kind)

    def tamper(self, content_hash: ContentHash, kind: Kind = Kind.BULK, *, at: int = -1) -> None:
        """Change one byte of a stored object."""
        path = self.object_path(content_hash, kind)
        data = bytearray(path.read_bytes())
        data[at] ^= 0xFF
        self.replace_object(content_hash, kind, bytes(data))

    def replace_object(self, content_hash: ContentHash, kind: Kind, data: bytes) -> None:
        """Other bytes under the same name."""
        _replace(self.object_path(content_hash, kind), data)

    def drop(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> None:
        self.object_path(content_hash, kind).unlink()

    def swap(self, first: tuple[ContentHash, Kind], second: tuple[ContentHash, Kind]) -> None:
        """Exchange the bytes of two objects."""
        data = self.object_path(*first).read_bytes()
        self.replace_object(*first, self.object_path(*second).read_bytes())
        self.replace_object(*second, data)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.replace(path)
