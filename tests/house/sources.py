"""Reads the project's own source files for the house tests. Executes none of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
PACKAGES = ("cache", "catalog", "cvmfs_py")


@dataclass(frozen=True)
class Source:
    """One Python file of the project, or a text in the place of one."""

    path: Path
    given: str | None = None

    @property
    def name(self) -> str:
        """Its place in the tree, for messages."""
        return str(self.path.relative_to(TOP))

    @property
    def module(self) -> str:
        parts = self.path.relative_to(TOP).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.given is None else self.given

    @cached_property
    def syntax(self) -> ast.Module:
        return ast.parse(self.text, self.name)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, or one name out of a module, and where that is written."""

    module: str  # absolute
    imported: str | None  # the name taken from it; None: the module itself
    line: int


def sources(*folders: str) -> list[Source]:
    """The Python files below these folders of the project."""
    return [Source(path) for folder in folders for path in sorted((TOP / folder).rglob("*.py"))]


def imports_of(source: Source) -> Iterator[Import]:
    """Every import anywhere in a file: inside functions and for type checking, too."""
    is_package = source.path.name == "__init__.py"
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = source.module.split(".")
                keep = len(parents) - node.level + is_package
                module = ".".join([*parents[:keep], *([module] if module else [])])
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
