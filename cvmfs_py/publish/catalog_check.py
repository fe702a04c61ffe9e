"""The check of one catalog: rows, counters, transitions, hard links, and the objects that its files need.

Describes problems in a report; changes nothing. Concurrency: one thread.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from catalog import flags as bits
from catalog.content import file_spans
from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.ref import ObjectRef
    from catalog.entry import Entry
    from catalog.reader import Catalog
    from catalog.transitions import Transition
    from cvmfs_py.publish.storage import Storage

_COUNTED = ("regular", "symlink", "special", "dir", "nested", "chunked", "chunks", "file_size", "chunked_size")
_COUNTED_LATER = ("xattr", "external", "external_file_size")  # by newer servers only, where there is something to count
_COMPARED = ("mode", "uid", "gid", "size", "mtime_s", "mtime_ns", "xattr_blob")


class Report(Protocol):
    """Where counts and problems go."""

    catalogs: int
    entries: int
    objects: int
    problems: list[str]


class Mounted(NamedTuple):
    """A catalog to be checked next, and the rows of its parent that lead there."""

    ref: ObjectRef
    transition: Transition | None = None  # None: a root catalog
    entry: Entry | None = None


class CatalogChecker:
    """Checks catalogs of one storage. `data`: reads every object too; `workdir` is for them."""

    def __init__(
        self, storage: Storage, workdir: str, report: Report, *, data: bool, advance: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._extracted = os.path.join(workdir, "extracted")
        self._report = report
        self._data = data
        self._advance = advance

    def check(self, catalog: Catalog, above: Entry | None) -> list[Mounted]:
        """One catalog, row by row; what is nested in it is given back with the rows that lead there."""
        self._report.catalogs += 1
        counts: Counter[str] = Counter()
        nested: dict[bytes, Entry] = {}
        groups: dict[int, list[tuple[bytes, Entry]]] = {}
        top = catalog.lookup(catalog.mountpoint)
        if top is None:
            self._problem(f"the catalog of {show_path(catalog.mountpoint)} has no row for its own directory")
            return []
        self._check_top(catalog, top, above)
        self._count(catalog, top, counts)
        rows = 1
        stack = [catalog.mountpoint]
        while stack:
            directory = stack.pop()
            for entry in catalog.by_name(directory):
                path = directory + b"/" + entry.name
                rows += 1
                self._advance()
                self._check_entry(catalog, entry, path)
                self._count(catalog, entry, counts)
                if entry.is_nested_mountpoint or entry.is_bind_mountpoint:
                    nested[path] = entry
                elif entry.is_directory:
                    stack.append(path)
                if entry.hardlink_group:
                    groups.setdefault(entry.hardlink_group, []).append((path, entry))
        self._report.entries += rows
        in_table = catalog.row_count()
        if in_table != rows:
            self._problem(f"{in_table - rows} rows in the catalog of {show_path(catalog.mountpoint)} are unreachable")
        for members in groups.values():
            self._check_group(members)
        self._check_counters(catalog, counts)
        return self._transitions(catalog, nested)

    def _check_top(self, catalog: Catalog, top: Entry, above: Entry | None) -> None:
        shown = show_path(catalog.mountpoint)
        if not top.is_directory:
            self._problem(f"the top of the catalog of {shown} is no directory")
        if above is None:
            return
        if not top.is_nested_root and not above.is_bind_mountpoint:
            self._problem(f"the top of the catalog of {shown} is not marked as such")
        if above.is_bind_mountpoint:
            return
        for name in ("mode", "uid", "gid", "size", "mtime_s", "mtime_ns", "xattr_blob"):
            if getattr(above, name) != getattr(top, name):
                self._problem(
                    f"the two rows of {shown} differ in {name}: {getattr(above, name)!r}, {getattr(top, name)!r}"
                )

    def _check_entry(self, catalog: Catalog, entry: Entry, path: bytes) -> None:
        shown = show_path(path)
        kind = stat.S_IFMT(entry.mode)
        flags = entry.flags
        if not catalog.schema.before_2_1:
            expected = {
                stat.S_IFDIR: bits.DIRECTORY,
                stat.S_IFLNK: bits.FILE | bits.SYMLINK,
                stat.S_IFREG: bits.FILE,
            }.get(kind, bits.FILE | bits.SPECIAL)
            if flags & (bits.DIRECTORY | bits.FILE | bits.SYMLINK | bits.SPECIAL) != expected:
                self._problem(f"{shown}: its flags {flags} do not fit its mode {entry.mode:o}")
            if flags & (bits.NESTED_MOUNTPOINT | bits.BIND_MOUNTPOINT) and kind != stat.S_IFDIR:
                self._problem(f"{shown} is marked as a mountpoint of a catalog and is no directory")
            if flags & (bits.CHUNKED | bits.EXTERNAL) and kind != stat.S_IFREG:
                self._problem(f"{shown} is marked as chunked or external and is no regular file")
        if entry.is_nested_root:
            self._problem(f"{shown} is marked as the top of a catalog inside of one")
        if bool(entry.symlink) != (kind == stat.S_IFLNK):
            self._problem(f"{shown}: only symbolic links have targets, and all of them have")
        if kind == stat.S_IFREG:
            self._check_file(catalog, entry, path)
        elif entry.digest:
            self._problem(f"{shown} is no regular file and has a hash")

    def _check_file(self, catalog: Catalog, entry: Entry, path: bytes) -> None:
        try:
            spans = file_spans(catalog, entry, path)
        except CatalogError as error:
            self._problem(str(error))
            return
        refs = [span.ref for span in spans]
        if not refs and entry.content_hash is not None and not entry.is_external:
            if not self._storage.has(entry.content_hash):  # an empty file has an object too
                self._problem(f"{show_path(path)}: its object {entry.content_hash} is missing")
            return
        for ref in refs:
            if ref.external is not None:
                continue
            self._report.objects += 1
            if not self._storage.has(ref.content_hash, ref.kind):
                self._problem(f"{ref}: its object {ref.content_hash}{ref.kind.value} is missing")
            elif self._data:
                self._check_data(ref)

    def _check_data(self, ref: ObjectRef) -> None:
        try:
            size_bytes = self._storage.extract(ref.content_hash, ref.kind, self._extracted, verbatim=ref.verbatim)
        except CvmfsError as error:
            self._problem(f"{ref}: {error}")
            return
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self._extracted)
        if ref.size_bytes is not None and size_bytes != ref.size_bytes:
            self._problem(f"{ref} has {size_bytes} bytes, but its catalog says {ref.size_bytes}")

    def _check_group(self, members: list[tuple[bytes, Entry]]) -> None:
        path, first = members[0]
        if any(entry.link_count != len(members) for _, entry in members):
            self._problem(
                f"{show_path(path)} says that it has {first.link_count} hard links, and {len(members)} are there"
            )
        if len({member.rpartition(b"/")[0] for member, _ in members}) > 1:
            self._problem(f"the hard links of {show_path(path)} are in more than one directory")
        if len({(entry.digest, entry.size, entry.mode, entry.uid, entry.gid) for _, entry in members}) > 1:
            self._problem(f"the hard links of {show_path(path)} differ")

    def _count(self, catalog: Catalog, entry: Entry, counts: Counter[str]) -> None:
        kind = stat.S_IFMT(entry.mode)
        counts["xattr"] += entry.xattr_blob is not None
        if kind == stat.S_IFDIR:
            counts["dir"] += 1
            counts["nested"] += entry.is_nested_mountpoint
        elif kind == stat.S_IFLNK:
            counts["symlink"] += 1
        elif kind == stat.S_IFREG:
            counts["regular"] += 1
            counts["file_size"] += entry.size
            if entry.is_chunked:
                counts["chunked"] += 1
                counts["chunked_size"] += entry.size
                counts["chunks"] += len(catalog.chunks(entry))
            if entry.is_external:
                counts["external"] += 1
                counts["external_file_size"] += entry.size
        else:
            counts["special"] += 1

    def _check_counters(self, catalog: Catalog, counts: Counter[str]) -> None:
        if catalog.schema.version < 2.45:
            return  # older servers counted less
        own = catalog.counters().own
        names = _COUNTED + tuple(name for name in _COUNTED_LATER if own[name])
        for name in names:
            if own[name] != counts[name]:
                shown = show_path(catalog.mountpoint)
                self._problem(f"the catalog of {shown} counts {own[name]} as {name}, but has {counts[name]}")

    def _transitions(self, catalog: Catalog, nested: dict[bytes, Entry]) -> list[Mounted]:
        found: list[Mounted] = []
        for transition in catalog.transitions.all():
            entry = nested.pop(transition.mountpoint, None)
            if entry is None:
                shown = show_path(transition.mountpoint)
                self._problem(f"a catalog is recorded for {shown}, which is no mountpoint of one")
            elif transition.ref is None:
                self._problem(f"the catalog of {show_path(transition.mountpoint)} is recorded without its hash")
            else:
                found.append(Mounted(transition.ref, transition, entry))
        for path in nested:
            self._problem(f"{show_path(path)} is marked as the mountpoint of a catalog, and none is recorded for it")
        return found

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)
