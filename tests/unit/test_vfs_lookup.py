"""Paths and links: what a program would find, compared with the kernel's own idea of the same tree on a local disk."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.address import Kind
from cache.memory import MemoryStore
from cache.ref import ObjectRef
from catalog.tree import CatalogTree
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.lookup import LINK_LIMIT, find, resolve
from tests.flow.driver_world import DirectFetcher
from tests.simulator.reading import find_all_objects
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Node, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

FQRN = "test.example.org"
ROOT = b"/cvmfs/test.example.org"
VIEW = View(0, 0, link_variables={b"SET": b"d", b"EMPTY": b""})


class Snapshot:
    """A published tree, all local."""

    def __init__(self, tree: CatalogTree, store: MemoryStore, roots: tuple[bytes, ...]) -> None:
        self.tree = tree
        self.store = store
        self.roots = roots

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        located = resolve(self.tree, path, VIEW, self.roots, self.store.open, follow_last=follow_last)
        again = self.tree.lookup(located.path, self.store.open)
        assert again is not None
        assert again.entry == located.entry
        return located.path

    def error(self, path: bytes, *, follow_last: bool = True) -> str:
        with pytest.raises(FsError) as caught:
            self.resolve(path, follow_last=follow_last)
        assert str(caught.value)
        return errno.errorcode[caught.value.errno]


@contextmanager
def published(directory: Path, tree: Directory, *roots: bytes) -> Iterator[Snapshot]:
    repository = Repository.create(directory, FQRN, history_revision=None, metainfo=None, reflog=False)
    head = repository.publish(tree)
    with MemoryStore() as store:
        DirectFetcher(store, repository.server_root).fill(find_all_objects(repository.server_root, head.root_hash))
        catalogs = CatalogTree(ObjectRef(head.root_hash, Kind.CATALOG))
        try:
            yield Snapshot(catalogs, store, roots or (ROOT,))
        finally:
            catalogs.close()


def chain(count: int) -> dict[str, Node]:
    return {f"l{number}": Symlink(f"l{number + 1}") for number in range(count - 1)} | {f"l{count - 1}": Symlink("file")}


TREE = Directory(
    {
        "file": File(b"x"),
        "d": Directory(
            {"e": Directory({"leaf": File(b"y"), "up": Symlink("../../file")}, nested=True), "x": File(b"")}
        ),
        "rel": Symlink("d/e"),
        "slash": Symlink("d/e/"),
        "dotty": Symlink("./d//./e/."),
        "inside": Symlink("/cvmfs/test.example.org/d/e"),
        "root": Symlink("/cvmfs/test.example.org"),
        "detour": Symlink("//cvmfs/./test.example.org/../test.example.org/d"),
        "prefix": Symlink("/cvmfs/test.example.organised/d"),
        "etc": Symlink("/etc/passwd"),
        "cvmfs": Symlink("/cvmfs"),
        "sibling": Symlink("../other.example.org/d"),
        "back": Symlink("d/../../test.example.org/d"),
        "far back": Symlink("../../cvmfs/test.example.org/file"),
        "dangling": Symlink("d/nothing/x"),
        "self": Symlink("self"),
        "ring": Directory({"a": Symlink("b"), "b": Symlink("../ring/a")}),
        "to file": Symlink("file"),
        "file slash": Symlink("file/"),
        "variant": Symlink("$(SET)/e/leaf"),
        "default": Symlink("$(UNSET:-d)/x"),
        "nowhere": Symlink("$(UNSET)"),
        "empty": Symlink("$(EMPTY:-d)"),
        "long": Symlink("d/" + "./" * 2046 + "x"),
        "too long": Symlink("d/" + "./" * 2047 + "x"),
        "chain": Directory(chain(LINK_LIMIT) | {"file": File(b"z"), "more": Symlink("l0")}),
        b"caf\xe9": Symlink(b"d/e/leaf"),
    }
)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    with published(tmp_path_factory.mktemp("lookup"), TREE) as snapshot:
        yield snapshot


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"", b""),
        (b"/file", b"/file"),
        (b"/d/e/leaf", b"/d/e/leaf"),
        (b"/rel", b"/d/e"),
        (b"/rel/leaf", b"/d/e/leaf"),
        (b"/slash/leaf", b"/d/e/leaf"),
        (b"/dotty", b"/d/e"),
        (b"/inside/up", b"/file"),
        (b"/root/rel/up", b"/file"),
        (b"/root", b""),
        (b"/detour/x", b"/d/x"),
        (b"/back/x", b"/d/x"),
        (b"/far back", b"/file"),
        (b"/variant", b"/d/e/leaf"),
        (b"/default", b"/d/x"),
        (b"/long", b"/d/x"),
        (b"/chain/l0", b"/chain/file"),
        (b"/caf\xe9", b"/d/e/leaf"),
        (b"/d/../file", b"/file"),
        (b"/rel/..", b"/d"),  # the parent of where the link leads
        (b"/rel/../x", b"/d/x"),
        (b"/../test.example.org/file", b"/file"),
        (b"/rel/", b"/d/e"),
        (b"/rel/.", b"/d/e"),
    ],
)
def test_what_is_found(snapshot: Snapshot, path: bytes, found: bytes) -> None:
    assert snapshot.resolve(path) == found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/no", "ENOENT"),
        (b"/no/x", "ENOENT"),
        (b"/d/no", "ENOENT"),
        (b"/d/e/no", "ENOENT"),
        (b"/dangling", "ENOENT"),
        (b"/dangling/x", "ENOENT"),
        (b"/nowhere", "ENOENT"),
        (b"/nowhere/file", "ENOENT"),
        (b"/empty", "ENOENT"),
        (b"/file/x", "ENOTDIR"),
        (b"/file/..", "ENOTDIR"),
        (b"/file/", "ENOTDIR"),
        (b"/file/.", "ENOTDIR"),
        (b"/to file/x", "ENOTDIR"),
        (b"/to file/", "ENOTDIR"),
        (b"/file slash", "ENOTDIR"),
        (b"/d/e/leaf/x/y", "ENOTDIR"),
        (b"/self", "ELOOP"),
        (b"/self/x", "ELOOP"),
        (b"/ring/a", "ELOOP"),
        (b"/chain/more", "ELOOP"),
        (b"/too long", "ENAMETOOLONG"),
        (b"/etc", "EXDEV"),
        (b"/etc/x", "EXDEV"),
        (b"/cvmfs", "EXDEV"),
        (b"/sibling", "EXDEV"),
        (b"/prefix", "EXDEV"),
        (b"/..", "EXDEV"),
        (b"/../..", "EXDEV"),
        (b"/d/../../../cvmfs/x", "EXDEV"),
    ],
)
def test_what_is_not(snapshot: Snapshot, path: bytes, name: str) -> None:
    assert snapshot.error(path) == name


@pytest.mark.parametrize("name", ["rel", "self", "dangling", "etc", "nowhere", "inside", "too long"])
def test_a_link_itself(snapshot: Snapshot, name: str) -> None:
    path = b"/" + name.encode()
    assert snapshot.resolve(path, follow_last=False) == path


def test_links_on_the_way_are_followed_all_the_same(snapshot: Snapshot) -> None:
    assert snapshot.resolve(b"/rel/up", follow_last=False) == b"/d/e/up"
    assert snapshot.resolve(b"/root/rel", follow_last=False) == b"/rel"
    assert snapshot.resolve(b"/rel/", follow_last=False) == b"/d/e"  # a slash asks for the directory
    assert snapshot.error(b"/self/x", follow_last=False) == "ELOOP"


def test_where_a_link_leads_is_told(snapshot: Snapshot) -> None:
    with pytest.raises(FsError, match=r"^/sibling leads to /cvmfs/other.example.org/d, outside of this repository$"):
        snapshot.resolve(b"/sibling")
    with pytest.raises(FsError, match=r"^/etc leads to /etc/passwd/x, outside of this repository$"):
        snapshot.resolve(b"/etc/x")


def test_several_mountpoints(snapshot: Snapshot) -> None:
    elsewhere = Snapshot(snapshot.tree, snapshot.store, (b"/mnt/repository", ROOT))
    assert elsewhere.resolve(b"/inside") == b"/d/e"
    assert elsewhere.error(b"/back") == "EXDEV"  # it is not seen below /cvmfs
    nowhere = Snapshot(snapshot.tree, snapshot.store, ())
    assert nowhere.resolve(b"/rel") == b"/d/e"
    assert nowhere.error(b"/inside") == "EXDEV"
    assert nowhere.error(b"/..") == "EXDEV"


def test_exactly_this_path(snapshot: Snapshot) -> None:
    for path in (b"", b"/self", b"/d/e/leaf"):
        assert find(snapshot.tree, path, snapshot.store.open).path == path
    for path, number in ((b"/no", errno.ENOENT), (b"/file/x", errno.ENOTDIR), (b"/d/no/x", errno.ENOENT)):
        with pytest.raises(FsError) as caught:
            find(snapshot.tree, path, snapshot.store.open)
        assert caught.value.errno == number


# against the kernel

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=5).map("/".join)
PLACES = st.sampled_from(
    ["", "@", "@/", "@/../" + FQRN + "/", "/nowhere/", "../" + FQRN + "/", "../../cvmfs/" + FQRN + "/"]
)
TARGETS = st.tuples(PLACES, STEPS).map("".join).filter(lambda target: target.strip("@"))
LEAVES = st.one_of(st.just(None), TARGETS)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=10)


def build(tree: dict[str, object], place: Path, root: str, depth: int = 0) -> Directory:
    """The same tree twice: on the disk, and as what is published. Every second directory has its own catalog."""
    entries: dict[str, Node] = {}
    for name, inside in tree.items():
        path = place / name
        if inside is None:
            path.write_bytes(b"")
            entries[name] = File(b"")
        elif isinstance(inside, str):
            target = inside.replace("@", root)
            path.symlink_to(target)
            entries[name] = Symlink(os.readlink(path))
        elif isinstance(inside, dict):
            path.mkdir()
            entries[name] = build(inside, path, root, depth + 1)
    return Directory(entries, nested=depth % 2 == 1, marker=False)


def ask_kernel(root: str, path: str, follow_last: bool) -> str | bytes:
    """The path below the root where the kernel ends, or the name of its error."""
    full = root + path
    try:
        if follow_last or path.endswith(("/", ".")):
            os.stat(full)
            real = os.path.realpath(full, strict=True)
        else:
            os.lstat(full)
            above, _, name = full.rpartition("/")
            real = os.path.join(os.path.realpath(above, strict=True), name)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    if real != root and not real.startswith(root + "/"):
        return "EXDEV"
    return real[len(root) :].encode()


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=3), st.lists(STEPS, min_size=1, max_size=12), st.booleans())
def test_as_the_kernel(tree: dict[str, object], paths: list[str], follow_last: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.path.realpath(folder)) / "cvmfs" / FQRN
        place.mkdir(parents=True)
        root = str(place)
        made = build(tree, place, root)
        with published(Path(folder) / "server", made, root.encode()) as snapshot:
            for steps in paths:
                path = "/" + steps
                expected = ask_kernel(root, path, follow_last)
                try:
                    got: str | bytes = snapshot.resolve(path.encode(), follow_last=follow_last)
                except FsError as error:
                    got = errno.errorcode[error.errno]
                if got == "EXDEV":  # what is outside of the repository is unknown, also whether it is there at all
                    assert isinstance(expected, str), (path, expected)
                else:
                    assert got == expected, path
