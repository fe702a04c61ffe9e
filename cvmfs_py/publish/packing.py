"""Packs files into objects, on several cores: takes requests one by one and gives answers in whatever order they come.

Small files go to the packing processes in batches, by name; large files chunk by chunk, so that several processes work
on one: who cuts a chunk off says where it ends before compressing it, and the next chunk begins there. Contents that
are no files (members of archives) are handed over themselves. A file that changed while it was read is read once more.
What fails for one file is the answer to it; a storage that does not work raises PublishError.

Memory is bounded whatever the number and size of files: by the batches under way, and by answers that nobody fetched;
so call `results` after every request. Little work is done in this process, without starting others.

Concurrency: one thread.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import TYPE_CHECKING, Generic

from cache.address import Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.chunking import cut_of, needed_bytes
from cvmfs_py.publish.object_maker import ObjectMaker
from cvmfs_py.publish.packed import NotPacked, Packed, Token
from cvmfs_py.publish.packing_process import Crew, LocalCrew, ProcessCrew
from cvmfs_py.publish.packing_requests import SMALL_PAYLOAD_BYTES, PackingRequest, PackingTask, packed_file, wish_of
from cvmfs_py.publish.packing_work import (
    BROKEN,
    CHANGED,
    CHUNK,
    CONTENTS,
    CUT,
    DIFFERENT,
    FAILED,
    FILES,
    IN_MEMORY_BYTES,
    MADE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cvmfs_py.publish.packed import FileRecipe, FileState, SourceFile, StoredContent
    from cvmfs_py.publish.packing_work import Outcome
    from cvmfs_py.publish.storage import Storage

_BATCH_FILES = 128
_BATCH_BYTES = 1 << 20
_CALLS_A_LOOK = 16
_BEGINNINGS = 2  # whoever cannot keep a file still twice has to publish at another time


class Packer(Generic[Token]):
    """Use it as a context manager. Tokens are whatever the caller recognises its requests by."""

    def __init__(self, storage: Storage, *, processes: int | None = None) -> None:
        """`processes`: how many at most; None: one for each core; 0: everything is done in this process."""
        self._storage = storage
        self._processes = len(os.sched_getaffinity(0)) if processes is None else processes
        self._crew: Crew | None = None
        self._wants_processes = False  # for little work they are not worth their start
        self._batch: list[PackingRequest[Token]] = []
        self._batch_bytes = 0
        self._contents: list[tuple[PackingRequest[Token], bytes]] = []
        self._contents_bytes = 0
        self._ready: deque[PackingTask] = deque()
        self._sent: dict[int, PackingTask] = {}
        self._count = 0
        self._calls = 0
        self._results: deque[Packed[Token] | NotPacked[Token]] = deque()

    def __enter__(self) -> Packer[Token]:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._crew is not None:
            if kind is None and not self._sent:
                self._crew.close()
            else:
                self._crew.kill()
            self._crew = None

    # --- requests

    def pack(self, token: Token, source: SourceFile, recipe: FileRecipe, same_as: StoredContent | None = None) -> None:
        """Packs a file, unless it has the content `same_as`."""
        self._begin(PackingRequest(token, source, recipe, same_as))
        if self._ready:
            self._go_on()

    def pack_content(self, token: Token, content: bytes, recipe: FileRecipe) -> None:
        """Packs a content that is not chunked."""
        if self._contents_bytes + len(content) > SMALL_PAYLOAD_BYTES:
            self._flush_contents()
        self._contents.append((PackingRequest(token, None, recipe), content))
        self._contents_bytes += len(content)
        if self._contents_bytes >= SMALL_PAYLOAD_BYTES or len(self._contents) >= _BATCH_FILES:
            self._flush_contents()

    def pack_stream(self, token: Token, read: Callable[[int], bytes], size_bytes: int, recipe: FileRecipe) -> None:
        """Packs a content of any size that is read from a stream: `read` returns as much as it is asked for."""
        if recipe.is_chunked(size_bytes):
            self._cut_stream(PackingRequest(token, None, recipe), read, size_bytes)
        elif size_bytes <= IN_MEMORY_BYTES:
            self.pack_content(token, read(size_bytes), recipe)
        else:
            made = ObjectMaker(self._storage).make_streamed(_stream_pieces(read, size_bytes), recipe)
            self._finish(PackingRequest(token, None, recipe), (MADE, size_bytes, *made, {}))

    # --- answers

    def results(self) -> Iterator[Packed[Token] | NotPacked[Token]]:
        """Answers that are there. Does not wait, and does not look every time: that would cost more than the answer."""
        self._calls += 1
        if self._ready or self._calls % _CALLS_A_LOOK == 0:
            self._pump(wait=False)
        return self._fetched()

    def finish(self) -> Iterator[Packed[Token] | NotPacked[Token]]:
        """All answers that are still due. Afterwards new requests can be made."""
        self._flush(is_last=True)
        while self._ready or self._sent:
            self._pump(wait=True)
            self._flush(is_last=True)
            yield from self._fetched()
        yield from self._fetched()

    def _fetched(self) -> Iterator[Packed[Token] | NotPacked[Token]]:
        while self._results:
            yield self._results.popleft()

    # --- from requests to tasks

    def _begin(self, request: PackingRequest[Token]) -> None:
        source = request.source
        assert source is not None
        if request.same_as is None and request.recipe.is_chunked(source.state.size_bytes):
            self._wants_processes = True
            self._add_chunk(request, 0)
            return
        self._batch.append(request)
        self._batch_bytes += source.state.size_bytes
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._wants_processes = True
            self._flush_files()

    def _flush(self, *, is_last: bool = False) -> None:
        if self._batch:
            self._flush_files()
        if self._contents:
            self._flush_contents(is_last=is_last)

    def _flush_files(self) -> None:
        by_directory: dict[bytes, list[PackingRequest[Token]]] = {}
        for request in self._batch:
            assert request.source is not None
            by_directory.setdefault(request.source.directory, []).append(request)
        groups = [(directory, [wish_of(request) for request in group]) for directory, group in by_directory.items()]
        requests = [request for group in by_directory.values() for request in group]
        self._ready.append(PackingTask(FILES, (groups,), requests))
        self._batch = []
        self._batch_bytes = 0

    def _flush_contents(self, *, is_last: bool = False) -> None:
        if not self._contents:
            return
        self._wants_processes |= not is_last
        parts = [(len(content), request.recipe) for request, content in self._contents]
        payload = b"".join([content for _, content in self._contents])
        requests = [request for request, _ in self._contents]
        self._contents = []
        self._contents_bytes = 0
        self._ready.append(PackingTask(CONTENTS, (parts, Kind.BULK.value), requests, payload=payload))
        self._go_on(limit=0)

    def _add_chunk(self, request: PackingRequest[Token], offset: int) -> None:
        request.open_chunks += 1
        # First of all, so that one large file is finished before the next one is begun.
        self._ready.appendleft(PackingTask(CHUNK, (request.source, request.recipe, offset), [request], offset=offset))

    def _cut_stream(self, request: PackingRequest[Token], read: Callable[[int], bytes], size_bytes: int) -> None:
        sizes = request.recipe.chunking
        assert sizes is not None
        self._wants_processes = True
        request.open_chunks = 1  # for the chunks to come
        content = b""
        offset = 0
        while offset < size_bytes:
            rest_bytes = size_bytes - offset
            wanted = needed_bytes(rest_bytes, sizes)
            if len(content) < wanted:
                content += read(wanted - len(content))
            cut = cut_of(content, rest_bytes, sizes)
            if cut > len(content):
                content += read(cut - len(content))
            chunk, content = memoryview(content)[:cut], content[cut:]
            request.open_chunks += 1
            parts = [(cut, request.recipe)]
            self._ready.append(
                PackingTask(CONTENTS, (parts, Kind.CHUNK.value), [request], payload=chunk, offset=offset)
            )
            offset += cut
            self._go_on(limit=0)
        self._end_chunk(request)

    # --- tasks under way

    def _go_on(self, limit: int | None = None) -> None:
        """Sends what can be sent; waits while more than `limit` tasks are ready."""
        allowed = 2 * self._processes + 2 if limit is None else limit
        self._pump(wait=False)
        while len(self._ready) > allowed:
            self._pump(wait=True)

    def _pump(self, *, wait: bool) -> None:
        if self._crew is None and not self._ready:
            return
        self._send_ready()
        assert self._crew is not None
        for number, kind, result in self._crew.receive(wait=wait):
            if kind == BROKEN:
                raise PublishError(result)
            if kind == CUT:
                self._apply_cut(self._sent[number], result)
            else:
                task = self._sent.pop(number)
                for request, outcome in zip(task.requests, result, strict=True):
                    self._apply(request, outcome, task.offset)
        self._send_ready()

    def _send_ready(self) -> None:
        if self._wants_processes and self._processes and not self._sent and not isinstance(self._crew, ProcessCrew):
            self._crew = ProcessCrew(self._storage, self._processes)
        elif self._crew is None:
            self._crew = LocalCrew(self._storage)
        while self._ready and self._crew.has_place(idle=self._ready[0].needs_idle):
            task = self._ready.popleft()
            self._count += 1
            self._sent[self._count] = task
            self._crew.send((task.kind, self._count, *task.arguments), task.payload)
            task.payload = b""

    # --- from outcomes to answers

    def _apply_cut(self, task: PackingTask, size_bytes: int) -> None:
        request = task.requests[0]
        assert request.source is not None
        assert task.offset is not None
        end = task.offset + size_bytes
        if end < request.source.state.size_bytes and request.failure is None:
            self._add_chunk(request, end)

    def _apply(self, request: PackingRequest[Token], outcome: Outcome, offset: int | None) -> None:
        if offset is None:
            self._finish(request, outcome)
            return
        if outcome[0] == MADE:
            request.chunks.append((offset, *outcome[1:5]))
            request.xattrs |= outcome[5]
        else:
            request.failure = outcome
        self._end_chunk(request)

    def _end_chunk(self, request: PackingRequest[Token]) -> None:
        request.open_chunks -= 1
        if not request.open_chunks:
            self._finish(request, request.failure or (MADE, 0, b"", 0, False, request.xattrs))

    def _finish(self, request: PackingRequest[Token], outcome: Outcome) -> None:
        state = request.source.state if request.source is not None else None
        if outcome[0] == FAILED:
            self._results.append(NotPacked(request.token, outcome[1]))
        elif outcome[0] == CHANGED:
            self._begin_again(request, outcome[1])
        elif outcome[0] == DIFFERENT:
            request.same_as = None
            self._begin(request)
        elif outcome[0] == MADE:
            self._results.append(Packed(request.token, packed_file(request, outcome), state, outcome[5]))
        else:
            self._results.append(Packed(request.token, None, state, outcome[1]))

    def _begin_again(self, request: PackingRequest[Token], state: FileState) -> None:
        assert request.source is not None
        if not stat.S_ISREG(state.mode):
            self._results.append(NotPacked(request.token, "it is no regular file any more"))
        elif request.attempts == _BEGINNINGS:
            self._results.append(NotPacked(request.token, "it changes while it is read"))
        else:
            request.attempts += 1
            request.source = request.source._replace(state=state)
            request.forget_chunks()
            self._begin(request)


def _stream_pieces(read: Callable[[int], bytes], size_bytes: int) -> Iterator[bytes]:
    while size_bytes:
        piece = read(min(size_bytes, 1 << 20))
        size_bytes -= len(piece)
        yield piece
