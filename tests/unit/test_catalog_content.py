"""From an entry to the objects of its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash, Kind
from cache.ref import ExternalSpan, ObjectRef
from catalog.content import Span, file_spans, spans_between
from catalog.errors import CatalogError
from catalog.reader import Catalog
from tests.catalog_fixtures import CatalogMaker, Objects, Row, directory, store_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGEST = b"\x11" * 20
OTHER = b"\x22" * 20
CHUNKS = [(0, 6, DIGEST), (6, 4, OTHER)]
RMD160, SHAKE128 = 1 << 8, 2 << 8
VERBATIM = 1 << 11
CHUNKED, EXTERNAL = 64, 128


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    objects = Objects(tmp_path / "objects")
    yield objects
    assert objects.open_count == 0


def spans_of(objects: Objects, flags: int, chunks: list[Any] | None = None, **columns: Any) -> tuple[Span, ...]:
    mode = columns.pop("mode", 0o100644)
    values = {"flags": flags, "size": 10, "hash": DIGEST, **columns}
    ref = store_catalog(objects, CatalogMaker([directory(b""), Row(b"/f", mode, values, chunks or [])]))
    catalog = Catalog.open(objects(ref), b"", ref.content_hash)
    try:
        entry = catalog.lookup(b"/f")
        assert entry is not None
        return file_spans(catalog, entry, b"/seen/as/f")
    finally:
        catalog.close()


def sha1(digest: bytes) -> ContentHash:
    return ContentHash(Algorithm.SHA1, digest)


def test_a_plain_file_is_one_object(objects: Objects) -> None:
    (span,) = spans_of(objects, 4)
    assert (span.offset, span.length, span.end) == (0, 10, 10)
    assert span.ref == ObjectRef(sha1(DIGEST), Kind.BULK, size_bytes=10)
    assert str(span.ref) == "file /seen/as/f"


@pytest.mark.parametrize("compression", range(8))
def test_only_compression_1_means_that_the_object_is_the_content(compression: int, objects: Objects) -> None:
    (span,) = spans_of(objects, 4 | compression << 11)
    assert span.ref.verbatim == (compression == 1)


@pytest.mark.parametrize(
    ("bits", "algorithm"), [(0, Algorithm.SHA1), (RMD160, Algorithm.RMD160), (SHAKE128, Algorithm.SHAKE128)]
)
def test_the_algorithm_is_the_one_of_the_flags_for_chunks_too(
    bits: int, algorithm: Algorithm, objects: Objects
) -> None:
    (span,) = spans_of(objects, 4 | bits)
    assert span.ref.content_hash == ContentHash(algorithm, DIGEST)
    spans = spans_of(objects, 4 | CHUNKED | bits, CHUNKS)
    assert [span.ref.content_hash.algorithm for span in spans] == [algorithm, algorithm]


@pytest.mark.parametrize("bulk_hash", [None, DIGEST])
@pytest.mark.parametrize("verbatim", [0, VERBATIM])
def test_a_chunked_file_is_its_chunks_whether_or_not_there_is_a_bulk_hash(
    bulk_hash: bytes | None, verbatim: int, objects: Objects
) -> None:
    spans = spans_of(objects, 4 | CHUNKED | verbatim, list(reversed(CHUNKS)), hash=bulk_hash)
    assert [(span.offset, span.length) for span in spans] == [(0, 6), (6, 4)]
    assert [span.ref for span in spans] == [
        ObjectRef(sha1(DIGEST), Kind.CHUNK, verbatim=bool(verbatim), size_bytes=6),
        ObjectRef(sha1(OTHER), Kind.CHUNK, verbatim=bool(verbatim), size_bytes=4),
    ]
    assert str(spans[1].ref) == "/seen/as/f from byte 6"


def test_external_content_is_asked_for_by_the_path_in_the_mount(objects: Objects) -> None:
    (whole,) = spans_of(objects, 4 | EXTERNAL | VERBATIM)
    assert whole.ref.external == ExternalSpan(b"/seen/as/f", 0, None)
    assert whole.ref.size_bytes == 10
    (compressed,) = spans_of(objects, 4 | EXTERNAL)
    assert not compressed.ref.verbatim
    chunks = spans_of(objects, 4 | EXTERNAL | CHUNKED | VERBATIM, CHUNKS)
    assert [span.ref.external for span in chunks] == [
        ExternalSpan(b"/seen/as/f", 0, 6),
        ExternalSpan(b"/seen/as/f", 6, 4),
    ]


@pytest.mark.parametrize("flags", [4, 4 | VERBATIM, 4 | EXTERNAL])
def test_an_empty_file_needs_no_object(flags: int, objects: Objects) -> None:
    assert spans_of(objects, flags, size=0) == ()


def test_an_empty_chunk_makes_an_empty_file(objects: Objects) -> None:
    assert spans_of(objects, 4 | CHUNKED, [(0, 0, DIGEST)], size=0) == ()


@pytest.mark.parametrize(
    ("flags", "columns"),
    [
        (4, {"hash": None}),
        (4, {"hash": b""}),
        (4, {"hash": b"\0" * 20}),
        (4, {"hash": None, "size": 0}),
        (4 | CHUNKED, {}),  # no chunks
        (4 | CHUNKED, {"size": 0}),
        (4 | CHUNKED | EXTERNAL, {"chunks": CHUNKS}),  # compressed ranges
        (12, {"mode": 0o120777, "hash": None}),
        (1, {"mode": 0o040755, "hash": None}),
        (20, {"mode": 0o010644, "hash": None}),
    ],
)
def test_what_cannot_be_read_whatever_the_servers_have(flags: int, columns: dict[str, Any], objects: Objects) -> None:
    with pytest.raises(CatalogError, match="f"):
        spans_of(objects, flags, **columns)


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(0, 60), st.integers(0, 60))
@example([2], 1, 0)
def test_the_spans_between_are_those_that_hold_any_of_the_bytes(lengths: list[int], offset: int, length: int) -> None:
    spans = []
    end = 0
    for size in lengths:
        spans.append(Span(end, size, ObjectRef(sha1(DIGEST))))
        end += size
    expected = [span for span in spans if set(range(span.offset, span.end)) & set(range(offset, offset + length))]
    assert list(spans_between(tuple(spans), offset, length)) == expected
