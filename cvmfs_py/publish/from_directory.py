"""Makes a directory of a repository equal to one on the local disk.

Both are walked together, directory by directory in the order of names. A file whose size and time of modification are
as in the repository counts as unchanged and is not read, unless contents are to be compared; all other attributes are
always compared. Whatever the source does not have is removed, but what its owner never sees: the markers of automatic
nested catalogs, hidden entries, other revisions that are shown, and what is excluded.

Hard links are kept within a directory; links to other directories become files of their own. When anything cannot be
read, everything else is still tried, and then the whole publication is refused with the list.

Concurrency: one thread, and the processes of the packer.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import TreeWarning
from cvmfs_py.publish.local_files import file_state, list_directory, open_directory, read_xattrs, read_xattrs_at
from cvmfs_py.publish.nesting import AUTOMATIC_MARKER, DIRTAB_PATH, MARKER, is_generated_marker, load_dirtab, put_marker
from cvmfs_py.publish.packed import NotPacked, SourceFile, recipe_of
from cvmfs_py.publish.packing import Packer
from cvmfs_py.publish.parents import put_parents
from cvmfs_py.publish.reserved import check_destination, is_reserved, unpublishable
from cvmfs_py.publish.source_comparison import (
    attributes_of,
    has_attributes,
    has_links,
    has_time,
    state_attributes,
    stored_content,
)
from cvmfs_py.publish.source_errors import Failures
from cvmfs_py.publish.tally import Tally, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from catalog.entry import Entry
    from cvmfs_py.publish.dirtab import Dirtab
    from cvmfs_py.publish.packed import FileRecipe, Packed
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.publish.tally import Observer
    from cvmfs_py.publish.tree import WritableTree

_PUT_FIRST = (MARKER, DIRTAB_PATH[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """What can be wished for. Paths given to `recipe_for` are those in the repository, to `exclude` those below it."""

    compare_contents: bool = False  # read also files whose size and time are as before
    exclude: Callable[[bytes], bool] | None = None
    recipe_for: Callable[[bytes], FileRecipe] | None = None  # None: as in the repository's settings
    processes: int | None = None  # for packing; None: one for each core


class _Seen(NamedTuple):
    """An entry of the source that is no directory, and what the repository has in its place."""

    path: bytes
    name: bytes
    status: os.stat_result
    old: Entry | None


class _Plan(NamedTuple):
    """A file that is being packed: what its packer's answer is for."""

    path: bytes
    other_names: list[bytes]
    source: bytes
    recipe: FileRecipe


class _Pending(NamedTuple):
    """A directory whose own row is as it should be, and whose contents come next."""

    source: bytes
    path: bytes
    is_new: bool  # the repository has nothing in it


def apply_directory(
    tree: WritableTree,
    storage: Storage,
    settings: RepositorySettings,
    source: str | bytes | os.PathLike[str],
    at: bytes = b"",
    options: DirectoryOptions | None = None,
    observer: Observer = ignore,
) -> Tally:
    """Makes what the tree has at a path equal to a local directory; directories above are made. Does not commit.

    Raises UnreadableSourceError; the tree is then not fit to be committed.
    """
    options = options or DirectoryOptions()
    check_destination(at)
    with Packer[_Plan](storage, processes=options.processes) as packer:
        update = _Update(tree, storage, settings, packer, options, at, observer)
        update.run(os.path.abspath(os.fsencode(source)))
        return update.tally


