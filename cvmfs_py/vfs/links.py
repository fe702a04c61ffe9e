"""Variant symlinks: expands `$(NAME:-default)` in a stored target. Pure; the variables are a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def expand_target(target: bytes, variables: Mapping[bytes, bytes]) -> bytes:
    """The target as readlink shows it. A variable that is set, even to nothing, beats the default."""
    start = target.find(b"$(")
    if start < 0:
        return target
    parts: list[bytes] = []
    done = 0
    while start >= 0:
        # The first ")" ends an expression, so there is no nesting; without one the rest stays literal. A search in
        # both directions at once, as a regular expression does it, would take hours for a long row of "$(".
        end = target.find(b")", start + 2)
        if end < 0:
            break
        name, _, default = target[start + 2 : end].partition(b":-")
        parts += (target[done:start], variables.get(name, default))
        done = end + 1
        start = target.find(b"$(", done)
    parts.append(target[done:])
    return b"".join(parts)
