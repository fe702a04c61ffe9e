"""What a simulated repository is like: the choices that are made once, when it is created.

Immutable values; no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Algorithm
from tests.simulator.schema import NEWEST, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_METAINFO = b'{"administrator": "A. Nobody", "email": "nobody@example.org", "organisation": "Example"}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a repository is like; fixed when it is created."""

    algorithm: Algorithm = Algorithm.SHA1
    compression: str = "zlib"  # of files that do not say otherwise
    catalog_compression: str = "zlib"  # of catalogs, certificate, history and metainfo
    level: int = 6
    schema: Schema = NEWEST
    ttl_s: int = 240
    volatile: bool = False
    garbage_collectable: bool = False
    alternative_paths: bool = False
    history_revision: int | None = 3  # None: no tags
    metainfo: bytes | None = DEFAULT_METAINFO
    reflog: bool = True
    snapshots: bool = False  # the tags below /.cvmfs/snapshots
    root_properties: Mapping[str, str] = field(default_factory=dict)  # more of them, e.g. voms_authz
