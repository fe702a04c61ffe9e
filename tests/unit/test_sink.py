"""The sink: only the right bytes get into a store, in whatever pieces they come, and it cannot be made to overeat."""

from __future__ import annotations

import itertools
import random
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cache.address import Algorithm, Kind, hash_bytes
from cache.memory import MemoryStore
from cache.ref import NotLocal, ObjectRef
from cvmfs_py.errors import IntegrityError
from cvmfs_py.network.inflate import inflater_for
from cvmfs_py.network.sink import Sink, limit_of, stored_limit_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CODINGS = ("zlib", "zstd", "verbatim")
MIB = 1 << 20


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with MemoryStore() as opened:
        yield opened


def encode(content: bytes, coding: str) -> bytes:
    if coding == "zlib":
        return zlib.compress(content)
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(content)
    return content


def ref_of(
    stored: bytes, *, size_bytes: int | None = None, coding: str = "zlib", limit_bytes: int | None = None
) -> ObjectRef:
    content_hash = hash_bytes(Algorithm.SHA1, stored)
    return ObjectRef(content_hash, verbatim=coding == "verbatim", size_bytes=size_bytes, limit_bytes=limit_bytes)


def receive(store: MemoryStore, ref: ObjectRef, pieces: Sequence[bytes]) -> bytes:
    """The content after everything went well; the store holds the object then."""
    with Sink(ref, store) as sink:
        sink.feed_all(list(pieces))
        with sink.finish() as pin:
            return pin.read()


def refuse(store: MemoryStore, ref: ObjectRef, pieces: Sequence[bytes], *, empty: bool = True) -> str:
    """Why the pieces are refused; the store is as before."""
    with pytest.raises(IntegrityError) as caught:
        receive(store, ref, pieces)
    with pytest.raises(NotLocal):
        store.open(ref)
    assert not empty or not list(store.entries())
    return str(caught.value)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    content=st.binary(max_size=3000),
    coding=st.sampled_from(CODINGS),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
    known=st.booleans(),
    tail=st.binary(max_size=20),
)
def test_pieces_do_not_matter(content: bytes, coding: str, cuts: list[int], known: bool, tail: bytes) -> None:
    stored = encode(content, coding) + (tail if coding == "zlib" else b"")
    ref = ref_of(stored, size_bytes=len(content) if known else None, coding=coding)
    with MemoryStore() as store:
        assert receive(store, ref, cut(stored, cuts)) == content


@given(
    content=st.binary(min_size=1, max_size=2000),
    coding=st.sampled_from(CODINGS),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
    position=st.integers(0, 10000),
    change=st.integers(1, 255),
)
def test_any_changed_byte_is_noticed(content: bytes, coding: str, cuts: list[int], position: int, change: int) -> None:
    stored = encode(content, coding)
    damaged = bytearray(stored)
    damaged[position % len(stored)] ^= change
    with MemoryStore() as store:
        refuse(store, ref_of(stored, size_bytes=len(content), coding=coding), cut(bytes(damaged), cuts))


@given(content=st.binary(max_size=500), coding=st.sampled_from(CODINGS), lost=st.integers(1, 600))
def test_any_truncation_is_noticed(content: bytes, coding: str, lost: int) -> None:
    stored = encode(content, coding)
    if not stored:
        return
    with MemoryStore() as store:
        refuse(store, ref_of(stored, coding=coding), [stored[: max(len(stored) - lost, 0)]])


@pytest.mark.parametrize("coding", ["zlib", "zstd"])
def test_a_stream_that_was_truncated_before_it_was_hashed(store: MemoryStore, coding: str) -> None:
    stored = encode(random.Random(1).randbytes(5000), coding)[:-100]
    assert "truncated stream" in refuse(store, ref_of(stored, coding=coding), [stored])


@pytest.mark.parametrize("coding", ["zlib", "zstd"])
def test_nothing_is_not_a_stream(store: MemoryStore, coding: str) -> None:
    assert "truncated stream" in refuse(store, ref_of(b"", coding=coding), [])


@pytest.mark.parametrize("coding", CODINGS)
def test_empty_content(store: MemoryStore, coding: str) -> None:
    stored = encode(b"", coding)
    assert receive(store, ref_of(stored, size_bytes=0, coding=coding), [stored]) == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_the_size_must_be_right(store: MemoryStore, coding: str) -> None:
    stored = encode(b"twelve bytes", coding)
    reason = refuse(store, ref_of(stored, size_bytes=13, coding=coding), [stored])
    assert "12 bytes of content instead of 13" in reason
    assert "larger than expected" in refuse(store, ref_of(stored, size_bytes=11, coding=coding), [stored])


