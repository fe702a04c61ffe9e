"""What can go wrong with a catalog or a tag database: one class, because there is one reaction. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.address import ContentHash


class CatalogError(Exception):
    """A catalog or tag database is damaged or of a kind that is not supported; the message says which, and where.

    `content_hash` names the object when the trouble may lie in its local copy, so that the copy can be replaced once.
    """

    def __init__(self, message: str, content_hash: ContentHash | None = None) -> None:
        super().__init__(message)
        self.content_hash = content_hash


@dataclass(frozen=True, slots=True)
class Subject:
    """What a complaint is about."""

    name: str
    content_hash: ContentHash | None = None

    def damaged(self, reason: str) -> CatalogError:
        return CatalogError(f"{self.name} is damaged: {reason}", self.content_hash)

    def unusable(self, reason: str) -> CatalogError:
        return CatalogError(f"{self.name} {reason}", self.content_hash)


def show_path(path: bytes) -> str:
    """A path or name for people: whatever could move the cursor of a terminal or is no UTF-8 is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text or "/"
