"""Which directories become the tops of nested catalogs: by markers, by the dirtab, automatically above a size.

A directory is the top of a nested catalog exactly when it holds a regular file `.cvmfscatalog`: the tree sees to that
itself. This module puts such markers where the dirtab or the size of a catalog asks for them. Stateless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.address import Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.attributes import Attributes
from cvmfs_py.publish.dirtab import Dirtab as Dirtab
from cvmfs_py.publish.tree import MARKER as MARKER

if TYPE_CHECKING:
    from cache.address import ContentHash
    from catalog.entry import Chunk
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.publish.tree import WritableTree

AUTOMATIC_MARKER = b".cvmfsautocatalog"
DIRTAB_PATH = b"/.cvmfsdirtab"
_DIRTAB_LIMIT_BYTES = 16 << 20
# Of the entries that a catalog may have: a nested catalog must be worth a request, and is given up long after that.
_WORTHWHILE = 100
_TOO_SMALL = 10


@dataclass(frozen=True, slots=True)
class _Empty:
    """The content of a marker."""

    content_hash: ContentHash
    size_bytes: int = 0
    chunks: tuple[Chunk, ...] = ()


def load_dirtab(tree: WritableTree, storage: Storage) -> Dirtab:
    """The dirtab that the tree holds now; without rules where there is none. A bad one is refused: PublishError."""
    entry = tree.lookup(DIRTAB_PATH)
    if entry is None or not entry.is_regular:
        return Dirtab()
    if entry.is_external or entry.size > _DIRTAB_LIMIT_BYTES:
        raise PublishError("/.cvmfsdirtab is external or too large to be a dirtab")
    if entry.is_chunked:
        objects = [(chunk.content_hash, Kind.CHUNK) for chunk in tree.chunks(DIRTAB_PATH)]
    else:
        objects = [(entry.content_hash, Kind.BULK)] if entry.content_hash else []
    contents = [storage.read_content(address, kind, verbatim=entry.is_verbatim) for address, kind in objects]
    return Dirtab.parse(b"".join(contents))


def put_marker(tree: WritableTree, storage: Storage, settings: RepositorySettings, path: bytes) -> None:
    """Makes a directory the top of a nested catalog by putting a marker into it, which looks as the directory does."""
    _put_empty(tree, storage, settings, path, MARKER)


def is_generated_marker(tree: WritableTree, path: bytes, dirtab: Dirtab) -> bool:
    """Whether the entry at a path is a marker that was put by this module and is still wanted.

    Who makes a directory equal to a source must leave such entries alone, although the source has none. `dirtab` is
    that of the new revision.
    """
    directory, _, name = path.rpartition(b"/")
    if name not in (MARKER, AUTOMATIC_MARKER):
        return False
    entry = tree.lookup(path)
    if entry is None or not entry.is_regular or entry.size:
        return False
    if name == MARKER and dirtab.matches(directory):
        return True
    other = tree.lookup(directory + b"/" + (AUTOMATIC_MARKER if name == MARKER else MARKER))
    return other is not None and other.is_regular


def apply_nesting(tree: WritableTree, storage: Storage, settings: RepositorySettings) -> None:
    """Puts and removes markers as the dirtab and the sizes of the changed catalogs ask for. Call it before `commit`.

    The objects of a new dirtab must have been stored. Does nothing to a tree that has not changed.
    """
    if not tree.is_changed:
        return
    dirtab = load_dirtab(tree, storage)
    for path in dirtab.find(lambda path: _is_directory(tree, path), tree.subdirectories):
        if tree.lookup(path + b"/" + MARKER) is None:
            put_marker(tree, storage, settings, path)
    limit = settings.auto_catalog_entries
    if limit is not None:
        for path in reversed(tree.changed_catalogs()):
            _join_small(tree, path, limit)
        for path in tree.changed_catalogs():
            if tree.count_rows(path) > limit:
                _divide(tree, storage, settings, path, limit)


def _join_small(tree: WritableTree, path: bytes, limit: int) -> None:
    """Ends an automatic catalog that became small and for which the one above has room."""
    automatic = path + b"/" + AUTOMATIC_MARKER
    if not path or not tree.is_nested(path) or tree.lookup(automatic) is None:
        return
    size = tree.count_rows(path)
    if size <= limit // _TOO_SMALL and size + tree.count_rows(path.rpartition(b"/")[0]) <= limit:
        tree.remove(automatic)
        tree.remove(path + b"/" + MARKER)


def _divide(tree: WritableTree, storage: Storage, settings: RepositorySettings, top: bytes, limit: int) -> None:
    """Gives the heaviest directories of a catalog catalogs of their own, from below, until no part is above the limit.

    A directory that is too large by itself stays so.
    """
    minimum = max(limit // _WORTHWHILE, 2)
    weights: dict[bytes, int] = {}  # of finished directories whose parents are not
    pending = [(top, False)]
    while pending:
        path, is_below_done = pending.pop()
        below = [one for one in tree.subdirectories(path) if not tree.is_nested(one)]
        if not is_below_done:
            pending.append((path, True))
            pending += [(one, False) for one in below]
            continue
        heavy = {one: weights.pop(one) for one in below}
        weight = 1 + tree.count_entries(path) + sum(heavy.values()) - len(heavy)
        while weight > limit and heavy:
            heaviest = max(heavy, key=lambda one: (heavy[one], one))
            if heavy[heaviest] < minimum:
                break
            put_marker(tree, storage, settings, heaviest)
            _put_empty(tree, storage, settings, heaviest, AUTOMATIC_MARKER)
            weight -= heavy.pop(heaviest) - 1
        weights[path] = weight


def _put_empty(
    tree: WritableTree, storage: Storage, settings: RepositorySettings, directory: bytes, name: bytes
) -> None:
    entry = tree.lookup(directory)
    if entry is None:
        raise PublishError("a directory without an entry cannot start a nested catalog")
    attributes = Attributes(
        mode=0o644, uid=entry.uid or 0, gid=entry.gid or 0, mtime_s=entry.mtime_s, mtime_ns=entry.mtime_ns
    )
    content = _Empty(storage.put_content(b"", Kind.BULK, settings))
    tree.put_file(directory + b"/" + name, attributes, content, compression="zlib")


def _is_directory(tree: WritableTree, path: bytes) -> bool:
    entry = tree.lookup(path)
    return entry is not None and entry.is_directory and not entry.is_bind_mountpoint
