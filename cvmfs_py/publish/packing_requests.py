"""What the packer remembers of a request while it is under way, and of a task for a process. Plain records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from cache.address import ContentHash
from catalog.entry import Chunk
from cvmfs_py.publish.packed import PackedFile, Token

if TYPE_CHECKING:
    from cvmfs_py.publish.packed import FileRecipe, SourceFile, StoredContent
    from cvmfs_py.publish.packing_work import Outcome

# A message with a payload up to this fits into a socket's buffer, so that it can be sent to a process that is at work.
SMALL_PAYLOAD_BYTES = 96 << 10


class PackingRequest(Generic[Token]):
    """One file under way."""

    __slots__ = ("attempts", "chunks", "failure", "open_chunks", "recipe", "same_as", "source", "token", "xattrs")

    def __init__(
        self, token: Token, source: SourceFile | None, recipe: FileRecipe, same_as: StoredContent | None = None
    ) -> None:
        self.token = token
        self.source = source  # None: its content was handed over
        self.recipe = recipe
        self.same_as = same_as
        self.attempts = 1
        self.forget_chunks()

    def forget_chunks(self) -> None:
        self.chunks: list[Outcome] = []  # offset, and what it became: size, digest, stored bytes, is new
        self.open_chunks = 0
        self.failure: Outcome | None = None
        self.xattrs: dict[bytes, bytes] = {}


class PackingTask:
    """What is to be sent to a process, and whose it is."""

    __slots__ = ("arguments", "kind", "needs_idle", "offset", "payload", "requests")

    def __init__(
        self,
        kind: int,
        arguments: tuple[Any, ...],
        requests: list[PackingRequest[Any]],
        *,
        payload: bytes | memoryview = b"",
        offset: int | None = None,  # of a chunk
    ) -> None:
        self.kind = kind
        self.arguments = arguments
        self.requests = requests
        self.payload = payload
        self.offset = offset
        self.needs_idle = len(payload) > SMALL_PAYLOAD_BYTES


def wish_of(request: PackingRequest[Any]) -> tuple[Any, ...]:
    assert request.source is not None
    return request.source.name, request.source.state, request.recipe, request.same_as


def packed_file(request: PackingRequest[Any], outcome: Outcome) -> PackedFile:
    algorithm = request.recipe.algorithm
    if not request.chunks:
        size_bytes, digest, stored_bytes, is_new = outcome[1:5]
        return PackedFile(size_bytes, ContentHash(algorithm, digest), (), stored_bytes, int(is_new))
    parts = sorted(request.chunks)
    return PackedFile(
        size_bytes=sum(part[1] for part in parts),
        content_hash=None,
        chunks=tuple(Chunk(part[0], part[1], ContentHash(algorithm, part[2])) for part in parts),
        stored_bytes=sum(part[3] for part in parts),
        new_objects=sum(part[4] for part in parts),
    )
