"""A repository's tree as a plain dictionary: what a writable tree must be equal to after any changes.

Knows neither catalogs nor files. Paths are bytes; an operation that is refused raises Refused and may be half done.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

MARKER = b".cvmfscatalog"


class Refused(Exception):
    """There is nothing to do this to."""


@dataclass(frozen=True)
class Node:
    """An entry: `kind` is its S_IFMT, `attributes` and `content` are compared only."""

    kind: str
    attributes: object
    content: object = None


class TreeModel:
    """Nodes by path, the hard-link group of each, the tops of nested catalogs."""

    def __init__(self, root: Node) -> None:
        self.nodes: dict[bytes, Node] = {b"": root}
        self.groups: dict[bytes, int] = {}
        self.nested: set[bytes] = set()
        self._numbers = itertools.count(1)

    def state(self) -> object:
        """Equal for equal trees, whatever the numbers of the groups."""
        links = {frozenset(self.members(path)) for path in self.groups}
        return dict(self.nodes), {one for one in links if len(one) > 1}, set(self.nested)

    def members(self, path: bytes) -> list[bytes]:
        """All names of a file."""
        group = self.groups.get(path)
        return [path] if group is None else sorted(other for other, one in self.groups.items() if one == group)

    def below(self, path: bytes) -> list[bytes]:
        return [other for other in self.nodes if other.startswith(path + b"/")]

    def directories(self) -> list[bytes]:
        return sorted(path for path, node in self.nodes.items() if node.kind == "directory")

    def put(self, path: bytes, node: Node, others: tuple[bytes, ...] = ()) -> None:
        directory = path.rpartition(b"/")[0]
        here = list(dict.fromkeys([path, *(other for other in others if other.rpartition(b"/")[0] == directory)]))
        self._put_group(here, node)
        for other in dict.fromkeys(others):
            if other not in here:
                self._put_group([other], node)

    def link(self, first: bytes, others: tuple[bytes, ...]) -> None:
        node = self.nodes.get(first)
        if node is None or node.kind == "directory":
            raise Refused
        directory = first.rpartition(b"/")[0]
        here = [other for other in dict.fromkeys(others) if other.rpartition(b"/")[0] == directory and other != first]
        if here:
            group = self.groups.setdefault(first, next(self._numbers))
            for other in here:
                self._put_one(other, node)
                self.groups[other] = group
            self._follow_markers([first, *here])
        for other in dict.fromkeys(others):
            if other.rpartition(b"/")[0] != directory:
                self._put_group([other], node)

    def set_attributes(self, path: bytes, attributes: object) -> None:
        if path not in self.nodes:
            raise Refused
        for member in self.members(path):
            self.nodes[member] = dataclasses.replace(self.nodes[member], attributes=attributes)

    def remove(self, path: bytes) -> None:
        if not path:
            raise Refused
        if path in self.nodes:
            self._remove_contents(path)
            del self.nodes[path]
            self.groups.pop(path, None)
            self._follow_markers([path])

    def make_nested(self, path: bytes) -> None:
        if self.nodes.get(path, Node("none", None)).kind != "directory" and path:
            raise Refused
        if path:
            self.nested.add(path)

    def merge_nested(self, path: bytes) -> None:
        self.nested.discard(path)

    def _put_group(self, paths: list[bytes], node: Node) -> None:
        directory = paths[0].rpartition(b"/")[0]
        if self.nodes.get(directory, Node("none", None)).kind != "directory":
            raise Refused
        group = next(self._numbers)
        for path in paths:
            self._put_one(path, node)
            if len(paths) > 1:
                self.groups[path] = group
        self._follow_markers(paths)

    def _put_one(self, path: bytes, node: Node) -> None:
        if node.kind != "directory":
            self._remove_contents(path)
        self.nodes[path] = node
        self.groups.pop(path, None)

    def _remove_contents(self, path: bytes) -> None:
        for other in self.below(path):
            del self.nodes[other]
            self.groups.pop(other, None)
            self.nested.discard(other)
        self.nested.discard(path)

    def _follow_markers(self, paths: list[bytes]) -> None:
        for path in paths:
            directory, _, name = path.rpartition(b"/")
            if name != MARKER:
                continue
            if path in self.nodes and self.nodes[path].kind == "file":
                self.make_nested(directory)
            else:
                self.merge_nested(directory)
