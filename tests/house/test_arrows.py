"""Imports point only to strictly lower rows, and each foreign library has its place."""

from __future__ import annotations

import pytest

from tests.house.sources import PACKAGES, TOP, Import, Source, imports_of, sources

# Within row 2 the leaves come first: everything may raise an error or write to the log, also the configuration.
ROWS = {
    "cvmfs_py.__main__": 8,
    "cvmfs_py.cli": 7,
    "cvmfs_py.mount": 6,
    "cvmfs_py.fuse": 5,
    "cvmfs_py.control": 5,
    "cvmfs_py.driver": 4,
    "cvmfs_py.network": 4,
    "cvmfs_py.publish": 4,
    "cvmfs_py.serving": 4,
    "cvmfs_py.vfs": 3,
    "cvmfs_py.trust": 3,
    "cvmfs_py.config": 2.5,
    "cvmfs_py.errors": 2,
    "cvmfs_py.logs": 2,
    "cvmfs_py.numerals": 2,
    "cvmfs_py.stats": 2,
    "cvmfs_py.places": 1.5,
    "cvmfs_py.own_mounts": 1.2,
    "cvmfs_py.installation": 1.5,
    "catalog": 1,
    "cache": 0,
    "cvmfs_py": -1,
}

# Who may import a library, whole packages or single modules.
PLACES = {
    "pyfuse3": ("cvmfs_py.fuse",),
    "httpx": ("cvmfs_py.network",),
    "httpcore": ("cvmfs_py.network",),
    "trio": tuple(name for name, row in ROWS.items() if row >= 4),
    "cryptography": ("cvmfs_py.trust", "cvmfs_py.publish"),
    "sqlite3": ("catalog", "cache"),
    "sqlite_utils": ("catalog", "cache"),
}

# What the catalogs may know of the cache: addresses, references, and the pin that an opener returns.
CATALOG_TAKES = {"cache.address", "cache.ref", "cache.pins"}


def row_name(module: str) -> str | None:
    """The entry of ROWS that a module belongs to; None: not a module of ours."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in ROWS), None)


def target_of(imported: Import) -> str:
    """The module that an import is about: `from cvmfs_py import logs` is about `cvmfs_py.logs`."""
    full = f"{imported.module}.{imported.imported}"
    return full if imported.imported and row_name(full) == full else imported.module


def wrong_arrows(source: Source) -> list[str]:
    importer = row_name(source.module)
    assert importer is not None
    found = []
    for imported in imports_of(source):
        module = target_of(imported)
        where = f"{source.name}:{imported.line} imports {module}"
        library = module.partition(".")[0]
        if library in PLACES and importer not in PLACES[library]:
            found.append(f"{where}: {library} belongs to {', '.join(PLACES[library])} only")
        name = row_name(module)
        if name is not None and name != importer and ROWS[name] >= ROWS[importer]:
            found.append(f"{where}: row {ROWS[importer]} must not know row {ROWS[name]}")
        if importer == "catalog" and name == "cache" and module not in CATALOG_TAKES:
            found.append(f"{where}: catalogs take only {', '.join(sorted(CATALOG_TAKES))} from the cache")
        if library in ("tests", "benchmarks"):
            found.append(f"{where}: the program must not need its tests")
    return found


def test_every_module_has_a_row() -> None:
    """A module beside the known ones would escape the table: `cvmfs_py` itself stands for `__init__` only."""
    strays = [source.name for source in sources("cvmfs_py") if row_name(source.module) == "cvmfs_py"]
    assert strays == ["cvmfs_py/__init__.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_down(package: str) -> None:
    read = sources(package)
    assert read
    found = [line for source in read for line in wrong_arrows(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("place", "text", "complaints"),
    [
        ("catalog/new.py", "import trio", 1),
        ("catalog/new.py", "def f():\n    import cvmfs_py.trust", 1),
        ("catalog/new.py", "from cache.store import Store", 1),
        ("catalog/new.py", "from cache.address import Kind\nimport sqlite3", 0),
        ("cvmfs_py/vfs/new.py", "if TYPE_CHECKING:\n    from cvmfs_py.trust import keys", 1),
        ("cvmfs_py/vfs/new.py", "from . import snapshot\nfrom cvmfs_py import errors\nfrom catalog.tree import x", 0),
        ("cvmfs_py/vfs/new.py", "from .. import driver", 1),
        ("cvmfs_py/vfs/__init__.py", "from ..network.client import x", 1),
        ("cvmfs_py/network/new.py", "import httpx\nimport sqlite3\nfrom cryptography import x509", 2),
        ("cache/new.py", "from tests.simulator import signing", 1),
    ],
)
def test_wrong_arrows_are_found(place: str, text: str, complaints: int) -> None:
    assert len(wrong_arrows(Source(TOP / place, text))) == complaints
