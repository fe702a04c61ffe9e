"""Turns a tree into objects and catalogs: one publication, from the root directory to the root catalog's hash.

Signs nothing and keeps no state between publications; unchanged nested catalogs are taken over from the previous
one, as servers do. Not thread-safe.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, Kind, hash_bytes
from tests.simulator.catalogs import NESTED_MOUNTPOINT, NESTED_ROOT, CatalogWriter, Content, Transition
from tests.simulator.objects import ObjectWriter, read_blocks, read_chunks
from tests.simulator.tree import (
    MARKER,
    BindMountpoint,
    Directory,
    File,
    HardLink,
    Node,
    Special,
    Symlink,
    as_bytes,
    iter_entries,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.simulator.schema import Schema

_IN_MEMORY_BYTES = 1 << 22
Entries = list[tuple[bytes, Node]]


@dataclass(frozen=True, slots=True)
class PublishedCatalog:
    """One catalog of a revision. `total` counts it and everything nested below it."""

    path: bytes
    content_hash: ContentHash
    size_bytes: int
    revision: int
    total: Mapping[str, int]
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to publish: everything that is the same for all catalogs of one revision."""

    algorithm: Algorithm
    compression: str
    catalog_compression: str
    schema: Schema
    timestamp_s: int
    revision: int
    root_properties: Mapping[str, str]
    catalog_sql: Mapping[bytes, Sequence[str]] = field(default_factory=dict)
    catalog_bytes: Mapping[bytes, Callable[[bytes], bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Publication:
    """One run: `catalogs` is complete when `publish` returns."""

    recipe: Recipe
    objects: ObjectWriter
    external_root: Path
    scratch: Path
    previous: Mapping[bytes, PublishedCatalog]
    catalogs: dict[bytes, PublishedCatalog] = field(default_factory=dict)

    def publish(self, tree: Directory) -> PublishedCatalog:
        """Write everything and return the root catalog."""
        root = self._build(b"", tree, list(iter_entries(tree)))
        unused = (self.recipe.catalog_sql.keys() | self.recipe.catalog_bytes.keys()) - self.catalogs.keys()
        if unused:
            raise ValueError(f"defects for catalogs that do not exist: {sorted(unused)}")
        return root

    def _build(self, top: bytes, directory: Directory, entries: Entries) -> PublishedCatalog:
        """One catalog and, before it is finished, those nested in it. Recursion: once per level of nesting."""
        schema = self.recipe.schema
        if top and directory.schema:
            schema = directory.schema
        if top and directory.marker and all(name != MARKER for name, _ in entries):
            entries.append((MARKER, File(mtime_ns=directory.mtime_ns)))
        file = self.scratch / f"catalog-{top.count(b'/')}.sqlite"  # those open at one time differ in depth
        file.unlink(missing_ok=True)
        writer = CatalogWriter(file, schema)
        try:
            subtree = self._fill(writer, top, directory, entries)
            return self._finish(writer, top, subtree)
        finally:
            writer.abandon()
            file.unlink(missing_ok=True)

    def _fill(self, writer: CatalogWriter, top: bytes, directory: Directory, entries: Entries) -> Counter[str]:
        subtree: Counter[str] = Counter()
        pending: list[tuple[bytes, Directory]] = []
        writer.add_directory(top, directory, _count_links(entries), NESTED_ROOT if top else 0)
        groups = self._add_entries(writer, top, entries, pending, 0)
        while pending:
            path, node = pending.pop()
            entries = list(iter_entries(node))
            if not node.nested:
                writer.add_directory(path, node, _count_links(entries))
                groups = self._add_entries(writer, path, entries, pending, groups)
                continue
            writer.add_directory(path, node, _count_links(entries), NESTED_MOUNTPOINT)
            child = self._build(path, node, entries)
            writer.add_nested(Transition(path, child.content_hash, child.size_bytes))
            subtree.update(child.total)
        return subtree

    def _add_entries(
        self,
        writer: CatalogWriter,
        path: bytes,
        entries: Entries,
        pending: list[tuple[bytes, Directory]],
        groups: int,
    ) -> int:
        """Rows for everything but directories, which are put on `pending`; returns the last hard-link group."""
        links = Counter(as_bytes(node.to) for _, node in entries if isinstance(node, HardLink))
        linked: dict[bytes, tuple[File, Content, int]] = {}
        for name, node in entries:
            here = path + b"/" + name
            if isinstance(node, Directory):
                pending.append((here, node))
            elif isinstance(node, File):
                content = self._store(here, node)
                hardlinks = 1
                if name in links:
                    groups += 1
                    hardlinks = groups << 32 | (links[name] + 1)
                    linked[name] = (node, content, hardlinks)
                writer.add_file(here, node, content, hardlinks)
            elif isinstance(node, Symlink):
                writer.add_symlink(here, node)
            elif isinstance(node, Special):
                writer.add_special(here, node)
            elif isinstance(node, BindMountpoint):
                writer.add_bind_mountpoint(here, node)
        for name, node in entries:
            if isinstance(node, HardLink):
                if as_bytes(node.to) not in linked:
                    raise ValueError(f"a hard link to no regular file of its directory: {path + b'/' + name!r}")
                writer.add_file(path + b"/" + name, *linked[as_bytes(node.to)])
        return groups

    def _store(self, path: bytes, node: File) -> Content:
        algorithm = node.algorithm or self.recipe.algorithm
        compression = node.compression or ("none" if node.external else self.recipe.compression)
        content = node.content
        if node.stored is not None:
            stored = self.objects.put_stored(node.stored, algorithm=algorithm)
            return Content(len(content) if isinstance(content, bytes) else 0, stored, algorithm, compression)
        if node.external:
            return self._store_external(path, node, algorithm, compression)
        if node.chunk_sizes is not None:
            chunks: list[tuple[int, int, ContentHash]] = []
            offset = 0
            for chunk in read_chunks(content, node.chunk_sizes):
                piece = self.objects.put(chunk, Kind.CHUNK, compression=compression, algorithm=algorithm)
                chunks.append((offset, len(chunk), piece.content_hash))
                offset += len(chunk)
            whole = None
            if node.bulk_too:
                whole = self._store_whole(content, algorithm, compression).content_hash
            return Content(offset, whole, algorithm, compression, tuple(chunks))
        return self._store_whole(content, algorithm, compression)

    def _store_whole(self, content: bytes | Path, algorithm: Algorithm, compression: str) -> Content:
        if isinstance(content, Path):
            if content.stat().st_size > _IN_MEMORY_BYTES:
                big = self.objects.put_blocks(read_blocks(content), compression=compression, algorithm=algorithm)
                return Content(big.size_bytes, big.content_hash, algorithm, compression)
            content = content.read_bytes()
        stored = self.objects.put(content, compression=compression, algorithm=algorithm)
        return Content(stored.size_bytes, stored.content_hash, algorithm, compression)

    def _store_external(self, path: bytes, node: File, algorithm: Algorithm, compression: str) -> Content:
        """External data lie under their own path on another server; chunks are ranges of the plain file."""
        blocks = read_blocks(node.content) if isinstance(node.content, Path) else [node.content]
        to = self.external_root / Path(*(part.decode("utf-8", "surrogateescape") for part in path.split(b"/")[1:]))
        whole = self.objects.put_blocks(blocks, compression=compression, algorithm=algorithm, to=to)
        if node.chunk_sizes is None:
            return Content(whole.size_bytes, whole.content_hash, algorithm, compression)
        chunks: list[tuple[int, int, ContentHash]] = []
        offset = 0
        for chunk in read_chunks(node.content, node.chunk_sizes):
            chunks.append((offset, len(chunk), hash_bytes(algorithm, chunk)))
            offset += len(chunk)
        return Content(offset, None, algorithm, compression, tuple(chunks))

    def _finish(self, writer: CatalogWriter, top: bytes, subtree: Counter[str]) -> PublishedCatalog:
        recipe = self.recipe
        before = self.previous.get(top)
        doctored = top in recipe.catalog_sql or top in recipe.catalog_bytes
        total = writer.counters + subtree
        writer.flush()
        if top and before and not doctored and before.fingerprint == writer.fingerprint:
            self.catalogs[top] = before
            return before
        revision = recipe.revision if not top else before.revision + 1 if before else 1
        properties: dict[str, str | bytes] = {"schema": writer.schema.stored_version}
        if writer.schema.revision is not None:
            properties["schema_revision"] = str(writer.schema.revision)
        properties |= {"root_prefix": top} if top else recipe.root_properties
        properties |= {"last_modified": str(recipe.timestamp_s), "revision": str(revision)}
        if before:
            properties["previous_revision"] = str(before.content_hash)
        writer.finish(properties, subtree, recipe.catalog_sql.get(top, ()))
        database = writer.file.read_bytes()
        if top in recipe.catalog_bytes:
            database = recipe.catalog_bytes[top](database)
        stored = self.objects.put(database, Kind.CATALOG, compression=recipe.catalog_compression)
        fingerprint = b"" if doctored else writer.fingerprint
        made = PublishedCatalog(top, stored.content_hash, len(database), revision, total, fingerprint)
        self.catalogs[top] = made
        return made


def _count_links(entries: Entries) -> int:
    """The link count of a directory: 2 and its subdirectories."""
    return 2 + sum(isinstance(node, Directory | BindMountpoint) for _, node in entries)
