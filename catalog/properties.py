"""What a catalog says about itself: revision, lifetime, root prefix. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import parse_hash

if TYPE_CHECKING:
    from cache.address import ContentHash
    from catalog.errors import Subject
    from catalog.tables import PropertyTable

DEFAULT_TTL_S = 240


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of one catalog. Lifetime, volatility and membership mean something in root catalogs only."""

    revision: int  # of the root catalog: of the repository
    previous_revision: ContentHash | None
    root_prefix: bytes  # where this catalog belongs; empty in root catalogs
    last_modified_s: int
    ttl_s: int
    is_volatile: bool
    voms_authz: bytes | None


def catalog_properties(subject: Subject, table: PropertyTable) -> Properties:
    root_prefix = table.text(b"root_prefix") or b""
    if root_prefix and not is_normal_path(root_prefix):
        raise subject.damaged("its root prefix is not a path")
    return Properties(
        revision=table.number(b"revision", 0),
        previous_revision=parse_hash(table.text(b"previous_revision") or b""),
        root_prefix=root_prefix,
        last_modified_s=table.number(b"last_modified", 0),
        ttl_s=table.number(b"TTL", DEFAULT_TTL_S),
        is_volatile=table.number(b"volatile", 0) != 0,
        voms_authz=table.text(b"voms_authz") or None,
    )


def is_normal_path(path: bytes) -> bool:
    """Whether this is an absolute path below the root without empty, `.` and `..` parts."""
    first, *parts = path.split(b"/")
    return not first and bool(parts) and not any(part in (b"", b".", b"..") for part in parts) and b"\0" not in path
