"""Nothing swallows errors that it does not know, but the last guards: the engine's and the command line's."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.house.sources import PACKAGES, TOP, Source, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where a request or a command ends, and how many guards there may be.
GUARDS = {
    "cvmfs_py/cli/app.py": 1,
    "cvmfs_py/cli/reference.py": 1,  # programs with exit codes of their own
    "cvmfs_py/cli/session.py": 1,  # of several repositories one may fail
    "cvmfs_py/fuse/channel.py": 3,  # of what is answered at once, of what has to wait, and of what is done ahead
    "cvmfs_py/fuse/pyfuse3_engine.py": 1,
}
BROAD = {"Exception", "BaseException"}


def broad_handlers(source: Source) -> Iterator[int]:
    """Lines of handlers that catch everything. Cleaning up and raising again catches nothing."""
    for node in ast.walk(source.syntax):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {getattr(kind, "id", getattr(kind, "attr", None)) for kind in caught}
        last = node.body[-1]
        raises_again = isinstance(last, ast.Raise) and last.exc is None and "Exception" not in names
        if (names & BROAD or node.type is None) and not raises_again:
            yield node.lineno


def test_errors_are_caught_by_name() -> None:
    found = []
    for source in sources(*PACKAGES):
        lines = list(broad_handlers(source))
        if len(lines) > GUARDS.get(source.name, 0):
            found += [f"{source.name}:{line}" for line in lines]
    assert not found, "catch what you can handle, by its name:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("handler", "is_broad"),
    [
        ("except Exception:\n    pass", True),
        ("except:\n    pass", True),
        ("except (OSError, BaseException) as error:\n    x = 1", True),
        ("except builtins.Exception:\n    raise", True),
        ("except BaseException:\n    close()\n    raise", False),
        ("except OSError:\n    pass", False),
    ],
)
def test_broad_handlers_are_found(handler: str, is_broad: bool) -> None:
    made = Source(TOP / "cache" / "made.py", f"try:\n    f()\n{handler}\n")
    assert bool(list(broad_handlers(made))) is is_broad
