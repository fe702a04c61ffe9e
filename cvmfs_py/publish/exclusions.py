"""Patterns of paths that a publication leaves alone: neither read from the source nor removed from the repository.

`*` and `?` stand for any characters of one name, `[ab]` for one of several, `**` for any number of names. A pattern
with a slash in it is the path from the top of the source; one without matches names everywhere. A slash at the end is
for readers only. What is below something excluded is excluded, too. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN = re.compile(rb"\*\*/?|\*|\?|\[!?\]?[^\]]*\]|\\.|.", re.DOTALL)
_SIMPLE = {b"*": rb"[^/]*", b"?": rb"[^/]", b"**/": rb"(?:[^/]+/)*", b"**": rb".*"}


class Exclusions:
    """Several patterns as one."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        """Refuses what is no pattern with a ConfigError."""
        expressions = [_expression(pattern) for pattern in patterns]
        self._match = re.compile(b"|".join(expressions), re.DOTALL).match if expressions else None

    def __bool__(self) -> bool:
        return self._match is not None

    def __call__(self, path: bytes) -> bool:
        """Whether an entry with this path (`/a/b`, from the top of the source) is left alone."""
        return self._match is not None and self._match(path) is not None


def _expression(pattern: bytes) -> bytes:
    text = pattern.rstrip(b"/")
    if not text:
        raise ConfigError(f"the pattern {show_path(pattern)!r} would exclude everything, or nothing")
    parts = []
    for token in _TOKEN.findall(text.lstrip(b"/")):
        if token in _SIMPLE:
            parts.append(_SIMPLE[token])
        elif token.startswith(b"[") and len(token) > 2:
            parts.append(_one_of(token[1:-1]))
        elif token.startswith(b"\\") and len(token) == 2:
            parts.append(re.escape(token[1:]))
        else:
            parts.append(re.escape(token))
    start = b"/" if b"/" in text else b"/(?:.*/)?"
    expression = start + b"".join(parts) + rb"\Z"
    try:
        re.compile(expression, re.DOTALL)
    except re.error:
        raise ConfigError(f"{show_path(pattern)!r} is no pattern of paths") from None
    return expression


def _one_of(inside: bytes) -> bytes:
    negation = b""
    if inside.startswith(b"!"):
        negation, inside = b"^", inside[1:]
    escaped = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", inside)
    return b"(?!/)[" + negation + escaped + b"]"
