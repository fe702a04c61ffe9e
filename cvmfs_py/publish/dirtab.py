"""The dirtab: which directories a repository's own file `/.cvmfsdirtab` wants to be the tops of nested catalogs.

One rule a line. `/a/*/b` is a pattern of directories; `*` and `?` stand for any characters of one name, and a backslash
takes the meaning from them. `! pattern` makes exceptions; its wildcards also stand for slashes, and it need not begin
with one. `#` begins a comment line. Pure text; knows no tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BLANKS = b" \t\r\v\f"
_TOKEN = re.compile(rb"\\(.?)|([*?])|([^\\*?]+)", re.DOTALL)
_WILDCARDS = {b"*": b".*", b"?": b"."}


@dataclass(frozen=True, slots=True)
class _Element:
    """The pattern of one name."""

    expression: re.Pattern[bytes]
    literal: bytes | None  # the only name that it matches


@dataclass(frozen=True, slots=True)
class Dirtab:
    """The rules of a dirtab."""

    patterns: tuple[tuple[_Element, ...], ...] = ()
    exceptions: tuple[re.Pattern[bytes], ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Dirtab:
        """Refuses the whole text with a PublishError when any line is bad: half a dirtab would do damage."""
        patterns: dict[tuple[bytes, ...], tuple[_Element, ...]] = {}
        exceptions: dict[tuple[bytes, ...], re.Pattern[bytes]] = {}
        for number, line in enumerate(text.split(b"\n"), start=1):
            stripped = line.strip(_BLANKS)
            if not stripped or stripped.startswith(b"#"):
                continue
            is_exception = stripped.startswith(b"!")
            pattern = stripped[1:].strip(_BLANKS) if is_exception else stripped
            if not pattern:
                continue
            names = tuple(name for name in pattern.split(b"/") if name)
            if not names:
                raise _refusal(number, pattern, "it names no directory")
            is_absolute = pattern.startswith(b"/")
            if is_exception:
                exceptions[names if is_absolute else (b"", *names)] = _exception(names, is_absolute, number)
            elif is_absolute:
                patterns[names] = tuple(_element(name, number) for name in names)
            else:
                raise _refusal(number, pattern, "a pattern must begin with a slash")
        for names in exceptions.keys() & patterns.keys():
            raise PublishError(
                f"/.cvmfsdirtab contradicts itself: {show_path(b'/' + b'/'.join(names))} with and without !"
            )
        return cls(tuple(patterns.values()), tuple(exceptions.values()))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: bytes) -> bool:
        """Whether a directory of this path is to be the top of a nested catalog."""
        if not path or any(exception.match(path) for exception in self.exceptions):
            return False
        names = path[1:].split(b"/")
        return any(
            len(pattern) == len(names)
            and all(element.expression.match(name) for element, name in zip(pattern, names, strict=True))
            for pattern in self.patterns
        )

    def find(
        self, is_directory: Callable[[bytes], bool], subdirectories: Callable[[bytes], Iterable[bytes]]
    ) -> list[bytes]:
        """The directories of a tree that match, in order; looks only where a pattern may lead."""
        found: set[bytes] = set()
        for pattern in self.patterns:
            reached = [b""]
            for element in pattern:
                if element.literal is not None:
                    candidates = [path + b"/" + element.literal for path in reached]
                    reached = [path for path in candidates if is_directory(path)]
                else:
                    matches = element.expression.match
                    reached = [
                        below for path in reached for below in subdirectories(path) if matches(below[len(path) + 1 :])
                    ]
            found.update(path for path in reached if self.matches(path))
        return sorted(found)


def _element(name: bytes, number: int) -> _Element:
    expression = re.compile(_expression(name, number) + rb"\Z", re.DOTALL)
    has_wildcard = any(match[2] for match in _TOKEN.finditer(name))
    return _Element(expression, None if has_wildcard else re.sub(rb"\\(.)", rb"\1", name, flags=re.DOTALL))


def _exception(names: tuple[bytes, ...], is_absolute: bool, number: int) -> re.Pattern[bytes]:
    joined = b"/".join(_expression(name, number) for name in names)
    return re.compile((b"/" if is_absolute else b"") + joined + rb"\Z", re.DOTALL)


def _expression(name: bytes, number: int) -> bytes:
    parts = []
    for match in _TOKEN.finditer(name):
        escaped, wildcard, plain = match.groups()
        if escaped is not None and escaped not in (b"*", b"?", b"\\"):
            raise _refusal(number, name, "a backslash stands before a wildcard or a backslash only")
        parts.append(_WILDCARDS[wildcard] if wildcard else re.escape(escaped or plain))
    return b"".join(parts)


def _refusal(number: int, pattern: bytes, reason: str) -> PublishError:
    return PublishError(f"/.cvmfsdirtab, line {number}: {show_path(pattern)} is no rule: {reason}")
