"""Parameters as text: the dump that other tools evaluate, the trace for people, and the reference of all parameters.

Pure; prints nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cvmfs_py.config.parameter_table import specs
from cvmfs_py.config.parameters import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.config.settings import Settings

_PLAIN = re.compile(r"[0-9A-Za-z/:._,-]*\Z")


def quote_value(value: str) -> str:
    """As the reference client writes it: quoted where there is a special character, with \\' for an inner quote."""
    if _PLAIN.match(value):
        return value
    return "'" + value.replace("'", "\\'") + "'"


def format_parameters(settings: Settings, *, with_defaults: bool = False) -> str:
    """A line `NAME=value    # from SOURCE` for every parameter that is set, sorted; with the defaults where asked."""
    lines = {
        name: f"{name}={quote_value(parameter.value)}    # from {parameter.source}"
        for name, parameter in settings.parameters.items()
    }
    if with_defaults:
        for spec in specs().values():
            if spec.default:
                lines.setdefault(spec.name, f"{spec.name}={quote_value(spec.default)}    # from {BUILTIN}")
            else:
                lines.setdefault(spec.name, f"{spec.name}=")
    return "".join(f"{line}\n" for _, line in sorted(lines.items()))


def format_trace(settings: Settings) -> str:
    """Every assignment of every parameter, the one in force first, the overridden ones below it."""
    lines: list[str] = []
    for name, parameter in sorted(settings.parameters.items()):
        lines.append(f"{name}={quote_value(parameter.value)}    # from {parameter.source}")
        lines += [f"    was {quote_value(old.value)}    # from {old.source}" for old in reversed(parameter.trace[:-1])]
    return "".join(f"{line}\n" for line in lines)


def format_reference() -> str:
    """The table of all parameters, in Markdown, for the documentation."""
    return "\n".join(_reference_lines()) + "\n"


def _reference_lines() -> Iterator[str]:
    group = ""
    for spec in specs().values():
        if spec.group != group:
            if group:
                yield ""
            group = spec.group
            yield from (f"### {group}", "", "| parameter | form | default | meaning |", "|---|---|---|---|")
        default = f"as {spec.like}" if spec.like else (spec.default or "")
        cells = (f"`{spec.name}`", spec.kind.value, default, spec.meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
