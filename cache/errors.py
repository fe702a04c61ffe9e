"""What can go wrong in a store, one class per reaction of its users."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.address import ContentHash


class CacheError(Exception):
    """The cache cannot do what was asked; the message says why and what to do."""


class CacheFullError(CacheError):
    """No room on the disk (ENOSPC, EDQUOT), or an object that cannot fit at all."""


class CacheVanishedError(CacheError):
    """The directory was removed while something was written to it; whoever tries again gets a new one."""


class CacheBusyError(CacheError):
    """Another process holds what is needed."""


class CacheReadOnlyError(CacheError):
    """A write was asked of a store that can only be read."""


class ObjectCorruptError(CacheError):
    """A stored object is not what was committed; names it, so that it can be fetched anew."""

    def __init__(self, message: str, content_hash: ContentHash | None = None) -> None:
        super().__init__(message)
        self.content_hash = content_hash
