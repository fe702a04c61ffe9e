"""Makes one object of one content: compress, hash, store unless it is there.

Knows neither files nor catalogs. Concurrency: one thread; any number of processes on the same storage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.address import ContentHash, Digester, Kind, hash_bytes
from cvmfs_py.publish.compression import compress, new_compressor
from cvmfs_py.publish.recent_contents import content_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cvmfs_py.publish.compression import Bytes
    from cvmfs_py.publish.packed import FileRecipe
    from cvmfs_py.publish.recent_contents import RecentContents
    from cvmfs_py.publish.storage import Storage


class Made(NamedTuple):
    """An object of a content."""

    digest: bytes
    stored_bytes: int  # 0: nothing was written
    is_new: bool


class ObjectMaker:
    """Puts objects into a storage."""

    def __init__(self, storage: Storage, recent: RecentContents | None = None) -> None:
        self._storage = storage
        self._recent = recent

    def make(self, content: Bytes, recipe: FileRecipe, kind: Kind = Kind.BULK) -> Made:
        """The object of a content that is in memory as a whole."""
        recent = self._recent
        if recent is not None:
            key = content_key(content, recipe, kind.value)
            digest = recent.digest(key)
            if digest is not None:
                return Made(digest, 0, False)
        stored = compress(content, recipe.compression)
        content_hash = hash_bytes(recipe.algorithm, stored)
        is_new = not recipe.is_external and self._put(stored, content_hash, kind)
        if recent is not None:
            recent.remember(key, content_hash.digest)
        return Made(content_hash.digest, len(stored) if is_new else 0, is_new)

    def make_streamed(self, pieces: Iterable[Bytes], recipe: FileRecipe) -> Made:
        """The bulk object of a content of any size."""
        compressor = new_compressor(recipe.compression)
        digester = Digester(recipe.algorithm)
        if recipe.is_external:
            for piece in pieces:
                digester.update(compressor.compress(piece))
            digester.update(compressor.flush())
            return Made(digester.content_hash().digest, 0, False)
        with self._storage.new_object() as writer:
            for piece in pieces:
                if stored := compressor.compress(piece):
                    digester.update(stored)
                    writer.write(stored)
            stored = compressor.flush()
            digester.update(stored)
            writer.write(stored)
            content_hash = digester.content_hash()
            is_new = writer.commit(content_hash)
            return Made(content_hash.digest, writer.written_bytes if is_new else 0, is_new)

    def _put(self, stored: Bytes, content_hash: ContentHash, kind: Kind) -> bool:
        return self._storage.put_bytes(stored, content_hash, kind)