class _Update:
    """One run."""

    def __init__(
        self,
        tree: WritableTree,
        storage: Storage,
        settings: RepositorySettings,
        packer: Packer[_Plan],
        options: DirectoryOptions,
        at: bytes,
        observer: Observer,
    ) -> None:
        self.tally = Tally()
        self._tree = tree
        self._storage = storage
        self._settings = settings
        self._packer = packer
        self._options = options
        self._at = at
        self._observer = observer
        self._failures = Failures()
        self._dirtab: Dirtab
        self._put_first: set[bytes] = set()
        recipe = recipe_of(settings)
        self._recipe_for = options.recipe_for or (lambda path: recipe)

    def run(self, source: bytes) -> None:
        pending = [self._top(source)]
        while pending:
            pending += reversed(self._directory(pending.pop()))
            self._take(self._packer.results())
            self._observer(self.tally)
        self._take(self._packer.finish())
        self._observer(self.tally)
        self._failures.raise_if_any()

    # --- directories

    def _top(self, source: bytes) -> _Pending:
        tree, at = self._tree, self._at
        try:
            fd = open_directory(source)
        except OSError as error:
            raise PublishError(f"{os.fsdecode(source)} cannot be read: {error.strerror}") from error
        try:
            status, xattrs = os.fstat(fd), read_xattrs(fd)
            put_parents(tree, at, status.st_mtime_ns)
            old = tree.lookup(at)
            self.tally.entries += 1
            self.tally.changed += tree.put_directory(at, attributes_of(status, xattrs))
            if not at and not self._is_excluded(DIRTAB_PATH):
                # It decides which markers are to stay.
                if os.path.lexists(source + DIRTAB_PATH):
                    self._file_first(fd, source, b"", DIRTAB_PATH[1:])
                else:
                    self.tally.removed += tree.remove(DIRTAB_PATH)
        finally:
            os.close(fd)
        self._failures.raise_if_any()
        self._dirtab = load_dirtab(tree, self._storage)
        return _Pending(source, at, is_new=old is None or not old.is_directory)

    def _directory(self, directory: _Pending) -> list[_Pending]:
        """Makes the contents of a directory equal; what is to be done below."""
        try:
            fd = open_directory(directory.source)
        except OSError as error:
            self._failures.add(directory.source, error.strerror)
            return []
        try:
            names = list_directory(fd)
            if MARKER in names and not self._is_excluded(directory.path + b"/" + MARKER):
                # Before all else: afterwards every entry would have to move into the new catalog.
                self._file_first(fd, directory.source, directory.path, MARKER)
            return self._contents(fd, directory, names)
        except OSError as error:
            self._failures.add(directory.source, error.strerror)
            return []
        finally:
            os.close(fd)

    def _contents(self, fd: int, directory: _Pending, names: list[bytes]) -> list[_Pending]:
        below: list[_Pending] = []
        linked: dict[tuple[int, int], list[_Seen]] = {}
        olds = iter(()) if directory.is_new else self._tree.listing(directory.path)
        for name, is_there, old in _merged(names, olds):
            path = directory.path + b"/" + name
            if self._is_excluded(path) or (old is not None and (old.is_hidden or old.is_bind_mountpoint)):
                continue
            if not is_there:
                self._remove(path, name)
                continue
            if old is None and name in _PUT_FIRST:
                old = self._tree.lookup(path)  # so that it is not packed twice
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if (reason := unpublishable(path, stat.S_IFMT(status.st_mode))) is not None:
                    self._tree.warnings.append(TreeWarning(path, reason))
                    self._remove(path, name)
                    continue
                self.tally.entries += 1
                if path in self._put_first:
                    self.tally.files += 1
                    continue
                seen = _Seen(path, name, status, old)
                if stat.S_ISDIR(status.st_mode):
                    below.append(self._subdirectory(fd, directory, seen))
                elif status.st_nlink > 1:
                    linked.setdefault((status.st_dev, status.st_ino), []).append(seen)
                else:
                    self._other(fd, directory.source, [seen])
            except OSError as error:
                self._failures.add(directory.source + b"/" + name, error.strerror)
        for group in linked.values():
            try:
                self._other(fd, directory.source, group)
            except OSError as error:
                self._failures.add(directory.source + b"/" + group[0].name, error.strerror)
        return below

    def _subdirectory(self, fd: int, directory: _Pending, seen: _Seen) -> _Pending:
        path, name, status, old = seen
        xattrs = read_xattrs_at(fd, name)
        is_new = old is None or not old.is_directory
        if old is None or is_new or not has_attributes(old, status, xattrs):
            self.tally.changed += self._tree.put_directory(path, attributes_of(status, xattrs))
        if is_new and self._dirtab.matches(path):
            put_marker(self._tree, self._storage, self._settings, path)
        return _Pending(directory.source + b"/" + name, path, is_new)

    def _remove(self, path: bytes, name: bytes) -> None:
        if name in (MARKER, AUTOMATIC_MARKER) and is_generated_marker(self._tree, path, self._dirtab):
            return
        self.tally.removed += self._tree.remove(path)

    # --- everything else

    def _other(self, fd: int, source: bytes, group: list[_Seen]) -> None:
        """An entry that is no directory, with all its names in the directory."""
        path, name, status, old = group[0]
        others = [seen.path for seen in group[1:]]
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self.tally.files += len(group)
            self._file(fd, source, group, self._packer)
            return
        xattrs = read_xattrs_at(fd, name)
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=fd)
            if others or old is None or old.symlink != target or not has_attributes(old, status, xattrs):
                attributes = attributes_of(status, xattrs)
                self.tally.changed += self._tree.put_symlink(path, attributes, target, other_names=others)
        else:
            attributes = attributes_of(status, xattrs)
            device = status.st_rdev
            self.tally.changed += self._tree.put_special(path, attributes, kind, device, other_names=others)

    def _file_first(self, fd: int, source: bytes, directory: bytes, name: bytes) -> None:
        """Puts a file before the others, where it is a regular one."""
        path = directory + b"/" + name
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return
        group = [_Seen(path, name, status, self._tree.lookup(path))]
        if status.st_nlink > 1:
            group += self._other_names(fd, directory, group[0])
        with Packer[_Plan](self._storage, processes=0) as packer:
            self._file(fd, source, group, packer)
            self._take(packer.finish())
        self._put_first.update(seen.path for seen in group)

    def _other_names(self, fd: int, directory: bytes, first: _Seen) -> Iterator[_Seen]:
        """The other names in the directory that are hard links to a file."""
        for name in list_directory(fd):
            path = directory + b"/" + name
            if name == first.name or is_reserved(path) or self._is_excluded(path):
                continue
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if os.path.samestat(status, first.status):
                yield _Seen(path, name, status, self._tree.lookup(path))

    def _file(self, fd: int, source: bytes, group: list[_Seen], packer: Packer[_Plan]) -> None:
        path, name, status, old = group[0]
        recipe = self._recipe_for(path)
        comparable = (
            old is not None
            and has_links([seen.old for seen in group])
            and (old.is_regular and old.size == status.st_size and old.is_external == recipe.is_external)
        )
        same_as = None
        if comparable and old is not None:
            if self._options.compare_contents:
                same_as = stored_content(self._tree, path, old)
            elif all(seen.old is not None and has_time(seen.old, status) for seen in group):
                xattrs = read_xattrs_at(fd, name)
                if not has_attributes(old, status, xattrs):
                    self.tally.changed += self._tree.set_attributes(path, attributes_of(status, xattrs))
                return
        plan = _Plan(path, [seen.path for seen in group[1:]], source + b"/" + name, recipe)
        packer.pack(plan, SourceFile(source, name, file_state(status)), recipe, same_as)
        self._take(packer.results())

    def _take(self, answers: Iterable[Packed[_Plan] | NotPacked[_Plan]]) -> None:
        for answer in answers:
            plan = answer.token
            if isinstance(answer, NotPacked):
                self._failures.add(plan.source, answer.reason)
                continue
            assert answer.state is not None
            attributes = state_attributes(answer.state, answer.xattrs)
            if answer.file is None:
                self.tally.compared_files += 1
                self.tally.compared_bytes += answer.state.size_bytes
                self.tally.changed += self._tree.set_attributes(plan.path, attributes)
                continue
            self.tally.count_packed(answer.file)
            self.tally.changed += self._tree.put_file(
                plan.path,
                attributes,
                answer.file,
                compression=plan.recipe.compression,
                is_external=plan.recipe.is_external,
                other_names=plan.other_names,
            )

    def _is_excluded(self, path: bytes) -> bool:
        exclude = self._options.exclude
        return exclude is not None and exclude(path[len(self._at) :])


def _merged(names: list[bytes], olds: Iterator[Entry]) -> Iterator[tuple[bytes, bool, Entry | None]]:
    """All names of both, in order: whether the source has it, and what the repository has."""
    old = next(olds, None)
    for name in names:
        while old is not None and old.name < name:
            yield old.name, False, old
            old = next(olds, None)
        if old is not None and old.name == name:
            yield name, True, old
            old = next(olds, None)
        else:
            yield name, True, None
    while old is not None:
        yield old.name, False, old
        old = next(olds, None)
