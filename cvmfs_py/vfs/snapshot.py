"""One verified revision of a repository, as a value: what every file-system operation is a function of. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.address import ContentHash
    from catalog.properties import Properties
    from catalog.tree import CatalogTree
    from cvmfs_py.vfs.attrs import View


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A root hash, its catalogs and how they are shown."""

    fqrn: str
    tree: CatalogTree
    properties: Properties  # of the root catalog
    view: View
    tag: str = ""  # its name, when it was chosen by name or date
    is_pinned: bool = False  # it stays, whatever is published

    @property
    def root_hash(self) -> ContentHash:
        return self.tree.root_ref.content_hash

    @property
    def revision(self) -> int:
        return self.properties.revision
