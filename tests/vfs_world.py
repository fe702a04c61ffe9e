"""Small repositories for tests of the file system core: a dictionary from path to item, and its catalogs as objects."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.tree import CatalogTree
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.snapshot import Snapshot
from tests.catalog_fixtures import CatalogMaker, Objects, Row, directory, regular, store_catalog, symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from cvmfs_py.vfs.files import Node, RepositoryFiles
    from cvmfs_py.vfs.inodes import Inode

HIDDEN = 0x8000
BIND = 0x4000
VIEW = View(uid=1000, gid=1000, link_variables={b"WHERE": b"there"})


@dataclass(frozen=True, slots=True)
class Item:
    """What is at a path. A `hard` one is another name of the first file in its directory; a `bind` leads elsewhere."""

    kind: str  # file, dir, nested, link, hard, hidden, bind
    version: int = 0
    target: bytes = b""
    bound: ObjectRef | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind in ("dir", "nested", "bind")


FILE, DIRECTORY, NESTED, HARD, HIDDEN_FILE = map(Item, ("file", "dir", "nested", "hard", "hidden"))


def link(target: bytes) -> Item:
    return Item("link", target=target)


@dataclass(frozen=True, slots=True)
class Home:
    """The catalog that has a row."""

    mountpoint: bytes
    content_hash: ContentHash


@dataclass(slots=True)
class Revision:
    """A published dictionary."""

    root_ref: ObjectRef
    items: dict[bytes, Item]
    homes: dict[bytes, Home]
    links: dict[bytes, tuple[bytes, list[bytes]]]  # the file that a path is a name of, and all its names
    rowids: dict[bytes, int]

    @property
    def catalogs(self) -> set[ContentHash]:
        return {self.root_ref.content_hash, *(home.content_hash for home in self.homes.values())}

    def first_name(self, path: bytes) -> bytes:
        """The name that stands for all hard links."""
        return self.links[path][1][0]

    def content(self, path: bytes) -> bytes:
        file = self.links[path][0]
        return content_of(file, self.items[file])

    def names_in(self, top: bytes, *, hidden: bool = False) -> set[bytes]:
        return {
            path.rpartition(b"/")[2]
            for path, item in self.items.items()
            if path and path.rpartition(b"/")[0] == top and (hidden or item.kind != "hidden")
        }


def mode_of(item: Item) -> int:
    kinds = {"link": stat.S_IFLNK | 0o777}
    return kinds.get(item.kind, stat.S_IFDIR | 0o755 if item.is_directory else stat.S_IFREG | 0o644)


def content_of(path: bytes, item: Item) -> bytes:
    return path + b" version %d" % item.version


def publish(
    objects: Objects, items: Mapping[bytes, Item], number: int = 1, *, properties: Mapping[str, Any] | None = None
) -> Revision:
    """Makes the catalogs. Those of unchanged subtrees are the same from revision to revision, and so is their hash."""
    items = {b"": DIRECTORY, **items}
    assert all(path.rpartition(b"/")[0] in items for path in items)
    links = {path: _links(items, path) for path in items}
    mountpoints = sorted((path for path, item in items.items() if item.kind == "nested"), key=len, reverse=True)
    refs: dict[bytes, ObjectRef] = {}
    homes: dict[bytes, Home] = {}
    rowids: dict[bytes, int] = {}
    for top in (*mountpoints, b""):
        mine = [path for path in items if path and _mountpoint_above(items, path) == top]
        maker = CatalogMaker(
            [directory(top, flags=33 if top else 1), *(_row(path, items[path], links[path], items) for path in mine)],
            root_prefix=top,
            nested=[(path, str(refs[path].content_hash), 0) for path in mine if items[path].kind == "nested"],
            binds=[(path, str(ref.content_hash), 0) for path in mine if (ref := items[path].bound) is not None],
            properties={} if top else {"revision": number, **(properties or {})},
        )
        refs[top] = store_catalog(objects, maker)
        homes.update((path, Home(top, refs[top].content_hash)) for path in mine)
        rowids.update((path, 2 + index) for index, path in enumerate(mine))
    return Revision(refs[b""], dict(items), homes, links, rowids)


def open_snapshot(revision: Revision, objects: Objects, *, attached_limit: int = 100) -> Snapshot:
    return open_root(revision.root_ref, objects, attached_limit=attached_limit)


def open_root(root_ref: ObjectRef, objects: Objects, *, attached_limit: int = 100, view: View = VIEW) -> Snapshot:
    tree = CatalogTree(root_ref, attached_limit=attached_limit)
    return Snapshot("test.example.org", tree, tree.root_properties(objects), view)


def list_all(files: RepositoryFiles, ino: Inode, objects: Objects, limit: int = 100) -> Iterator[Node]:
    """Every entry of a directory, as a kernel asks for it: an empty part is the end."""
    after: int | None = 0
    while after is not None:
        page = files.page(ino, after, limit, objects)
        assert len(page.nodes) <= limit
        if not page.nodes:
            assert page.next_rowid is None
        yield from page.nodes
        after = page.next_rowid


def look_up(files: RepositoryFiles, path: bytes, objects: Objects, *, remember: bool = True) -> Node:
    """Name by name, as a kernel does, which then refers to everything on the way."""
    node = files.node(files.root, objects)
    for name in path.split(b"/")[1:]:
        found = files.lookup(node.ino, name, objects)
        assert found is not None, path
        node = found
        if remember:
            files.inodes.remember(node.ino)
    return node


def _mountpoint_above(items: Mapping[bytes, Item], path: bytes) -> bytes:
    while path:
        path = path.rpartition(b"/")[0]
        if items[path].kind == "nested":
            return path
    return b""


def _siblings(items: Iterable[bytes], path: bytes) -> list[bytes]:
    top = path.rpartition(b"/")[0]
    return [each for each in items if each and each.rpartition(b"/")[0] == top]


def _links(items: Mapping[bytes, Item], path: bytes) -> tuple[bytes, list[bytes]]:
    """The file that a path is a name of, and all its names in the order of their rows."""
    if items[path].kind not in ("file", "hard"):
        return path, [path]
    near = _siblings(items, path)
    file = next((each for each in near if items[each].kind == "file"), None)
    if file is None or (items[path].kind == "file" and path != file):
        return path, [path]
    return file, [each for each in near if each == file or items[each].kind == "hard"]


def _row(path: bytes, item: Item, links: tuple[bytes, list[bytes]], items: Mapping[bytes, Item]) -> Row:
    if item.kind == "link":
        return symlink(path, item.target)
    if item.is_directory:
        return directory(path, flags={"dir": 1, "nested": 3, "bind": 1 | BIND}[item.kind])
    file, names = links
    group = int.from_bytes(hashlib.sha1(file, usedforsecurity=False).digest()[:3], "big") if len(names) > 1 else 0
    flags = 4 | (HIDDEN if item.kind == "hidden" else 0)
    return regular(path, content_of(file, items[file]), hardlinks=group << 32 | len(names), flags=flags)
