"""The check of one catalog: rows, counters, transitions, hard links, and the objects that its files need.

Describes problems in a report; changes nothing. Concurrency: one thread.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache.address import hash_bytes
from catalog.content import file_spans
from catalog.errors import CatalogError, show_path
from cvmfs_py.errors import CvmfsError
from cvmfs_py.numerals import counted
from cvmfs_py.publish.counter_check import OwnCounts, SubtreeCounts
from cvmfs_py.publish.entry_check import entry_problems
from cvmfs_py.publish.tree import MARKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.ref import ObjectRef
    from catalog.entry import Entry
    from catalog.reader import Catalog
    from catalog.transitions import Transition
    from cvmfs_py.publish.storage import Storage

# Of the two rows of a mountpoint, and of the members of a hard-link group.
_SAME_AT_TOP = ("mode", "uid", "gid", "size", "mtime_s", "mtime_ns", "hardlinks", "digest", "symlink", "xattr_blob")
_SAME_IN_GROUP = ("mode", "uid", "gid", "size", "mtime_s", "mtime_ns", "flags", "digest", "symlink", "xattr_blob")


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
    siblings: SubtreeCounts | None = None  # of the parent, whose counters are to include this one's

    @property
    def is_bind(self) -> bool:
        return self.transition is not None and self.transition.is_bind

    @property
    def mountpoint(self) -> bytes:
        return b"" if self.transition is None or self.transition.is_bind else self.transition.mountpoint


@dataclass(slots=True)
class _Directory:
    """A directory of a catalog while what is right below it is looked at."""

    path: bytes
    entry: Entry
    subdirectories: int = 0
    has_marker: bool = False


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
        counts = OwnCounts()
        nested: dict[bytes, Entry] = {}
        groups: dict[int, list[tuple[bytes, Entry]]] = {}
        top = catalog.lookup(catalog.mountpoint)
        if top is None:
            self._problem(f"the catalog of {show_path(catalog.mountpoint)} has no row for its own directory")
            return []
        self._check_top(catalog, top, above)
        counts.add(catalog, top)
        rows = 1
        stack = [(catalog.mountpoint, top)]
        while stack:
            directory = _Directory(*stack.pop())
            for entry in catalog.by_name(directory.path):
                path = directory.path + b"/" + entry.name
                rows += 1
                self._advance()
                self._check_entry(catalog, entry, path)
                counts.add(catalog, entry)
                directory.subdirectories += entry.is_directory
                directory.has_marker |= entry.name == MARKER
                if entry.is_nested_mountpoint or entry.is_bind_mountpoint:
                    nested[path] = entry
                elif entry.is_directory:
                    stack.append((path, entry))
                if entry.hardlink_group:
                    groups.setdefault(entry.hardlink_group, []).append((path, entry))
            if not catalog.schema.before_2_1:
                self._check_directory(catalog, directory)
        self._report.entries += rows
        in_table = catalog.row_count()
        if in_table != rows:
            lost, verb = counted(in_table - rows, "row"), "is" if in_table - rows == 1 else "are"
            self._problem(f"{lost} in the catalog of {show_path(catalog.mountpoint)} {verb} unreachable")
        for members in groups.values():
            self._check_group(members)
        self._report.problems += counts.problems(catalog)
        return self._transitions(catalog, nested)

    def _check_top(self, catalog: Catalog, top: Entry, above: Entry | None) -> None:
        shown = show_path(catalog.mountpoint)
        if not top.is_directory:
            self._problem(f"the top of the catalog of {shown} is no directory")
        if catalog.root_prefix != catalog.mountpoint:
            self._problem(f"the catalog of {shown} was made for {show_path(catalog.root_prefix)}")
        if above is None or above.is_bind_mountpoint:
            if top.is_nested_root:
                self._problem("the top of the root catalog is marked as that of a nested one")
            return
        if not top.is_nested_root:
            self._problem(f"the top of the catalog of {shown} is not marked as such")
        for name in _SAME_AT_TOP:
            if getattr(above, name) != getattr(top, name):
                self._problem(
                    f"the two rows of {shown} differ in {name}: {getattr(above, name)!r}, {getattr(top, name)!r}"
                )

    def _check_directory(self, catalog: Catalog, directory: _Directory) -> None:
        shown = show_path(directory.path)
        links = directory.subdirectories + 2
        if directory.entry.link_count != links:
            self._problem(f"{shown} says that it has {counted(directory.entry.link_count, 'link')}, and has {links}")
        if directory.path == catalog.mountpoint:
            if directory.path and not directory.has_marker:
                self._problem(f"the nested catalog of {shown} has no {MARKER.decode()}")
        elif directory.has_marker:
            self._problem(f"{shown} has a {MARKER.decode()}, and no nested catalog")

    def _check_entry(self, catalog: Catalog, entry: Entry, path: bytes) -> None:
        for problem in entry_problems(entry, before_2_1=catalog.schema.before_2_1):
            self._problem(f"{show_path(path)} {problem}")
        if entry.is_regular:
            self._check_file(catalog, entry, path)

    def _check_file(self, catalog: Catalog, entry: Entry, path: bytes) -> None:
        try:
            spans = file_spans(catalog, entry, path)
        except CatalogError as error:
            self._problem(str(error))
            return
        refs = [span.ref for span in spans]
        if not refs and entry.content_hash is not None and not entry.is_external:
            # An empty file has an object too; but markers that the reference server makes by itself name nothing.
            is_nothing = entry.content_hash == hash_bytes(entry.algorithm, b"")
            if not is_nothing and not self._storage.has(entry.content_hash):
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
            self._problem(f"{ref} has {counted(size_bytes, 'byte')}, but its catalog says {ref.size_bytes:,}")

    def _check_group(self, members: list[tuple[bytes, Entry]]) -> None:
        path, first = members[0]
        if any(entry.link_count != len(members) for _, entry in members):
            said = counted(first.link_count, "hard link")
            there = "1 is" if len(members) == 1 else f"{len(members)} are"
            self._problem(f"{show_path(path)} says that it has {said}, and {there} there")
        if len({member.rpartition(b"/")[0] for member, _ in members}) > 1:
            self._problem(f"the hard links of {show_path(path)} are in more than one directory")
        differing = [name for name in _SAME_IN_GROUP if len({getattr(entry, name) for _, entry in members}) > 1]
        if differing:
            self._problem(f"the hard links of {show_path(path)} differ in {', '.join(differing)}")

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
        # Other revisions that are shown below a bind mountpoint do not count.
        siblings = SubtreeCounts(catalog, sum(not mounted.is_bind for mounted in found))
        self._report.problems += siblings.problems()  # when there are none
        for path in nested:
            self._problem(f"{show_path(path)} is marked as the mountpoint of a catalog, and none is recorded for it")
        return [mounted if mounted.is_bind else mounted._replace(siblings=siblings) for mounted in found]

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)
