"""Where things are in a cache directory, and which directories are one.

    DIR/.cvmfs-py-cache     marker: JSON with the version of this layout
    DIR/objects/ab/<rest>   an object: hash text without its kind letter, content inflated, sealed
    DIR/txn/                objects and small files while they are written, locked by their writer
    DIR/running/            one locked file for every process that writes; one that is left over tells of a crash
    DIR/index.sqlite        recency and sizes; may be deleted at any time
    DIR/pins/<name>         named pins
    DIR/state/<name>        small state of other layers
    DIR/lock                held while something is evicted

The reference client keeps objects as DIR/ab/<rest>; such directories are recognised, but only ever read.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import re
from typing import TYPE_CHECKING

from cache.address import ContentHash, parse_hash
from cache.errors import CacheError, CacheFullError, CacheReadOnlyError, CacheVanishedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = ".cvmfs-py-cache"
VERSION = 1
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
READ_ONLY_ERRNOS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_VANISHED_ERRNOS = frozenset({errno.ENOENT, errno.ESTALE})
PREFIXES = tuple(f"{number:02x}" for number in range(256))

_REFERENCE_MARKER = ".cvmfscache"
# What a directory may contain and still be new: the root of a fresh file system, and files that NFS keeps for others.
_OWN_REMAINS = frozenset({"lock", "txn"})
_OWN_NAMES = _OWN_REMAINS | {"config", "index.sqlite", "index.sqlite-journal", "objects", "pins", "running", "state"}
_NOTHING = re.compile(r"lost\+found\Z|\.nfs[0-9a-f]+\Z|\.cvmfs-py-cache\.")


class DirectoryKind(enum.Enum):
    """What a directory is to a cache."""

    OWN = "a cache of cvmfs-py"
    REFERENCE = "an object directory of the reference client"
    EMPTY = "empty"
    FOREIGN = "something else"


class Layout:
    """The paths of one cache directory."""

    __slots__ = ("directory", "index", "lock", "objects", "pins", "running", "state", "txn")

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.objects = os.path.join(self.directory, "objects")
        self.txn = os.path.join(self.directory, "txn")
        self.running = os.path.join(self.directory, "running")
        self.pins = os.path.join(self.directory, "pins")
        self.state = os.path.join(self.directory, "state")
        self.index = os.path.join(self.directory, "index.sqlite")
        self.lock = os.path.join(self.directory, "lock")

    def object(self, text: str) -> str:
        """The file of an object, by hash text."""
        return f"{self.objects}/{text[:2]}/{text[2:]}"

    def has_object(self, text: str) -> bool:
        return os.path.exists(self.object(text))

    def create(self) -> None:
        """Make the directory, or what is missing of it. Raises CacheReadOnlyError, CacheError."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            marker = os.path.join(self.directory, MARKER)
            if not os.path.exists(marker):
                _write_marker(marker)
            os.close(os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            for path in (self.objects, self.txn, self.running, self.pins, self.state):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, mode=0o700)
        except OSError as error:
            raise write_error(self.directory, error) from error


def write_error(directory: str, error: OSError) -> CacheError:
    """Why a directory cannot be made or changed, in one line."""
    what = f"cannot write to the cache directory {directory}: {error.strerror}"
    if error.errno in FULL_ERRNOS:
        return CacheFullError(f"{what}; {full_cure(directory)}")
    if error.errno in READ_ONLY_ERRNOS:
        return CacheReadOnlyError(f"{what}; choose a cache directory that you can write to")
    if error.errno in _VANISHED_ERRNOS:
        return CacheVanishedError(f"{what}; somebody removes it while it is used")
    if error.errno in OUT_OF_DESCRIPTORS:
        return CacheError(f"{what}; raise the limit of open files (ulimit -n)")
    return CacheError(f"{what}; check the directory, or choose another one")


def full_cure(directory: str) -> str:
    """What helps when the disk of a cache is full and nothing can be evicted: that something is pinned is no secret."""
    try:
        has_pins = bool(os.listdir(os.path.join(directory, "pins")))
    except OSError:
        has_pins = False
    if not has_pins:
        return "free some space there, or choose another cache directory"
    return (
        "what is pinned there stays: `cvmfs-py cache pins` lists it, `cvmfs-py cache unpin` lets go of it; or free some"
        " space there, or choose another cache directory"
    )


def open_layout(directory: str) -> Layout:
    """The layout of a cache directory; makes it when there is nothing yet. Raises CacheError for anything else."""
    layout = Layout(directory)
    kind = recognise(layout.directory)
    if kind is DirectoryKind.EMPTY:
        layout.create()
    elif kind is DirectoryKind.REFERENCE:
        raise CacheError(
            f"{layout.directory} is a cache of the reference client, which this program only reads; configure it as"
            " a lower tier and choose another cache directory"
        )
    elif kind is DirectoryKind.FOREIGN:
        raise CacheError(
            f"{layout.directory} contains files but is no cache directory; choose an empty or a new directory"
        )
    return layout


def recognise(directory: str) -> DirectoryKind:
    """What a directory is. Raises CacheError where it cannot be looked at, or comes from a newer version."""
    try:
        with open(os.path.join(directory, MARKER), "rb") as file:
            _check_marker(directory, file.read(4096))
        return DirectoryKind.OWN
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CacheError(f"cannot use the cache directory {directory}: {error.strerror}; choose another one") from error
    try:
        names = set(os.listdir(directory))
    except FileNotFoundError:
        return DirectoryKind.EMPTY
    except OSError as error:
        raise CacheError(
            f"cannot list the cache directory {directory}: {error.strerror}; choose another one"
        ) from error
    # The reference client and its preloader make ff last: a directory that has it has all of them.
    if _REFERENCE_MARKER in names or {"00", "ff"} <= names:
        return DirectoryKind.REFERENCE
    rest = {name for name in names if not _NOTHING.match(name)}
    if not rest:
        return DirectoryKind.EMPTY
    if rest <= _OWN_NAMES and (rest >= _OWN_REMAINS or _holds_objects(directory)):
        # Ours but for the marker: removed, whole or in part, while it was made again. What is in it is sealed.
        return DirectoryKind.EMPTY
    return DirectoryKind.FOREIGN


def _holds_objects(directory: str) -> bool:
    """Whether there are object directories, and nothing else beside them."""
    try:
        names = set(os.listdir(os.path.join(directory, "objects")))
    except OSError:
        return False
    return bool(names) and names <= set(PREFIXES)


def walk_prefix(objects: str, prefix: str) -> Iterator[tuple[str, str, ContentHash | None]]:
    """Files of one object directory: path, hash text (or file name), hash; None for what is no object."""
    try:
        with os.scandir(os.path.join(objects, prefix)) as listing:
            items = sorted((item.name, item.path, item.is_file(follow_symlinks=False)) for item in listing)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, path, is_file in items:
        content_hash = parse_hash(prefix + name) if is_file else None
        yield path, prefix + name, content_hash


def _write_marker(path: str) -> None:
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with open(temporary, "x", opener=_private_opener) as file:
            file.write(json.dumps({"layout": "cvmfs-py cache", "version": VERSION}) + "\n")
            file.flush()
            # Once in the life of a directory: without its marker nobody would recognise it after a power cut.
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _check_marker(directory: str, data: bytes) -> None:
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise CacheError(
            f"the file {MARKER} in {directory} is damaged; remove the directory, or choose another one"
        ) from error
    if version != VERSION:
        raise CacheError(
            f"{directory} was made by another version of cvmfs-py (layout {version}, this one knows {VERSION});"
            " choose another directory, or remove it"
        )


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
