"""Where a copy goes, by the rules of cp, and the note beside it that lets an interrupted one go on.

The note names repository, root hash and path: a copy of another snapshot is not mixed with what is there.

Concurrency: plain functions on the local disk; one copy to one place at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.mount.destination import open_new_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NOTE_LIMIT_BYTES = 1 << 16
_NOTE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory that exists."""

    directory: bytes
    parent_fd: int
    name: bytes
    snapshot: bytes
    resumed: bool  # an interrupted copy of the same snapshot is there

    def note(self) -> None:
        """From now on a copy that is interrupted can go on.

        A note that is there stays as it is: whoever is killed while it is written anew would leave none.
        """
        if self.resumed:
            return
        with open(os.open(_note_path(self.directory, self.name), _NOTE_FLAGS, 0o600), "wb") as stream:
            stream.write(self.snapshot)

    def forget(self) -> None:
        """The copy is complete, or nothing of it is there."""
        with suppress(FileNotFoundError):
            os.unlink(_note_path(self.directory, self.name))

    def open_top(self) -> int:
        """The directory to fill, noted before it is made."""
        try:
            self.note()
            return open_new_directory(self.parent_fd, self.name)
        except OSError as error:
            if not self.resumed:
                self.forget()
            there = show_path(os.path.join(self.directory, self.name))
            raise FsError(
                error.errno or errno.EIO, f"cannot copy a directory to {there}: {_why_not_directory(error)}"
            ) from error


@contextmanager
def choose_place(
    destination: Path | str, source_name: bytes, snapshot: bytes, *, is_tree: bool, inside: bool = False
) -> Iterator[Place]:
    """An existing directory gets the copy inside, as with cp, unless an interrupted copy of the same is there.

    `inside`: it gets several copies, and is none of them itself.
    """
    given = os.fsencode(destination)
    path = given.rstrip(b"/") or b"/"
    if os.path.isdir(path):
        is_the_copy = is_tree and not inside and _is_noted(path, snapshot)
        if not is_the_copy:
            path = os.path.join(path, source_name)
    elif given.endswith(b"/") and not is_tree:
        raise FsError(errno.ENOTDIR, f"{show_path(given)} is no directory")
    if not is_tree and _is_special(path):
        raise FsError(
            errno.EEXIST,
            f"{show_path(path)} is a device, pipe or socket, and a copy would take its place; to write into it, use"
            " cvmfs-py cat",
        )
    directory, name = os.path.split(path)
    directory = directory or b"."
    try:
        parent_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FsError(
            error.errno or errno.EIO, f"cannot copy to {show_path(path)}: {show_path(directory)}: {error.strerror}"
        ) from error
    try:
        yield Place(directory, parent_fd, name, snapshot, is_tree and _is_noted(path, snapshot))
    finally:
        os.close(parent_fd)


def _is_special(path: bytes) -> bool:
    """Whether a device, pipe or socket is there, or a link to one: nobody means to lose /dev/null or /dev/stdout."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return False
    return kind not in (stat.S_IFREG, stat.S_IFDIR)


def _is_noted(path: bytes, snapshot: bytes) -> bool:
    """Whether an interrupted copy of this snapshot is there; refuses to mix it with that of another one."""
    if not os.path.isdir(path):
        return False
    try:
        with open(_note_path(*os.path.split(path)), "rb") as stream:
            found = stream.read(_NOTE_LIMIT_BYTES)
    except OSError:
        return False
    fqrn, root_hash, source = (*found.split(b" ", 2), b"", b"")[:3]
    if found != snapshot and (fqrn, source) == tuple(snapshot.split(b" ", 2)[::2]):
        raise FsError(
            errno.EEXIST,
            f"{show_path(path)} holds an interrupted copy of another snapshot: finish it with"
            f" --root-hash {show_path(root_hash)}, or remove it",
        )
    return found == snapshot


def _note_path(directory: bytes, name: bytes) -> bytes:
    return os.path.join(directory, b"." + name[:200] + b".cvmfs-py-copy")


def _why_not_directory(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "there is something else of this name"
    return error.strerror or str(error)
