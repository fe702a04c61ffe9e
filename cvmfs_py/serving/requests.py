"""The grammar of HTTP/1 requests as far as a static server needs it. Pure; what a client can send is bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

HEAD_LIMIT_BYTES = 16 << 10
HEADER_COUNT_LIMIT = 64

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,8000}) HTTP/1\.([01])\Z")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_ABSOLUTE = re.compile(rb"https?://[^/]*", re.IGNORECASE)


class RequestError(Exception):
    """The bytes are not a request that is served; carries the status to answer, and what headers it needs."""

    def __init__(self, status: int, reason: str, *headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head."""

    method: str
    target: str  # as sent, for the log
    path: bytes  # decoded, without the query
    headers: dict[str, str]
    minor_version: int

    @property
    def keeps_alive(self) -> bool:
        tokens = [token.strip() for token in self.headers.get("connection", "").lower().split(",")]
        return "close" not in tokens and (self.minor_version == 1 or "keep-alive" in tokens)


def split_request(buffer: bytes) -> tuple[Request, bytes] | None:
    """The head of the first request and what follows it; None when more bytes are needed."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > HEAD_LIMIT_BYTES:
            raise RequestError(431, "the head of the request is too large")
        return None
    if end > HEAD_LIMIT_BYTES:
        raise RequestError(431, "the head of the request is too large")
    return _parse(buffer[:end]), buffer[end + 4 :]


def _parse(head: bytes) -> Request:
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.match(first)
    if match is None:
        raise RequestError(400, "the request is not HTTP/1")
    if len(lines) > HEADER_COUNT_LIMIT:
        raise RequestError(431, "the request has too many header fields")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.match(name):
            raise RequestError(400, "the request has a malformed header field")
        headers[name.decode("ascii").lower()] = value.strip().decode("latin-1")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise RequestError(413, "requests with a body are not served")
    path = _ABSOLUTE.sub(b"", match[2], count=1).partition(b"?")[0]
    return Request(match[1].decode(), match[2].decode("latin-1"), unquote_to_bytes(path), headers, int(match[3]))


def parse_range(text: str, size_bytes: int) -> tuple[int, int] | None:
    """First byte and length of a single range; None to answer with everything. Raises RequestError(416)."""
    match = _RANGE.match(text.strip())
    if match is None or (not match[1] and not match[2]):
        return None  # several ranges, other units, nonsense: it is always right to send everything
    if not match[1]:
        length = min(int(match[2]), size_bytes)
        first = size_bytes - length
    else:
        first = int(match[1])
        last = min(int(match[2]), size_bytes - 1) if match[2] else size_bytes - 1
        if match[2] and int(match[2]) < first:
            return None
        length = last - first + 1
    if length <= 0 or first >= size_bytes:
        raise RequestError(416, "the range is outside of the file", f"Content-Range: bytes */{size_bytes}")
    return first, length