def test_sizes_of_catalogs_are_informative(store: MemoryStore) -> None:
    stored = zlib.compress(b"twelve bytes")
    ref = ObjectRef(hash_bytes(Algorithm.SHA1, stored), Kind.CATALOG, size_bytes=5)
    assert receive(store, ref, [stored]) == b"twelve bytes"


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_every_algorithm(store: MemoryStore, algorithm: Algorithm) -> None:
    stored = zlib.compress(b"content")
    ref = ObjectRef(hash_bytes(algorithm, stored))
    assert receive(store, ref, [stored]) == b"content"
    other = ObjectRef(hash_bytes(algorithm, b"something else"))
    assert "hash mismatch" in refuse(store, other, [stored], empty=False)


def test_verbatim_is_verbatim_whatever_it_begins_with(store: MemoryStore) -> None:
    for stored in (zlib.compress(b"x" * 100), encode(b"x" * 100, "zstd"), b"\x78", b"\x28"):
        assert receive(store, ref_of(stored, size_bytes=len(stored), coding="verbatim"), [stored]) == stored


@pytest.mark.parametrize("stored", [b"<html>log in first</html>", b"\x1f\x8b\x08 gzip", b"\x00", b"PK\x03\x04"])
def test_garbage(store: MemoryStore, stored: bytes) -> None:
    assert "neither zlib nor zstd" in refuse(store, ref_of(stored), [stored])


@pytest.mark.parametrize("stored", [b"\x78\x9cgarbage follows", b"\x28\xb5\x2f\xfdgarbage follows", b"\x28garbage"])
def test_garbage_after_a_good_beginning(store: MemoryStore, stored: bytes) -> None:
    assert "damaged z" in refuse(store, ref_of(stored), [stored])


@pytest.mark.parametrize("coding", ["zlib", "zstd"])
def test_bombs_are_stopped_early(store: MemoryStore, coding: str) -> None:
    stored = encode(b"\0" * (64 * MIB), coding)
    assert len(stored) < 300_000
    ref = ref_of(stored, size_bytes=MIB, coding=coding)
    with pytest.raises(IntegrityError, match="larger than expected"), Sink(ref, store) as sink:
        sink.feed(stored)
    assert sink.content_bytes < 20 * MIB
    assert sink._transaction.written_bytes <= MIB


def test_a_bomb_inside_the_limit_of_an_object_without_size(store: MemoryStore) -> None:
    stored = zlib.compress(b"\0" * (3 * MIB))
    reason = refuse(store, ref_of(stored, limit_bytes=2 * MIB), [stored])
    assert "content above" in reason
    assert receive(store, ref_of(stored, limit_bytes=3 * MIB), [stored]) == b"\0" * (3 * MIB)


@pytest.mark.parametrize("coding", CODINGS)
def test_endless_answers_are_stopped(store: MemoryStore, coding: str) -> None:
    stored = encode(b"content", coding)
    ref = ref_of(stored, size_bytes=7, coding=coding)
    with Sink(ref, store) as sink, pytest.raises(IntegrityError, match="larger than expected"):
        sink.feed_all([stored, *[b"z" * 4096] * 1000])
    assert sink.stored_bytes <= stored_limit_of(ref) + 4096


def test_an_announced_length_is_refused_before_reading(store: MemoryStore) -> None:
    ref = ref_of(b"", size_bytes=100)
    with Sink(ref, store) as sink:
        sink.expect(stored_limit_of(ref))
        with pytest.raises(IntegrityError, match="announced"):
            sink.expect(stored_limit_of(ref) + 1)


def test_limits() -> None:
    content_hash = hash_bytes(Algorithm.SHA1, b"")
    assert limit_of(ObjectRef(content_hash, size_bytes=5, limit_bytes=9)) == 5
    assert limit_of(ObjectRef(content_hash, limit_bytes=9)) == 9
    assert limit_of(ObjectRef(content_hash, Kind.CERTIFICATE)) == MIB
    assert limit_of(ObjectRef(content_hash, Kind.METAINFO)) == MIB
    assert limit_of(ObjectRef(content_hash, Kind.CATALOG)) > 500 * MIB
    assert stored_limit_of(ObjectRef(content_hash, verbatim=True, size_bytes=5)) == 5
    assert stored_limit_of(ObjectRef(content_hash, size_bytes=MIB)) == MIB + 1048 + 65536


def test_what_was_not_finished_is_gone(store: MemoryStore) -> None:
    stored = zlib.compress(b"content")
    with Sink(ref_of(stored), store) as sink:
        sink.feed(stored)
    assert not list(store.entries())


@given(content=st.binary(max_size=4000), sizes=st.lists(st.integers(0, 4000), max_size=30), piece=st.integers(1, 300))
def test_inflating_in_small_steps_loses_nothing(content: bytes, sizes: list[int], piece: int) -> None:
    stored = zlib.compress(content * 3)
    inflater = inflater_for(stored[0])
    inflated = b"".join(out for data in cut(stored, sizes) for out in inflater.feed(data, piece))
    assert inflated == content * 3
    assert inflater.done
