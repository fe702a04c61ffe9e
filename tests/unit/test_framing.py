"""HTTP/1 answers: what is accepted, what is garbage, and where bodies end, however the bytes arrive."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.framing import (
    HEAD_LIMIT_BYTES,
    Chunked,
    FixedLength,
    FramingError,
    Head,
    UntilClose,
    body_of,
    split_head,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def head_of(*fields: str, status: str = "HTTP/1.1 200 OK") -> Head:
    parsed = split_head("\r\n".join([status, *fields, "", ""]).encode("latin-1"))
    assert parsed is not None
    return parsed[0]


def test_a_head() -> None:
    parsed = split_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b \r\nx-a: c\r\n\r\nhello")
    assert parsed is not None
    head, rest = parsed
    assert (head.status, head.minor_version, rest) == (200, 1, b"hello")
    assert head.headers == {"content-length": "5", "x-a": "b, c"}


@pytest.mark.parametrize(
    ("line", "status"),
    [("HTTP/1.1 200", 200), ("HTTP/1.0 404 Not Found", 404), ("HTTP/1.1 599 ", 599), ("HTTP/1.1 200 \xe9", 200)],
)
def test_status_lines(line: str, status: int) -> None:
    assert head_of(status=line).status == status


def test_bare_line_feeds() -> None:
    parsed = split_head(b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx")
    assert parsed is not None
    assert parsed[0].headers == {"content-length": "1"}
    assert parsed[1] == b"x"


@pytest.mark.parametrize(
    "data",
    [
        b"<html>\r\n\r\n",
        b"x",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nspace : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" * 10,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * HEAD_LIMIT_BYTES,
    ],
)
def test_garbage(data: bytes) -> None:
    with pytest.raises(FramingError):
        split_head(data)


@given(st.integers(0, 40))
def test_a_head_in_pieces(position: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert position >= len(data) or split_head(data[:position]) is None


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    try:
        split_head(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")
        split_head(data)
    except FramingError:
        pass


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ((), True),
        (("Connection: close",), False),
        (("Connection: Keep-Alive, Close",), False),
        (("Connection: keep-alive",), True),
    ],
)
def test_keeping_alive(fields: tuple[str, ...], kept: bool) -> None:
    assert head_of(*fields).keeps_alive is kept
    assert head_of(*fields, status="HTTP/1.0 200 OK").keeps_alive is (fields == ("Connection: keep-alive",))


def test_which_framing() -> None:
    assert isinstance(body_of(head_of()), UntilClose)
    assert isinstance(body_of(head_of("Content-Length: 7")), FixedLength)
    assert isinstance(body_of(head_of("Content-Length: 7", "Content-Length: 7")), FixedLength)
    assert isinstance(body_of(head_of("Transfer-Encoding: Chunked")), Chunked)
    assert body_of(head_of(status="HTTP/1.1 304 Not Modified")).done
    both = body_of(head_of("Transfer-Encoding: chunked", "Content-Length: 7"))
    assert isinstance(both, Chunked)
    assert not both.reusable


@pytest.mark.parametrize(
    "field",
    [
        "Content-Length: 7, 8",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1e3",
        "Content-Length:",
        "Content-Length: \xb2",
        "Content-Length: " + "9" * 30,
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
    ],
)
def test_lengths_that_nobody_can_trust(field: str) -> None:
    with pytest.raises(FramingError):
        body_of(head_of(field))


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(0, 1000), max_size=20),
    st.sampled_from([b"", b";name=value", b" "]),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
)
def test_chunks_in_any_pieces(pieces: list[bytes], cuts: list[int], extension: bytes, trailer: bytes) -> None:
    stored = b"".join(b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    stored += b"0\r\n" + trailer + b"\r\n"
    body = Chunked()
    content = b""
    for piece in cut(stored, cuts):
        assert not body.done
        content += body.feed(piece)
    assert content == b"".join(pieces)
    assert body.done
    assert body.reusable
    assert body.finish()


def test_chunks_with_more_after_the_end() -> None:
    body = Chunked()
    assert body.feed(b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK") == b"abc"
    assert body.done
    assert not body.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"xyz\r\n",
        b"-1\r\n",
        b"\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\rx",
        b"1" * 16 + b"\r\n",
        b"3" + b";" * 2000,
        b"0\r\n" + b"A: b\r\n" * 5000,
    ],
)
def test_malformed_chunks(data: bytes) -> None:
    with pytest.raises(FramingError):
        Chunked().feed(data)


@given(st.binary(max_size=100), st.integers(0, 120), st.lists(st.integers(0, 100), max_size=5))
def test_fixed_lengths(data: bytes, length: int, cuts: list[int]) -> None:
    body = FixedLength(length)
    content = b"".join(body.feed(piece) for piece in cut(data, cuts))
    assert content == data[:length]
    assert body.done is body.finish() is (len(data) >= length)
    assert body.reusable is (len(data) <= length)
