"""URLs of servers: taking them apart, and escaping paths as the field does.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/:.@+_~[],-")
_SAFE_TEXT = re.compile(rb"[A-Za-z0-9/:.@+_~\[\],-]*\Z")
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)\Z", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443, "file": 0}


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL; `path` is escaped already."""

    scheme: str
    host: str  # without brackets
    port: int
    authority: str  # as it belongs into the Host header
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def escape(path: bytes) -> str:
    """Everything but a few harmless characters becomes %XX; also `?` and `%`, so that no path can become a query."""
    if _SAFE_TEXT.match(path):
        return path.decode("ascii")
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in path)


def parse_base(text: str) -> Url | None:
    """A host of the configuration, `http://server/cvmfs/fqrn`; None for nonsense."""
    return _parse(text, escape_path=True)


def parse_location(text: str, base: Url) -> Url | None:
    """The target of a redirect, absolute or relative to the URL that answered. Escapes of the server stay."""
    if text.startswith("//"):
        text = f"{base.scheme}:{text}"
    elif text.startswith("/"):
        text = f"{base.scheme}://{base.authority}{text}"
    elif not re.match(r"[A-Za-z]+://", text):
        text = f"{base.scheme}://{base.authority}{base.path.rpartition('/')[0]}/{text}"
    match = re.match(r"([A-Za-z]+://[^/?#]*)([^#]*)", text)
    if match is None or any(not 0x21 <= ord(char) <= 0x7E for char in text):
        return None
    root = _parse(match[1], escape_path=False)
    if root is None:
        return None
    rest = match[2] if match[2].startswith("/") else "/" + match[2]
    return Url(root.scheme, root.host, root.port, root.authority, rest)


def url_of(base: Url, path: bytes) -> Url:
    """A path below a host."""
    separator = "" if path.startswith(b"/") else "/"
    return Url(base.scheme, base.host, base.port, base.authority, f"{base.path}{separator}{escape(path)}")


@lru_cache(maxsize=256)
def _parse(text: str, *, escape_path: bool) -> Url | None:
    match = _URL.match(text.strip())
    if match is None:
        return None
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        return None
    path = match["path"].rstrip("/")
    if escape_path:
        path = escape(path.encode("utf-8", "surrogateescape"))  # bytes of the command line, whatever they mean
    if scheme == "file":
        return None if match["authority"] not in ("", "localhost") else Url("file", "", 0, "", path)
    authority = _AUTHORITY.match(match["authority"])
    if authority is None:
        return None
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        return None
    return Url(scheme, authority["host"].strip("[]"), port, match["authority"], path)
