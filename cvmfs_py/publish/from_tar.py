"""Unpacks a tar archive into a directory of a repository, as a stream: nothing but objects ever touches the disk.

Entries of the archive replace those of the same name, of whatever kind; directories keep what else is in them; a later
member wins over an earlier one. A hard link to a member in another directory becomes a file of its own with the same
objects. Layers of container images have whiteouts besides.

Files are packed by other processes while later members are read. Whatever needs an earlier file to be in the tree, or
must not be overtaken by it, waits for it.

Concurrency: one thread, and the processes of the packer.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from catalog.errors import show_path
from catalog.xattrs import parse_xattr_blob
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes, TreeWarning
from cvmfs_py.publish.layer import Layer, is_whiteout
from cvmfs_py.publish.nesting import load_dirtab, put_marker
from cvmfs_py.publish.packed import NotPacked, PackedFile, recipe_of
from cvmfs_py.publish.packing import Packer
from cvmfs_py.publish.parents import put_parents
from cvmfs_py.publish.reserved import check_destination, unpublishable
from cvmfs_py.publish.settings import COMPRESSION_CODES
from cvmfs_py.publish.tally import Tally, ignore
from cvmfs_py.publish.tar_headers import SECOND_NS, TarFormatError
from cvmfs_py.publish.tar_input import TarInput
from cvmfs_py.publish.tar_paths import MISSING_MODE, TarPaths, member_components
from cvmfs_py.publish.tar_reader import HARD_LINK, TarMember, TarReader

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from catalog.entry import Entry
    from cvmfs_py.publish.packed import FileRecipe, Packed
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.publish.tally import Observer
    from cvmfs_py.publish.tar_input import ReadObserver
    from cvmfs_py.publish.tree import WritableTree

_COMPRESSIONS = {code: name for name, code in COMPRESSION_CODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """What can be wished for. Paths given to `recipe_for` are those in the repository."""

    is_layer: bool = False  # names that begin with `.wh.` are whiteouts
    recipe_for: Callable[[bytes], FileRecipe] | None = None  # None: as in the repository's settings
    processes: int | None = None  # for packing; None: one for each core
    read_observer: ReadObserver | None = None


class _Plan(NamedTuple):
    """A file that is being packed."""

    path: bytes
    attributes: Attributes
    recipe: FileRecipe


def apply_archive(
    tree: WritableTree,
    storage: Storage,
    settings: RepositorySettings,
    archive: str | bytes | os.PathLike[str] | BinaryIO,
    at: bytes = b"",
    options: ArchiveOptions | None = None,
    observer: Observer = ignore,
) -> Tally:
    """Unpacks an archive (plain, gzip, bzip2, xz or zstd; `-`: the standard input) to a path; does not commit.

    Raises PublishError; the tree is then not fit to be committed.
    """
    options = options or ArchiveOptions()
    check_destination(at)
    with (
        TarInput(archive, options.read_observer) as source,
        Packer[_Plan](storage, processes=options.processes) as packer,
    ):
        unpacking = _Unpacking(tree, storage, settings, packer, options, at, observer)
        try:
            unpacking.run(TarReader(source.read))
        except TarFormatError as error:
            raise PublishError(f"{source.name} is no complete tar archive: {error}; nothing was published") from error
        return unpacking.tally


class _Unpacking:
    """One run."""

    def __init__(
        self,
        tree: WritableTree,
        storage: Storage,
        settings: RepositorySettings,
        packer: Packer[_Plan],
        options: ArchiveOptions,
        at: bytes,
        observer: Observer,
    ) -> None:
        self.tally = Tally()
        self._tree = tree
        self._storage = storage
        self._settings = settings
        self._packer = packer
        self._at = at
        self._observer = observer
        self._dirtab = load_dirtab(tree, storage)
        self._layer = Layer(tree, at) if options.is_layer else None
        self._paths = TarPaths(tree, at, self._settle, self._made)
        self._packing: dict[bytes, list[bytes]] = {}  # files under way, each with the hard links to it that wait for it
        self._waiting: set[bytes] = set()  # those hard links
        self._elsewhere: dict[tuple[bytes, bytes], bytes] = {}  # by target and directory, its first name there
        recipe = recipe_of(settings)
        self._recipe_for = options.recipe_for or (lambda path: recipe)

    def run(self, reader: TarReader) -> None:
        is_first = True
        for member in reader:
            if is_first:
                self._begin(member.mtime_ns)
                is_first = False
            self.tally.entries += 1
            self._member(member, reader)
            self._take(self._packer.results())
            self._observer(self.tally)
        self._drain()
        self._observer(self.tally)

    def _begin(self, mtime_ns: int) -> None:
        """Makes the directory that everything goes to."""
        entry = self._tree.lookup(self._at)
        if entry is None or not entry.is_directory:
            put_parents(self._tree, self._at, mtime_ns)
            self._put_directory(self._at, _attributes(MISSING_MODE, 0, 0, mtime_ns, {}))

    # --- members

    def _member(self, member: TarMember, reader: TarReader) -> None:
        components = member_components(member.name)
        if self._layer is not None and components and is_whiteout(components[-1]):
            self._whiteout(self._layer, components)
            return
        if not components and member.kind != stat.S_IFDIR:
            raise PublishError(f"the archive has a member without a name, {show_path(member.name)!r}")
        named = b"/".join((self._at, *components))
        # What a hard link leads to is looked at when it is made.
        kind = stat.S_IFREG if member.kind == HARD_LINK else member.kind
        if (reason := unpublishable(named, kind)) is not None:
            self._tree.warnings.append(TreeWarning(named, reason))
            return
        path = self._paths.path(components, member.mtime_ns)
        self._settle(path)
        if self._layer is not None:
            self._layer.touch(path)
        self._tree.warnings += [TreeWarning(path, text) for text in member.left_out]
        self._make_way(path, member.kind)
        self._put(path, member, reader)

    def _put(self, path: bytes, member: TarMember, reader: TarReader) -> None:
        attributes = _attributes(member.mode, member.uid, member.gid, member.mtime_ns, member.xattrs)
        if member.kind == stat.S_IFREG:
            self.tally.files += 1
            recipe = self._recipe_for(path)
            self._packing[path] = []
            self._packer.pack_stream(_Plan(path, attributes, recipe), reader.read, member.size_bytes, recipe)
        elif member.kind == HARD_LINK:
            self._hard_link(path, member)
        elif member.kind == stat.S_IFDIR:
            self._put_directory(path, attributes)
        elif member.kind == stat.S_IFLNK:
            self.tally.changed += self._tree.put_symlink(path, attributes, member.link_target)
        else:
            self.tally.changed += self._tree.put_special(path, attributes, member.kind, member.device)

    def _put_directory(self, path: bytes, attributes: Attributes) -> None:
        entry = self._tree.lookup(path)
        self.tally.changed += self._tree.put_directory(path, attributes)
        if entry is None or not entry.is_directory:
            self._made(path)

    def _made(self, path: bytes) -> None:
        """Whatever a new directory needs."""
        if self._layer is not None:
            self._layer.touch(path)
        if self._dirtab.matches(path):
            put_marker(self._tree, self._storage, self._settings, path)

    def _hard_link(self, path: bytes, member: TarMember) -> None:
        target = self._paths.existing(member_components(member.link_target))
        if target == path:
            return
        if target in self._waiting:
            self._drain()
        if target in self._packing:
            self._packing[target].append(path)
            self._waiting.add(path)
        elif target is None or not self._link(target, path):
            raise PublishError(
                f"the archive has a hard link {show_path(path)} to {show_path(member.link_target)}, which is not there "
                "or is a directory: nothing was published"
            )

    def _link(self, target: bytes, path: bytes) -> bool:
        """Makes a path one more name of a file, or a copy of it in another directory. False: there is no such file."""
        entry = self._tree.lookup(target)
        if entry is None or entry.is_directory:
            return False
        if (reason := unpublishable(path, stat.S_IFMT(entry.mode))) is not None:
            self._tree.warnings.append(TreeWarning(path, reason))
            return True
        self.tally.files += entry.is_regular
        if target.rpartition(b"/")[0] == path.rpartition(b"/")[0]:
            self.tally.changed += self._tree.hard_link((target, path))
        else:
            self.tally.changed += self._link_across(target, entry, path)
        return True

    def _link_across(self, target: bytes, entry: Entry, path: bytes) -> bool:
        """Further names in another directory are one file there, whichever of all names the archive has first."""
        key = (target, path.rpartition(b"/")[0])
        first = self._elsewhere.get(key)
        there = None if first is None or first == path else self._tree.lookup(first)
        if first is not None and there is not None and there.digest == entry.digest and there.mode == entry.mode:
            return self._tree.hard_link((first, path))
        self._elsewhere[key] = path
        return copy_entry(self._tree, target, path)

    def _whiteout(self, layer: Layer, components: list[bytes]) -> None:
        directory = self._paths.existing_directory(components[:-1])
        if directory is None:
            return  # what is not there is gone already
        removed = layer.apply(directory, components[-1])
        self.tally.removed += removed
        if removed:
            self._paths.forget()

    # --- order

    def _settle(self, path: bytes) -> None:
        """Waits for what is under way to a path."""
        if path in self._packing or path in self._waiting:
            self._drain()

    def _make_way(self, path: bytes, kind: int) -> None:
        """Waits for what is under way to below a directory that is about to be replaced."""
        entry = self._tree.lookup(path)
        if entry is None or kind == stat.S_IFMT(entry.mode) or not (entry.is_directory or entry.is_symlink):
            return
        self._paths.forget()
        if entry.is_directory:
            self._drain()

    def _drain(self) -> None:
        self._take(self._packer.finish())

    def _take(self, answers: Iterable[Packed[_Plan] | NotPacked[_Plan]]) -> None:
        for answer in answers:
            plan = answer.token
            if isinstance(answer, NotPacked) or answer.file is None:
                raise PublishError(f"{show_path(plan.path)} of the archive cannot be packed: nothing was published")
            self.tally.count_packed(answer.file)
            self.tally.changed += self._tree.put_file(
                plan.path,
                plan.attributes,
                answer.file,
                compression=plan.recipe.compression,
                is_external=plan.recipe.is_external,
            )
            for link in self._packing.pop(plan.path):
                self._waiting.discard(link)
                self._link(plan.path, link)


def copy_entry(tree: WritableTree, source: bytes, path: bytes) -> bool:
    """Puts an entry that is no directory once more, with the same objects. False: nothing changed."""
    entry = tree.lookup(source)
    assert entry is not None
    attributes = Attributes(
        mode=entry.mode & 0o7777,
        uid=entry.uid or 0,
        gid=entry.gid or 0,
        mtime_s=entry.mtime_s,
        mtime_ns=entry.mtime_ns,
        xattrs=parse_xattr_blob(entry.xattr_blob),
    )
    if entry.is_symlink:
        return tree.put_symlink(path, attributes, entry.symlink)
    if not entry.is_regular:
        return tree.put_special(path, attributes, stat.S_IFMT(entry.mode), entry.size)
    chunks = tree.chunks(source)
    return tree.put_file(
        path,
        attributes,
        PackedFile(entry.size, entry.content_hash, chunks, stored_bytes=0, new_objects=0),
        compression=_COMPRESSIONS[entry.compression],
        is_external=entry.is_external,
        is_direct_io=entry.is_direct_io,
    )


def _attributes(mode: int, uid: int, gid: int, mtime_ns: int, xattrs: dict[bytes, bytes]) -> Attributes:
    seconds, nanoseconds = divmod(mtime_ns, SECOND_NS)
    return Attributes(mode=mode, uid=uid, gid=gid, mtime_s=seconds, mtime_ns=nanoseconds, xattrs=xattrs)
