"""Every error has a meaning for users: an exit code and a sentence."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import cvmfs_py
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_CODES = {2, 3, 4, 5}
OPTIONAL_LIBRARIES = {"pyfuse3"}


def import_everything() -> None:
    """Subclasses are known once their modules are imported."""
    for module in pkgutil.walk_packages(cvmfs_py.__path__, "cvmfs_py."):
        if module.name == "cvmfs_py.__main__":
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL_LIBRARIES:
                raise


def subclasses(kind: type[CvmfsError]) -> Iterator[type[CvmfsError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_every_error_has_an_exit_code_and_a_docstring() -> None:
    import_everything()
    kinds = [kind for kind in subclasses(CvmfsError) if kind.__module__.startswith("cvmfs_py")]
    assert len(kinds) > 8
    found = [f"{kind.__name__}: exit code {kind.exit_code}" for kind in kinds if kind.exit_code not in EXIT_CODES]
    found += [f"{kind.__name__}: no docstring" for kind in kinds if not kind.__dict__.get("__doc__")]
    assert not found, "\n".join(found)
