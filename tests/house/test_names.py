"""Modules are nouns of the field and say what they are for."""

from __future__ import annotations

import ast

from tests.house.sources import PACKAGES, sources

EVERYWHERE = (*PACKAGES, "tests", "benchmarks")
MEANINGLESS = {"utils", "util", "utilities", "common", "helpers", "helper", "misc", "tools", "base", "core", "lib"}


def test_no_module_is_a_drawer() -> None:
    """Names that say nothing collect everything."""
    found = []
    for source in sources(*EVERYWHERE):
        words = {word for part in source.module.split(".") for word in (part, *part.split("_"))}
        drawers = words & MEANINGLESS
        if drawers:
            found.append(f"{source.name}: {', '.join(drawers)}")
    assert not found, "name these after their job:\n" + "\n".join(found)


def test_every_module_has_a_docstring() -> None:
    found = [
        source.name
        for source in sources(*EVERYWHERE)
        if source.text.strip() and not (ast.get_docstring(source.syntax) or "").strip()
    ]
    assert not found, "these do not say what they are for:\n" + "\n".join(found)
