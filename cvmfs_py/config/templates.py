"""Expansion of `@fqrn@` and `@org@` in parameter values.

Pure text. The scan goes from one at-sign to the next, in pairs: what stands between a pair is a name, known or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.config.fqrn import organisation_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def repository_templates(fqrn: str) -> dict[str, str]:
    """What the names stand for; nothing without a repository, so that its templates stay for later."""
    return {"fqrn": fqrn, "org": organisation_of(fqrn)} if fqrn else {}


def expand_templates(value: str, templates: Mapping[str, str]) -> str:
    """The value with every known `@name@` replaced; an unknown pair and a lone at-sign stay as they are."""
    parts = value.split("@")
    expanded = [parts[0]]
    index = 1
    while index + 1 < len(parts):
        name, text_behind = parts[index], parts[index + 1]
        expanded.append(templates.get(name, f"@{name}@"))
        expanded.append(text_behind)
        index += 2
    if index < len(parts):
        expanded.append("@" + parts[index])
    return "".join(expanded)
