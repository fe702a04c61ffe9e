"""What a packing process does: reads files, makes objects of them, and says what they became.

A task is a tuple that begins with its kind and its number; the answers to it are tuples that begin with the number, the
last one marked DONE. Knows no catalogs and no order of things: that is for `packing`. Concurrency: one thread.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from cache.address import Kind
from cvmfs_py.errors import CvmfsError, IntegrityError, PublishError
from cvmfs_py.publish.chunking import cut_of, needed_bytes
from cvmfs_py.publish.local_files import file_state, open_directory, open_file_at, read_xattrs
from cvmfs_py.publish.stored_form import inflate_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.publish.compression import Bytes
    from cvmfs_py.publish.object_maker import Made, ObjectMaker
    from cvmfs_py.publish.packed import FileRecipe, FileState, SourceFile, StoredContent
    from cvmfs_py.publish.storage import Storage

# Tasks
FILES = 1  # number, groups: [(directory, [(name, state, recipe, same_as)])]
CHUNK = 2  # number, source, recipe, offset
CONTENTS = 3  # number, [(size, recipe)], kind letter; the payload is the contents one after the other
# Answers
DONE = 1  # number, DONE, outcomes
CUT = 2  # number, CUT, size of the chunk: the next one may be begun
BROKEN = 3  # number, BROKEN, message: the storage does not work
# Outcomes
MADE = 0  # size, digest, stored_bytes, is_new, xattrs
SAME = 1  # xattrs: the content is what it was compared with
DIFFERENT = 2  # it is not, and must be chunked
CHANGED = 3  # state: it is not the file that was asked for
FAILED = 4  # reason

IN_MEMORY_BYTES = 24 << 20  # larger objects are compressed piece by piece
_PIECE_BYTES = 1 << 20

Outcome = tuple[Any, ...]
Task = tuple[Any, ...]
Answer = tuple[Any, ...]


class _ChangedError(Exception):
    """A file is not what was asked for."""

    def __init__(self, state: FileState) -> None:
        super().__init__(state)
        self.state = state


class PackingWork:
    """Does tasks on one storage."""

    def __init__(self, storage: Storage, maker: ObjectMaker) -> None:
        self._storage = storage
        self._maker = maker

    def answers(self, task: Task, payload: Bytes) -> Iterator[Answer]:
        """Does a task. Every answer is to be sent at once."""
        kind, number = task[:2]
        try:
            if kind == FILES:
                yield number, DONE, self._files(task[2])
            elif kind == CONTENTS:
                yield number, DONE, self._contents(task[2], task[3], payload)
            else:
                yield from self._chunk(number, *task[2:])
        except CvmfsError as error:
            yield number, BROKEN, str(error)

    def _contents(self, parts: list[tuple[int, FileRecipe]], letter: str, payload: Bytes) -> list[Outcome]:
        outcomes: list[Outcome] = []
        view = memoryview(payload)
        for size_bytes, recipe in parts:
            made = self._maker.make(view[:size_bytes], recipe, Kind(letter))
            outcomes.append((MADE, size_bytes, *made, {}))
            view = view[size_bytes:]
        return outcomes

    def _files(self, groups: list[tuple[bytes, list[tuple[Any, ...]]]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for directory, files in groups:
            try:
                dir_fd = open_directory(directory)
            except OSError as error:
                outcomes += [(FAILED, _reason(error))] * len(files)
                continue
            try:
                outcomes += [self._file(dir_fd, *file) for file in files]
            finally:
                os.close(dir_fd)
        return outcomes

    def _file(
        self, dir_fd: int, name: bytes, state: FileState, recipe: FileRecipe, same_as: StoredContent | None
    ) -> Outcome:
        try:
            fd = open_file_at(dir_fd, name)
        except OSError as error:
            return FAILED, _reason(error)
        try:
            if same_as is not None:
                if self._is_same(fd, state.size_bytes, same_as):
                    _check_unchanged(fd, state)
                    return SAME, read_xattrs(fd)
                if recipe.is_chunked(state.size_bytes):
                    return (DIFFERENT,)
            made = self._whole(fd, state, recipe)
            return MADE, state.size_bytes, *made, read_xattrs(fd)
        except _ChangedError as changed:
            return CHANGED, changed.state
        except OSError as error:
            return FAILED, _reason(error)
        finally:
            os.close(fd)

    def _whole(self, fd: int, state: FileState, recipe: FileRecipe) -> Made:
        if state.size_bytes > IN_MEMORY_BYTES:
            return self._maker.make_streamed(_pieces(fd, state), recipe)
        content = os.read(fd, state.size_bytes + 1)
        while len(content) < state.size_bytes and (more := os.read(fd, state.size_bytes + 1 - len(content))):
            content += more
        _check_unchanged(fd, state, len(content))
        return self._maker.make(content, recipe)

    def _chunk(self, number: int, source: SourceFile, recipe: FileRecipe, offset: int) -> Iterator[Answer]:
        try:
            dir_fd = open_directory(source.directory)
            try:
                fd = open_file_at(dir_fd, source.name)
            finally:
                os.close(dir_fd)
        except OSError as error:
            yield number, DONE, [(FAILED, _reason(error))]
            return
        try:
            content = _chunk_content(fd, source.state, recipe, offset)
            yield number, CUT, len(content)
            made = self._maker.make(content, recipe, Kind.CHUNK)
            xattrs = read_xattrs(fd) if offset == 0 else {}
            yield number, DONE, [(MADE, len(content), *made, xattrs)]
        except _ChangedError as changed:
            yield number, DONE, [(CHANGED, changed.state)]
        except OSError as error:
            yield number, DONE, [(FAILED, _reason(error))]
        finally:
            os.close(fd)

    def _is_same(self, fd: int, size_bytes: int, same_as: StoredContent) -> bool:
        """Whether a file has the content that is stored. Independent of what compressed it."""
        spans = [(chunk.content_hash, Kind.CHUNK) for chunk in same_as.chunks]
        if same_as.content_hash is not None and not spans:
            spans = [(same_as.content_hash, Kind.BULK)]
        offset = 0
        try:
            for content_hash, kind in spans:
                with open(self._storage.open_stored(content_hash, kind), "rb", buffering=0) as stored:
                    for piece in inflate_pieces(stored, len, str(content_hash), same_as.is_verbatim):
                        if os.pread(fd, len(piece), offset) != piece:
                            return False
                        offset += len(piece)
        except (PublishError, IntegrityError):  # missing or damaged, so it has to be made again
            return False
        return offset == size_bytes


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:  # links are not followed
        return "it is no regular file any more"
    return error.strerror or "it cannot be read"


def _chunk_content(fd: int, state: FileState, recipe: FileRecipe, offset: int) -> memoryview:
    sizes = recipe.chunking
    assert sizes is not None
    rest_bytes = state.size_bytes - offset
    content = _pread(fd, needed_bytes(rest_bytes, sizes), offset)
    cut = cut_of(content, rest_bytes, sizes)
    if cut > len(content):
        content += _pread(fd, cut - len(content), offset + len(content))
    _check_unchanged(fd, state)
    if len(content) < cut:
        raise _ChangedError(state)
    return memoryview(content)[:cut]


def _pieces(fd: int, state: FileState) -> Iterator[bytes]:
    read_bytes = 0
    while piece := os.read(fd, _PIECE_BYTES):
        read_bytes += len(piece)
        yield piece
    _check_unchanged(fd, state, read_bytes)


def _pread(fd: int, size: int, offset: int) -> bytes:
    """So many bytes, or less at the end of the file."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _check_unchanged(fd: int, state: FileState, read_bytes: int | None = None) -> None:
    now = file_state(os.fstat(fd))
    if (
        now.size_bytes != state.size_bytes
        or now.mtime_ns != state.mtime_ns
        or now.mode >> 12 != state.mode >> 12
        or (read_bytes is not None and read_bytes != state.size_bytes)
    ):
        raise _ChangedError(now)
