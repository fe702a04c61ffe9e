"""The lower rows are plain functions over local state: nothing asynchronous, and, where it matters, no clock."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.house.sources import TOP, Source, imports_of, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

SYNCHRONOUS = ("cache", "catalog", "cvmfs_py/config", "cvmfs_py/errors.py", "cvmfs_py/vfs", "cvmfs_py/trust")
TIMELESS = ("catalog", "cvmfs_py/vfs", "cvmfs_py/trust")  # time and environment are parameters

FORBIDDEN_MODULES = {"time", "random", "secrets", "uuid", "asyncio", "socket", "subprocess", "signal"}
FORBIDDEN_NAMES = {
    "os": {"environ", "environb", "getenv", "getenvb", "urandom", "times", "getpid", "getuid", "geteuid"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "dt": {"now", "utcnow", "today"},
}


def read(*places: str) -> list[Source]:
    files = [Source(TOP / place) for place in places if place.endswith(".py")]
    return files + sources(*(place for place in places if not place.endswith(".py")))


def asynchronous(source: Source) -> Iterator[str]:
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    for node in ast.walk(source.syntax):
        if isinstance(node, kinds):
            yield f"{source.name}:{node.lineno} is asynchronous"
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield f"{source.name} has an asynchronous comprehension"


def impure(source: Source) -> Iterator[str]:
    """Uses of clock, environment, chance and other processes."""
    for imported in imports_of(source):
        top = imported.module.partition(".")[0]
        if top in FORBIDDEN_MODULES or imported.imported in FORBIDDEN_NAMES.get(top, set()):
            yield f"{source.name}:{imported.line} imports {imported.module} {imported.imported or ''}"
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in FORBIDDEN_NAMES.get(owner, set()):
                yield f"{source.name}:{node.lineno} uses {owner}.{node.attr}"


def test_lower_rows_are_synchronous() -> None:
    found = [line for source in read(*SYNCHRONOUS) for line in asynchronous(source)]
    assert not found, "\n".join(found)


def test_core_knows_no_clock_and_no_environment() -> None:
    found = [line for source in read(*TIMELESS) for line in impure(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import monotonic",
        "import os\nx = os.environ.get('A')",
        "from os import environ",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime\nx = datetime.now(UTC)",
        "def f():\n    import random",
    ],
)
def test_impurities_are_found(text: str) -> None:
    made = Source(TOP / "catalog" / "made.py", text)
    assert list(impure(made))


def test_coroutines_are_found() -> None:
    made = Source(TOP / "catalog" / "made.py", "async def f():\n    return [x async for x in y]")
    assert len(list(asynchronous(made))) == 2
