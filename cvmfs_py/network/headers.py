"""The header fields of requests, and what header fields of answers tell about who is to blame.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cvmfs_py import __version__
from cvmfs_py.network.urls import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.network.options import NetworkConfig

NO_CACHE = (("Pragma", "no-cache"), ("Cache-Control", "no-cache"))
TRACING_LIMIT_CHARS = 1000


def standing_fields(config: NetworkConfig) -> tuple[tuple[str, str], ...]:
    """What goes with every request. Never asks for a content coding: a re-coded object has another hash."""
    agent = f"cvmfs-py/{__version__} (cvmfs)"
    uuid = re.sub(r"[^A-Za-z0-9-]", "", config.cernvm_uuid)
    if uuid:
        agent += f" {uuid}"
    fields = [("Connection", "Keep-Alive"), ("User-Agent", agent), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
    if config.http_tracing:
        fields += parse_tracing(config.http_tracing_headers)
    return tuple(fields)


def info_field(label: str) -> tuple[str, str]:
    """What the request is for, for the statistics of proxies."""
    return ("cvmfs-info", escape(label.encode("utf-8", errors="surrogateescape")))


def parse_tracing(text: str) -> list[tuple[str, str]]:
    """`key:value|key:value`: the user's header fields; malformed ones are left out."""
    if len(text) > TRACING_LIMIT_CHARS:
        return []
    fields = []
    for token in text.split("|"):
        key, colon, value = (part.strip() for part in token.partition(":"))
        if colon and ":" not in value and key.isascii() and key.isalnum() and value.isprintable() and value.isascii():
            fields.append((f"X-CVMFS-{key}", value))
    return fields


def proxy_error(headers: Mapping[str, str]) -> str | None:
    """What a proxy says about an answer that it made up itself."""
    squid = headers.get("x-squid-error")
    if squid is not None:
        return squid
    status = headers.get("proxy-status")
    if status is not None and "error=" in status:
        return status
    return None


def recoding(headers: Mapping[str, str]) -> str | None:
    """The content coding that somebody on the way has applied."""
    coding = headers.get("content-encoding", "").strip()
    return None if coding.lower() in ("", "identity") else coding
