"""The breadcrumb: the last accepted root of a repository, as the file `cvmfschecksum.FQRN` keeps it.

Reads and writes the text; does not open the file. What it says is not signed, so it is only ever compared with what a
server says, or used as the root when no server can be asked. Pure; safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.address import Algorithm, ContentHash, parse_hash
from cvmfs_py.trust.number import MAXIMUM, parse_number

LIMIT_BYTES = 164  # as many as the reference client reads


@dataclass(frozen=True, slots=True)
class Breadcrumb:
    """A root that was accepted: root catalog, publication time, revision (0 where an old file does not tell it)."""

    root_hash: ContentHash
    timestamp_s: int
    revision: int = 0

    @staticmethod
    def parse(data: bytes) -> Breadcrumb | None:
        """None for everything that cannot be used: no hash, no timestamp, or the revision that means "none"."""
        text = data[:LIMIT_BYTES].decode("latin-1")
        hash_text, _, numbers = text.partition("T")
        timestamp_text, _, revision_text = numbers.partition("R")
        root_hash = parse_hash(hash_text)
        timestamp_s = parse_number(timestamp_text)
        revision = parse_number(revision_text)
        if root_hash is None or root_hash.algorithm is Algorithm.MD5 or timestamp_s == 0 or revision == MAXIMUM:
            return None
        return Breadcrumb(root_hash, timestamp_s, revision)

    def format(self) -> bytes:
        return f"{self.root_hash}T{self.timestamp_s}R{self.revision}".encode("ascii")
