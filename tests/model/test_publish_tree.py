"""A writable tree against a dictionary: any changes, any commits; then the catalogs say what the dictionary says."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cache.address import Algorithm, ContentHash
from catalog.entry import Chunk
from catalog.transitions import catalog_ref
from catalog.tree import CatalogTree
from catalog.xattrs import pack_xattr_blob
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.settings import COMPRESSION_CODES, RepositorySettings
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.tree import WritableTree
from tests.catalog_fixtures import Objects
from tests.model.tree_model import Node, Refused, TreeModel
from tests.simulator.reading import CatalogContent, assert_counters_consistent, read_catalogs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.ref import ObjectRef
    from catalog.entry import Entry

REPOSITORY = RepositorySettings(fqrn="model.test.org")
ALGORITHMS = (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)
ALGORITHM_BITS = {algorithm: number << 8 for number, algorithm in enumerate(ALGORITHMS)}
SPECIAL_KINDS = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
XATTRS: tuple[dict[bytes, bytes], ...] = ({}, {}, {b"user.b": b"\0\xff", b"user.a": b""})

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b".cvmfscatalog"])
INDICES = st.integers(0, 1000)
ATTRIBUTES = st.builds(
    lambda number, xattrs: Attributes(
        mode=(0o755, 0o4711, 0)[number],
        uid=number * 1000,
        gid=number,
        mtime_s=(0, -5, 1 << 33)[number],
        mtime_ns=number * 499_999_999,
        xattrs=xattrs,
    ),
    st.integers(0, 2),
    st.sampled_from(XATTRS),
)


@dataclass(frozen=True)
class Content:
    """What the row of a regular file says; there are no objects behind it."""

    size_bytes: int
    content_hash: ContentHash | None
    chunks: tuple[Chunk, ...]
    compression: str
    is_external: bool
    is_direct_io: bool

    @property
    def flags(self) -> int:
        some = self.content_hash or self.chunks[0].content_hash
        flags = 4 | ALGORITHM_BITS[some.algorithm] | COMPRESSION_CODES[self.compression] << 11
        return flags | 64 * bool(self.chunks) | 128 * self.is_external | 0x10000 * self.is_direct_io


def make_content(number: int) -> Content:
    algorithm = ALGORITHMS[number % 3]

    def address(part: int) -> ContentHash:
        return ContentHash(algorithm, hashlib.sha1(b"%d %d" % (number, part)).digest())

    sizes = range(1, number % 4 + 1) if number % 4 > 1 else ()
    chunks = tuple(Chunk(sum(range(size)), size, address(size)) for size in sizes)
    return Content(
        size_bytes=sum(sizes) if chunks else number,
        content_hash=None if chunks and number % 5 else address(0),
        chunks=chunks,
        compression=("zlib", "none", "zstd")[number % 7 % 3],
        is_external=number % 11 == 3,
        is_direct_io=number % 13 == 5,
    )


CONTENTS = st.integers(0, 40).map(make_content)


class StoredObjects(Objects):
    """Opens the objects of a storage."""

    def __init__(self, directory: Path, storage: Storage) -> None:
        super().__init__(directory)
        self.storage = storage

    def fetch(self, ref: ObjectRef) -> bool:
        self.storage.extract(ref.content_hash, ref.kind, self.directory / str(ref.content_hash))
        return True


class TreeMachine(RuleBasedStateMachine):
    """Does everything to a tree and to its model."""

    @initialize(open_limit=st.sampled_from([2, 3, 8]))
    def begin(self, open_limit: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cvmfs-py-model-"))
        self.workdir = self.directory / "work"
        self.workdir.mkdir()
        self.storage = Storage(self.directory / "server")
        self.objects = StoredObjects(self.directory / "objects", self.storage)
        self.open_limit = open_limit
        self.tree = WritableTree(self.storage, REPOSITORY, None, self.workdir, open_limit=open_limit)
        self.model = TreeModel(Node("directory", Attributes(mode=0o755)))
        self.touched: set[bytes] = set()
        self.revision = 0
        self.root_hash: ContentHash | None = None
        self.catalogs: dict[bytes, CatalogContent] = {}
        for path in (b"/a", b"/a/b", b"/a/b/c", b"/b"):  # so that there is something to nest
            self.put_directory_at(path, Attributes(mode=0o700))

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            try:
                self.commit()
                self.check_reading()
                assert self.objects.open_count == 0
            finally:
                self.tree.close()
                assert not list(self.workdir.iterdir())
                shutil.rmtree(self.directory)

    # --- changes

    @rule(parent=INDICES, name=NAMES, attributes=ATTRIBUTES)
    def put_directory(self, parent: int, name: bytes, attributes: Attributes) -> None:
        self.put_directory_at(self.pick_directory(parent) + b"/" + name, attributes)

    @rule(attributes=ATTRIBUTES)
    def set_root(self, attributes: Attributes) -> None:
        self.do(lambda: self.tree.put_directory(b"", attributes), lambda: self.set_root_node(attributes), b"")

    @rule(
        parent=INDICES,
        name=NAMES,
        attributes=ATTRIBUTES,
        content=CONTENTS,
        others=st.lists(NAMES, max_size=3),
        foreign=st.none() | INDICES,
    )
    def put_file(
        self,
        parent: int,
        name: bytes,
        attributes: Attributes,
        content: Content,
        others: list[bytes],
        foreign: int | None,
    ) -> None:
        directory = self.pick_directory(parent)
        path = directory + b"/" + name
        paths = tuple(directory + b"/" + other for other in others)
        if foreign is not None and (elsewhere := self.pick_directory(foreign)) != directory:
            paths += (elsewhere + b"/link",)
        self.do(
            lambda: self.tree.put_file(
                path,
                attributes,
                content,
                compression=content.compression,
                is_external=content.is_external,
                is_direct_io=content.is_direct_io,
                other_names=paths,
            ),
            lambda: self.model.put(path, Node("file", attributes, content), paths),
            path,
            *paths,
        )

    @rule(parent=INDICES, name=NAMES, attributes=ATTRIBUTES, points_to=st.sampled_from([b"x", b"/\xff/$(A)"]))
    def put_symlink(self, parent: int, name: bytes, attributes: Attributes, points_to: bytes) -> None:
        path = self.pick_directory(parent) + b"/" + name
        node = Node("symlink", attributes, points_to)
        self.do(lambda: self.tree.put_symlink(path, attributes, points_to), lambda: self.model.put(path, node), path)

    @rule(
        parent=INDICES, name=NAMES, attributes=ATTRIBUTES, kind=st.sampled_from(SPECIAL_KINDS), others=st.lists(NAMES)
    )
    def put_special(self, parent: int, name: bytes, attributes: Attributes, kind: int, others: list[bytes]) -> None:
        directory = self.pick_directory(parent)
        path = directory + b"/" + name
        paths = tuple(directory + b"/" + other for other in others[:2])
        device = 0x503 if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        self.do(
            lambda: self.tree.put_special(path, attributes, kind, device, other_names=paths),
            lambda: self.model.put(path, Node("special", attributes, (kind, device)), paths),
            path,
            *paths,
        )

    @rule(index=INDICES, others=st.lists(NAMES, min_size=1, max_size=3), foreign=st.none() | INDICES)
    def hard_link(self, index: int, others: list[bytes], foreign: int | None) -> None:
        path = self.pick(index)
        directory = path.rpartition(b"/")[0]
        paths = tuple(directory + b"/" + other for other in others)
        if foreign is not None and (elsewhere := self.pick_directory(foreign)) != directory:
            paths += (elsewhere + b"/copy",)
        if path:
            self.do(lambda: self.tree.hard_link([path, *paths]), lambda: self.model.link(path, paths), path, *paths)

    @rule(index=INDICES, attributes=ATTRIBUTES)
    def set_attributes(self, index: int, attributes: Attributes) -> None:
        path = self.pick(index)
        members = self.model.members(path)
        change = lambda: self.model.set_attributes(path, attributes)  # noqa: E731
        self.do(lambda: self.tree.set_attributes(path, attributes), change, *members)

    @rule(index=INDICES)
    def remove(self, index: int) -> None:
        path = self.pick(index)
        self.do(lambda: self.tree.remove(path), lambda: self.model.remove(path), path)

    @rule(index=INDICES)
    def make_nested(self, index: int) -> None:
        path = self.pick_directory(index)
        self.do(lambda: self.tree.make_nested(path), lambda: self.model.make_nested(path), path)

    @rule(index=INDICES)
    def merge_nested(self, index: int) -> None:
        path = self.pick_directory(index)
        self.do(lambda: self.tree.merge_nested(path), lambda: self.model.merge_nested(path), path)

    # --- what must be so

    @rule(force=st.booleans())
    def commit(self, force: bool = False) -> None:
        self.revision += 1
        before, was_changed = self.catalogs, self.tree.is_changed
        assert was_changed is bool(self.touched or self.root_hash is None)
        stored = set(self.storage.objects())
        root_hash, size_bytes = self.tree.commit(self.revision, 1_700_000_000 + self.revision, force=force)
        assert not self.tree.is_changed
        if not (was_changed or force):
            assert root_hash == self.root_hash
            assert set(self.storage.objects()) == stored
            return
        catalogs = read_catalogs(self.storage.directory, str(root_hash))
        assert catalogs[b""].size_bytes == size_bytes
        self.check_catalogs(catalogs)
        self.check_properties(before, catalogs)
        assert_counters_consistent(catalogs)
        self.root_hash, self.catalogs = root_hash, catalogs
        self.touched.clear()

    @rule()
    def reopen(self) -> None:
        self.commit()
        self.tree.close()
        self.tree = WritableTree(self.storage, REPOSITORY, self.root_hash, self.workdir, open_limit=self.open_limit)
        assert not self.tree.is_changed

    @rule()
    def look(self) -> None:
        """The tree tells its changes before they are committed."""
        for path, node in self.model.nodes.items():
            entry = self.tree.lookup(path)
            assert entry is not None
            assert_entry(node, entry, self.tree.chunks(path))
            assert self.tree.is_nested(path) is (path in self.model.nested)
            if node.kind != "directory":
                members = self.tree.link_group(path)
                assert set(members) == set(self.model.members(path)), path
        for directory in self.model.directories():
            names = sorted(path[len(directory) + 1 :] for path in self.children(directory))
            assert [entry.name for entry in self.tree.listing(directory)] == names

    def check_catalogs(self, catalogs: dict[bytes, CatalogContent]) -> None:
        assert set(catalogs) == {b"", *self.model.nested}
        for mountpoint, catalog in catalogs.items():
            tops = [top for top in self.model.nested if top.startswith(mountpoint + b"/")]
            inner = {path for top in tops for path in self.model.below(top)}
            inside = {mountpoint, *self.model.below(mountpoint)} - inner
            assert set(catalog.rows) == inside
            numbers: dict[int, set[bytes]] = {}
            for path, row in catalog.rows.items():
                node = self.model.nodes[path]
                flags = expected_flags(node)
                if node.kind == "directory":
                    flags |= 32 * (path == mountpoint and path != b"") or 2 * (path in self.model.nested)
                    links = 2 + sum(self.model.nodes[one].kind == "directory" for one in self.children(path))
                    assert row["hardlinks"] == links, path
                else:
                    members = self.model.members(path)
                    assert row["hardlinks"] & 0xFFFFFFFF == len(members), path
                    group = row["hardlinks"] >> 32
                    assert bool(group) is (len(members) > 1), path
                    if group:
                        numbers.setdefault(group, set()).add(path)
                assert row["flags"] == flags, path
                assert row["name"] == path.rpartition(b"/")[2]
                assert_columns(node, row.columns)
                found = [(offset, size, digest) for offset, size, digest in row.chunks]
                content = node.content
                chunks = content.chunks if isinstance(content, Content) else ()
                assert found == [(one.offset, one.size, one.content_hash.digest) for one in chunks]
            assert all(members == set(self.model.members(min(members))) for members in numbers.values())
            assert catalog.rows[b""]["rowid"] == 1 if not mountpoint else True

    def check_properties(self, before: dict[bytes, CatalogContent], after: dict[bytes, CatalogContent]) -> None:
        for mountpoint, catalog in after.items():
            old = before.get(mountpoint)
            properties = catalog.properties
            assert properties.get("root_prefix", b"") == mountpoint
            assert (properties["schema"], properties["schema_revision"]) == (b"2.5", b"7")
            if not mountpoint:
                assert int(properties["revision"]) == self.revision
                assert properties["TTL"] == b"240"
            elif old and not any(path == mountpoint or path.startswith(mountpoint + b"/") for path in self.touched):
                assert old.content_hash == catalog.content_hash, mountpoint
            elif old and old.content_hash == catalog.content_hash:
                pass  # a change named a path in it and found it as it is to be; `check_catalogs` saw that it is
            elif old and properties["previous_revision"].decode() == old.content_hash:
                assert int(properties["revision"]) == int(old.properties["revision"]) + 1
            else:
                assert (properties["revision"], properties["previous_revision"]) == (b"1", b"0" * 40)

    def check_reading(self) -> None:
        """Through the reader of the client."""
        assert self.root_hash is not None
        tree = CatalogTree(catalog_ref(self.root_hash, None, "root"))
        seen = set()
        pending = [b""]
        while pending:
            path = pending.pop()
            located = tree.lookup(path, self.objects)
            assert located is not None
            node = self.model.nodes[path]
            chunks = located.catalog.chunks(located.entry) if located.entry.is_chunked else ()
            assert_entry(node, located.entry, chunks)
            seen.add(path)
            if node.kind == "directory":
                view = tree.open_directory(path, self.objects)
                assert view is not None
                pending += [below.path for below in view.by_name(hidden=True)]
        assert seen == set(self.model.nodes)
        tree.close()

    # --- how

    def pick(self, index: int) -> bytes:
        paths = sorted(self.model.nodes)
        return paths[index % len(paths)]

    def pick_directory(self, index: int) -> bytes:
        paths = self.model.directories()
        return paths[index % len(paths)]

    def children(self, directory: bytes) -> list[bytes]:
        return [path for path in self.model.below(directory) if path.rpartition(b"/")[0] == directory]

    def put_directory_at(self, path: bytes, attributes: Attributes) -> None:
        node = Node("directory", attributes)
        self.do(lambda: self.tree.put_directory(path, attributes), lambda: self.model.put(path, node), path)

    def set_root_node(self, attributes: Attributes) -> None:
        self.model.set_attributes(b"", attributes)

    def do(self, to_tree: Callable[[], bool], to_model: Callable[[], None], *paths: bytes) -> None:
        before = self.model.state()
        directories = {path for path in paths if self.model.nodes.get(path, Node("none", None)).kind == "directory"}
        refused = False
        try:
            to_model()
        except Refused:
            refused = True
        try:
            changed = to_tree()
            assert not refused
        except PublishError:
            assert refused
            changed = self.model.state() != before
        assert changed or self.model.state() == before
        if changed:
            self.touched.update(paths)
        elif not directories:
            assert self.model.state() == before


def expected_flags(node: Node) -> int:
    if isinstance(node.content, Content):
        return node.content.flags
    return {"directory": 1, "symlink": 12, "special": 20}[node.kind]


def assert_columns(node: Node, row: dict[str, object]) -> None:
    """What a row says of an entry, however it is linked."""
    attributes, content = node.attributes, node.content
    assert isinstance(attributes, Attributes)
    kinds = {"directory": stat.S_IFDIR, "file": stat.S_IFREG, "symlink": stat.S_IFLNK}
    size, kind, target, digest = 4096, kinds.get(node.kind, 0), b"", None
    if isinstance(content, Content):
        size, digest = content.size_bytes, content.content_hash and content.content_hash.digest
    elif isinstance(content, bytes):
        size, target = len(content), content
    elif isinstance(content, tuple):
        kind, size = content
    assert (row["mode"], row["size"], row["symlink"], row["hash"]) == (kind | attributes.mode, size, target, digest)
    assert (row["uid"], row["gid"]) == (attributes.uid, attributes.gid)
    assert (row["mtime"], row["mtimens"]) == (attributes.mtime_s, attributes.mtime_ns)
    assert row["xattr"] == pack_xattr_blob(attributes.xattrs).blob


def assert_entry(node: Node, entry: Entry, chunks: tuple[Chunk, ...]) -> None:
    columns = {
        "mode": entry.mode,
        "size": entry.size,
        "symlink": entry.symlink,
        "hash": entry.digest,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime_s,
        "mtimens": entry.mtime_ns,
        "xattr": entry.xattr_blob,
    }
    assert_columns(node, columns)
    assert chunks == (node.content.chunks if isinstance(node.content, Content) else ())


TestTree = TreeMachine.TestCase
TestTree.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
