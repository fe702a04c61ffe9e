"""The file system by inode number against plain dictionaries, one for each revision, as a kernel would use it.

Two repositories do the same. One has every object and opens each catalog once; the other lacks any of them at any
time, keeps next to nothing open and in memory, and runs everything twice. Answers, numbers and counts have to agree.
"""

from __future__ import annotations

import errno
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cache.ref import NotLocal
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.files import RepositoryFiles
from cvmfs_py.vfs.inodes import ROOT, Inode, Inodes
from tests.catalog_fixtures import Objects
from tests.vfs_world import (
    DIRECTORY,
    FILE,
    HARD,
    HIDDEN_FILE,
    NESTED,
    Home,
    Item,
    Revision,
    link,
    mode_of,
    open_snapshot,
    publish,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from catalog.opened import OpenObject
    from cvmfs_py.vfs.files import Node
    from cvmfs_py.vfs.snapshot import Snapshot

TOPS = (b"/a", b"/n", b"/m m")
MIDDLES = tuple(top + name for top in TOPS for name in (b"/x", b"/y\n", b"/z"))
PATHS = (*TOPS, *MIDDLES, *(middle + name for middle in MIDDLES for name in (b"/p", b"/q")))
BASE: dict[bytes, Item | None] = {
    b"/a": NESTED,
    b"/a/x": NESTED,
    b"/a/x/p": FILE,
    b"/a/x/q": HARD,
    b"/a/y\n": DIRECTORY,
    b"/a/y\n/p": FILE,
    b"/a/z": FILE,
    b"/n": DIRECTORY,
    b"/n/x": HIDDEN_FILE,
    b"/n/y\n": HARD,
    b"/n/z": FILE,
    b"/m m": NESTED,
    b"/m m/x": FILE,
    b"/m m/y\n": HARD,
    b"/m m/z": DIRECTORY,
    b"/m m/z/p": NESTED,
    b"/m m/z/q": link(b"../x"),
}
NAMES = (*(path.rpartition(b"/")[2] for path in (*TOPS, *MIDDLES[:3])), b"p", b"q", b"none", b"l" * 256)

ITEMS = st.sampled_from(
    (None, FILE, Item("file", 1), DIRECTORY, NESTED, NESTED, HARD, HIDDEN_FILE, link(b"a/$(WHERE)"), link(b"b"))
)
CHANGES = st.dictionaries(st.sampled_from(PATHS), ITEMS, min_size=1, max_size=3)
MORE_CHANGES = st.dictionaries(st.sampled_from(PATHS), ITEMS, max_size=12)
INDEXES = st.integers(0, 1 << 16)
MISSING = st.tuples(*(st.sets(st.integers(0, 15)) for _ in range(2)))
Missing: TypeAlias = "tuple[set[int], set[int]]"
Answer: TypeAlias = "tuple[str, Any]"
Meaning: TypeAlias = "tuple[Home, bytes]"  # a number: a catalog and the first name of an entry


def tree_of(choices: dict[bytes, Item | None]) -> dict[bytes, Item]:
    """The paths whose directories exist."""
    items: dict[bytes, Item] = {}
    for path in PATHS:
        above = path.rpartition(b"/")[0]
        item = choices.get(path)
        if item is not None and (not above or (above in items and items[above].is_directory)):
            items[path] = item
    return items


class Side:
    """One of the two repositories."""

    def __init__(self, directory: Path, first: Revision, *, attached_limit: int, recent_limit: int) -> None:
        self.objects = Objects(directory)
        self._attached_limit = attached_limit
        self.snapshots: list[Snapshot] = []
        self.files = RepositoryFiles(Inodes(), self.add(first), recent_limit=recent_limit)

    def add(self, revision: Revision) -> Snapshot:
        self.objects.missing = set()
        self.snapshots.append(open_snapshot(revision, self.objects, attached_limit=self._attached_limit))
        return self.snapshots[-1]

    def run(self, operation: Callable[[RepositoryFiles, OpenObject], object]) -> Answer:
        """As a driver does: what is missing is fetched, and the operation runs again."""
        asked: set[ContentHash] = set()
        while True:
            try:
                return "answer", operation(self.files, self.objects)
            except FsError as error:
                return "error", error.errno
            except NotLocal as answer:
                hashes = {ref.content_hash for ref in answer.refs}
                assert not hashes & asked
                asked |= hashes
                self.objects.missing -= hashes

    def state(self) -> tuple[int, int, int]:
        inodes = self.files.inodes
        return inodes.highest, len(inodes), inodes.lookups


class Machine(RuleBasedStateMachine):
    """A kernel. `numbers` is what every number that can be used means, `meanings` what any ever meant."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Objects(Path(self.folder.name) / "objects")
        self.choices: dict[bytes, Item | None] = {}
        self.revisions: list[Revision] = []
        self.current = 0
        self.superseded: list[int] = []
        self.bound: dict[Home, int] = {}  # the revision through which a catalog is read
        self.numbers: dict[Meaning, Inode] = {}
        self.meanings: dict[Inode, Meaning] = {}
        self.held: Counter[Inode] = Counter()

    @initialize(changes=MORE_CHANGES, attached_limit=st.integers(2, 4))
    def begin(self, changes: dict[bytes, Item | None], attached_limit: int) -> None:
        self.choices = BASE | changes
        self.revisions = [publish(self.store, tree_of(self.choices))]
        directory = self.store.directory
        self.plain = Side(directory, self.revisions[0], attached_limit=100, recent_limit=4096)
        self.poor = Side(directory, self.revisions[0], attached_limit=attached_limit, recent_limit=2)
        self.catalogs = sorted(self.revisions[0].catalogs)

    # --- what a kernel does

    @rule(at=INDEXES, name=st.sampled_from(NAMES), missing=MISSING)
    def look_up(self, at: int, name: bytes, missing: Missing) -> None:
        self.step(self.number(at), name, missing)

    @rule(at=INDEXES, missing=MISSING)
    def walk_anywhere(self, at: int, missing: Missing) -> None:
        self.walk(at, missing)

    @rule(at=INDEXES, limit=st.integers(1, 7), remembered=st.sets(st.integers(0, 9)), missing=MISSING)
    def list_directory(self, at: int, limit: int, remembered: set[int], missing: Missing) -> None:
        ino = self.number(at)
        listed: list[Node] = []
        after: int | None = 0
        while after is not None:
            since = after
            answer = self.both(lambda files, open_object: files.page(ino, since, limit, open_object), missing)  # noqa: B023
            if (place := self.directory(ino, answer)) is None:
                return
            revision, path = place
            listed += answer[1].nodes
            after = answer[1].next_rowid
            for node in answer[1].nodes:
                self.check_node(revision, path + b"/" + node.entry.name, node)
        names = [node.entry.name for node in listed]
        assert len(names) == len(set(names))
        assert set(names) == self.revisions[revision].names_in(path)
        for index in remembered:
            if index < len(listed):
                self.remember(listed[index].ino, 1)

    @rule(at=INDEXES, missing=MISSING)
    def inspect(self, at: int, missing: Missing) -> None:
        self.check(self.number(at), missing)

    @rule(at=INDEXES, missing=MISSING)
    def find_parent(self, at: int, missing: Missing) -> None:
        ino = self.number(at)
        answer = self.both(lambda files, open_object: files.parent(ino, open_object), missing)
        if (place := self.directory(ino, answer)) is not None:
            revision, path = place
            above = path.rpartition(b"/")[0]
            if above:
                self.check_number(revision, above, answer[1])
            else:
                assert answer[1] == ROOT

    @rule(at=INDEXES, count=st.integers(1, 3), whole=st.booleans())
    def forget(self, at: int, count: int, whole: bool) -> None:
        inos = sorted(ino for ino, held in self.held.items() if held)
        if not inos:
            return
        ino = inos[at % len(inos)]
        self.let_go(ino, self.held[ino] if whole else min(count, self.held[ino]))

    @rule()
    def forget_old(self) -> None:
        """What the current revision does not have, as after an invalidation."""
        homes = set(self.revisions[self.current].homes.values())
        for ino in sorted(+self.held):
            if self.meanings[ino][0] not in homes:
                self.let_go(ino, self.held[ino])

    @rule()
    def forget_everything(self) -> None:
        for ino in sorted(+self.held):
            self.let_go(ino, self.held[ino])
        assert self.superseded == []

    # --- what happens beside it

    @rule(changes=CHANGES, at=INDEXES, missing=MISSING)
    def adopt(self, changes: dict[bytes, Item | None], at: int, missing: Missing) -> None:
        self.choices |= changes
        self.revisions.append(publish(self.store, tree_of(self.choices), len(self.revisions) + 1))
        self.catalogs = sorted({*self.catalogs, *self.revisions[-1].catalogs})
        for side in (self.plain, self.poor):
            side.add(self.revisions[-1])
        self.show(len(self.revisions) - 1)
        self.walk(at, missing)

    @rule(index=INDEXES)
    def adopt_again(self, index: int) -> None:
        self.poor.objects.missing = set()
        for side in (self.plain, self.poor):
            side.snapshots[index % len(self.revisions)].tree.root_properties(side.objects)
        self.show(index % len(self.revisions))

    @rule(index=INDEXES)
    def evict(self, index: int) -> None:
        self.poor.snapshots[index % len(self.revisions)].tree.close()

    @invariant()
    def trees_are_open_as_long_as_they_are_needed(self) -> None:
        for index, snapshot in enumerate(self.plain.snapshots if self.revisions else ()):
            is_needed = index == self.current or index in self.superseded
            assert (snapshot.tree.attached_count > 0) == is_needed
            assert is_needed or self.poor.snapshots[index].tree.attached_count == 0
        for side in (self.plain, self.poor) if self.revisions else ():
            assert side.objects.open_count == side.files.attached_count
            assert side.files.inodes.lookups == sum(self.held.values())

    def teardown(self) -> None:
        for side in (self.plain, self.poor) if self.revisions else ():
            side.files.close()
            assert side.objects.open_count == 0
        self.folder.cleanup()

    # --- how

    def walk(self, at: int, missing: Missing) -> None:
        """To something that the current revision has."""
        paths = sorted(self.revisions[self.current].items)
        ino = ROOT
        for name in paths[at % len(paths)].split(b"/")[1:]:
            ino = self.step(ino, name, missing) or ROOT
            assert ino != ROOT

    def step(self, ino: Inode, name: bytes, missing: Missing) -> Inode | None:
        """Looks a name up, and what is found once more."""
        answer = self.both(lambda files, open_object: files.lookup(ino, name, open_object), missing)
        if len(name) > 255:
            assert answer == ("error", errno.ENAMETOOLONG)
            return None
        place = self.directory(ino, answer)
        if place is None:
            return None
        revision, path = place
        path += b"/" + name
        node: Node | None = answer[1]
        assert (node is not None) == (path in self.revisions[revision].items)
        if node is None:
            return None
        self.check_node(revision, path, node)
        self.remember(node.ino, 1)
        self.check(node.ino, missing)
        return node.ino

    def check(self, ino: Inode, missing: Missing) -> None:
        """What is told of a number alone."""
        node = self.both(lambda files, open_object: files.node(ino, open_object), missing)
        target = self.both(lambda files, open_object: files.read_link(ino, open_object), missing)
        spans = self.both(lambda files, open_object: files.spans(ino, open_object), missing)
        path_of = self.both(lambda files, open_object: files.located(ino, open_object).path, missing)
        place = self.place(ino)
        if place is None:
            assert node == target == spans == path_of == ("error", errno.ESTALE)
            return
        revision, path = place
        item = self.revisions[revision].items[path]
        assert path_of == ("answer", path)
        assert node[1].ino == ino
        self.check_entry(revision, path, node[1])
        if item.kind == "link":
            assert target == ("answer", item.target.replace(b"$(WHERE)", b"there"))
        else:
            assert target == ("error", errno.EINVAL)
        if item.is_directory or item.kind == "link":
            assert spans == ("error", errno.EISDIR if item.is_directory else errno.EINVAL)
        else:
            (span,) = spans[1]
            assert span.length == len(self.revisions[revision].content(path))

    def both(self, operation: Callable[[RepositoryFiles, OpenObject], object], missing: Missing) -> Answer:
        """Twice where objects are missing, once where none is."""
        answer = self.plain.run(operation)
        for gone in missing:
            self.poor.objects.missing = {self.catalogs[index % len(self.catalogs)] for index in gone}
            assert self.poor.run(operation) == answer
            assert self.poor.state() == self.plain.state()
        return answer

    def number(self, at: int) -> Inode:
        """The root and what is held, mostly; else something that was shown at any time, or a number that never was."""
        known = [ROOT, *sorted(self.meanings), Inode(self.plain.files.inodes.highest + 1)]
        held = [ROOT, *sorted(+self.held)]
        return held[at // 4 % len(held)] if at % 4 else known[at // 4 % len(known)]

    def place(self, ino: Inode) -> tuple[int, bytes] | None:
        """The revision and path of a number that is known."""
        if ino == ROOT:
            return self.current, b""
        meaning = self.meanings.get(ino)
        if meaning is None or self.numbers.get(meaning) != ino:
            return None
        home, path = meaning
        return self.bound[home], path

    def directory(self, ino: Inode, answer: Answer) -> tuple[int, bytes] | None:
        """The same; None when the answer was that this is no directory, or nothing, and it is so."""
        place = self.place(ino)
        if place is None:
            assert answer == ("error", errno.ESTALE)
            return None
        if not self.revisions[place[0]].items[place[1]].is_directory:
            assert answer == ("error", errno.ENOTDIR)
            return None
        assert answer[0] == "answer"
        return place

    def check_node(self, revision: int, path: bytes, node: Node) -> None:
        self.check_number(revision, path, node.ino)
        self.check_entry(revision, path, node)

    def check_number(self, revision: int, path: bytes, ino: Inode) -> None:
        home = self.revisions[revision].homes[path]
        meaning = (home, self.revisions[revision].first_name(path))
        assert ino != ROOT
        assert self.meanings.setdefault(ino, meaning) == meaning
        assert self.numbers.setdefault(meaning, ino) == ino
        if home not in self.bound or revision == self.current:
            self.bound[home] = revision

    def check_entry(self, revision: int, path: bytes, node: Node) -> None:
        items = self.revisions[revision].items
        entry = node.entry
        assert entry.name == path.rpartition(b"/")[2]
        assert entry.mode == mode_of(items[path])
        if entry.is_regular:
            assert entry.size == len(self.revisions[revision].content(path))
            assert entry.link_count == len(self.revisions[revision].links[path][1])
        assert entry.symlink == items[path].target

    def remember(self, ino: Inode, count: int) -> None:
        self.held[ino] += count
        for side in (self.plain, self.poor):
            side.files.inodes.remember(ino, count)

    def let_go(self, ino: Inode, count: int) -> None:
        self.held[ino] -= count
        for side in (self.plain, self.poor):
            side.files.forget(ino, count)
        if not self.is_held(self.meanings[ino][0]):
            self.close_superseded()

    def show(self, index: int) -> None:
        for side in (self.plain, self.poor):
            side.files.adopt(side.snapshots[index])
        if index != self.current:
            self.superseded = [*(each for each in self.superseded if each != index), self.current]
            self.current = index
            self.close_superseded()

    def is_held(self, home: Home) -> bool:
        return any(self.held[ino] for (its_home, _), ino in self.numbers.items() if its_home == home)

    def close_superseded(self) -> None:
        """Nothing of a closed revision is known any more, but what later ones showed, too."""
        needed = {revision for home, revision in self.bound.items() if self.is_held(home)}
        closed = set(self.superseded) - needed
        self.superseded = [each for each in self.superseded if each in needed]
        gone = {home for home, revision in self.bound.items() if revision in closed}
        self.bound = {home: revision for home, revision in self.bound.items() if home not in gone}
        self.numbers = {meaning: ino for meaning, ino in self.numbers.items() if meaning[0] not in gone}


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
