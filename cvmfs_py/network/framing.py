"""The grammar of HTTP/1 answers, without any I/O: heads, and where a body ends.

Pure. Strict where being lenient would let two readers disagree about where an answer ends (lengths, chunks, folded
lines), lenient where it costs nothing (bare line feeds, unknown reasons). Everything a server can make us keep is
bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_LIMIT_BYTES = 64 << 10
HEADER_COUNT_LIMIT = 100
CHUNK_LINE_LIMIT_BYTES = 1024
TRAILER_LIMIT_BYTES = 16 << 10

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?\Z")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\Z")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class FramingError(Exception):
    """The bytes are not an HTTP answer; the text says in which way."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    status: int
    headers: dict[str, str]
    minor_version: int

    @property
    def keeps_alive(self) -> bool:
        tokens = [token.strip() for token in self.headers.get("connection", "").lower().split(",")]
        return "close" not in tokens and (self.minor_version == 1 or "keep-alive" in tokens)


def split_head(buffer: bytes) -> tuple[Head, bytes] | None:
    """The head and what follows it; None when more bytes are needed."""
    match = _HEAD_END.search(buffer, 0, HEAD_LIMIT_BYTES + 4)
    if match is None:
        if len(buffer) > HEAD_LIMIT_BYTES:
            raise FramingError(f"the head of the answer is larger than {HEAD_LIMIT_BYTES >> 10} KiB")
        if not buffer.startswith(b"HTTP/1."[: len(buffer)]):
            raise FramingError("the answer is not HTTP")
        return None
    return _parse_head(buffer[: match.start()]), buffer[match.end() :]


def _parse_head(data: bytes) -> Head:
    lines = data.split(b"\n")
    status = _STATUS_LINE.match(lines[0].rstrip(b"\r"))
    if status is None:
        raise FramingError("the answer is not HTTP")
    if len(lines) > HEADER_COUNT_LIMIT + 1:
        raise FramingError(f"the answer has more than {HEADER_COUNT_LIMIT} header fields")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.match(name):
            raise FramingError("the answer has a malformed header field")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t\r").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Head(int(status[2]), headers, int(status[1]))


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ()
    done = False
    reusable = False

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bool:
        """Whether the end of the connection is a proper end of the body."""
        return True


class FixedLength:
    """A body of an announced length."""

    __slots__ = ("_remaining", "reusable")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.reusable = True

    @property
    def done(self) -> bool:
        return self._remaining == 0

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._remaining:
            data = data[: self._remaining]
            self.reusable = False  # bytes that belong to no answer: the connection cannot be trusted any more
        self._remaining -= len(data)
        return data

    def finish(self) -> bool:
        return self._remaining == 0


class Chunked:
    """A body in chunks."""

    __slots__ = ("_buffer", "_in_trailer", "_remaining", "_trailer_bytes", "done", "reusable")

    def __init__(self) -> None:
        self._buffer = b""
        self._remaining = 0  # of the chunk, with its line end
        self._in_trailer = False
        self._trailer_bytes = 0
        self.done = False
        self.reusable = True

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        pieces = []
        while not self.done:
            if self._remaining:
                if not self._buffer:
                    break
                pieces.append(self._take_content())
                continue
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(line) > CHUNK_LINE_LIMIT_BYTES:
                    raise FramingError("the answer has an overlong chunk header")
                break
            self._buffer = rest
            self._take_line(line.rstrip(b"\r"))
        if self.done and self._buffer:
            self.reusable = False
        return b"".join(pieces)

    def _take_content(self) -> bytes:
        content = self._buffer[: max(self._remaining - 2, 0)]
        self._buffer = self._buffer[len(content) :]
        self._remaining -= len(content)
        while self._remaining <= 2 and self._remaining and self._buffer:
            if self._buffer[:1] != (b"\r" if self._remaining == 2 else b"\n"):
                raise FramingError("a chunk of the answer does not end where it should")
            self._buffer = self._buffer[1:]
            self._remaining -= 1
        return content

    def _take_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > TRAILER_LIMIT_BYTES:
                raise FramingError("the answer has an overlong trailer")
            self.done = not line
            return
        match = _CHUNK_LINE.match(line)
        if match is None:
            raise FramingError("the answer has a malformed chunk header")
        length = int(match[1], 16)
        if length:
            self._remaining = length + 2
        else:
            self._in_trailer = True

    def finish(self) -> bool:
        return self.done


Body = UntilClose | FixedLength | Chunked


def body_of(head: Head) -> Body:
    """How the body that follows a head (of an answer to GET) is framed."""
    if head.status in (204, 304):
        return FixedLength(0)
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise FramingError(f"the answer uses the unknown transfer coding {coding[:40]!r}")
        body = Chunked()
        body.reusable = "content-length" not in head.headers  # both at once: somebody is confused
        return body
    length = head.headers.get("content-length")
    if length is None:
        return UntilClose()
    values = {value.strip() for value in length.split(",")}
    value = values.pop()
    if values or not value.isascii() or not value.isdigit() or len(value) > 18:
        raise FramingError("the answer has a malformed length")
    return FixedLength(int(value))
