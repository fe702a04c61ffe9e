"""What was decided about a repository when it was made, and its JSON file (`NAME.conf` beside the keys).

Knows nothing of keys, storage or command lines. Immutable values.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.address import Algorithm
from cvmfs_py.config.fqrn import check_name
from cvmfs_py.errors import ConfigError
from cvmfs_py.numerals import counted

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_VERSION = 1
MEBIBYTE = 1 << 20

# The names of the algorithms for content, as people give them. MD5 is none of them.
ALGORITHM_NAMES = {"sha1": Algorithm.SHA1, "rmd160": Algorithm.RMD160, "shake128": Algorithm.SHAKE128}
# The compressions of file content by the value in the flags of a catalog row.
COMPRESSION_CODES = {"zlib": 0, "none": 1, "zstd": 2}
_MAXIMUM = 1 << 31
_OLD_LIMIT = 1 << 16  # bytes of a settings file


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """The settings of one repository. Values that make no sense are refused with a ConfigError."""

    fqrn: str
    algorithm: Algorithm = Algorithm.SHA1
    compression: str = "zlib"  # of file content: zlib, none, zstd; catalogs and the like are always zlib
    ttl_s: int = 240
    is_volatile: bool = False
    is_garbage_collectable: bool = True
    chunk_min_bytes: int = 4 * MEBIBYTE
    chunk_average_bytes: int = 8 * MEBIBYTE
    chunk_max_bytes: int = 16 * MEBIBYTE
    auto_catalog_entries: int | None = None  # split catalogs above this number of entries; None: never
    has_alternative_paths: bool = False

    def __post_init__(self) -> None:
        check_name(self.fqrn)
        if self.algorithm not in ALGORITHM_NAMES.values():
            raise ConfigError(f"{self.algorithm.name} is no hash algorithm for content: use {_names(ALGORITHM_NAMES)}")
        if self.compression not in COMPRESSION_CODES:
            raise ConfigError(f"there is no compression {self.compression!r}: use {_names(COMPRESSION_CODES)}")
        if not 1 <= self.ttl_s < _MAXIMUM:
            raise ConfigError(f"a time to live of {self.ttl_s} s makes no sense: give at least 1")
        if not 1 <= self.chunk_min_bytes <= self.chunk_average_bytes <= self.chunk_max_bytes < _MAXIMUM:
            raise ConfigError(
                f"chunks of {self.chunk_min_bytes} to {self.chunk_max_bytes} bytes, {self.chunk_average_bytes} on the "
                "average, cannot be: minimum, average and maximum must rise and stay below 2 GiB"
            )
        if self.auto_catalog_entries is not None and self.auto_catalog_entries < 2:
            most = counted(self.auto_catalog_entries, "entry", "entries")
            raise ConfigError(f"catalogs of at most {most} cannot be: give at least 2")

    @property
    def chunking_above_bytes(self) -> int:
        """Files above this size are chunked."""
        return self.chunk_max_bytes

    @property
    def algorithm_name(self) -> str:
        return next(name for name, algorithm in ALGORITHM_NAMES.items() if algorithm is self.algorithm)


def parse_algorithm(name: str) -> Algorithm:
    """The algorithm that people call so."""
    found = ALGORITHM_NAMES.get(name.lower().replace("-", ""))
    if found is None:
        raise ConfigError(f"there is no hash algorithm {name!r}: use {_names(ALGORITHM_NAMES)}")
    return found


def format_settings(settings: RepositorySettings) -> str:
    """As JSON text."""
    values: dict[str, Any] = {"format": FORMAT_VERSION}
    values |= {name: getattr(settings, name) for name in _FIELDS}
    values["algorithm"] = settings.algorithm_name
    return json.dumps(values, indent=2) + "\n"


def parse_settings(text: str | bytes, source: str) -> RepositorySettings:
    """From JSON text; `source` is what to call it in complaints. A missing value is the default."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{source} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source} is damaged: it is no JSON object")
    version = values.pop("format", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ConfigError(f"{source} has format {version!r}, which this version cannot read: use a newer cvmfs-py")
    unknown = sorted(set(values) - set(_FIELDS))
    if unknown:
        raise ConfigError(f"{source} has a setting {unknown[0]!r}, which this version does not know")
    for name, value in values.items():
        if not _is_of_type(name, value):
            raise ConfigError(f"{source}: {value!r} is no value for {name}")
    if "fqrn" not in values:
        raise ConfigError(f"{source} does not name its repository")
    if "algorithm" in values:
        values["algorithm"] = parse_algorithm(values["algorithm"])
    return RepositorySettings(**values)


def load_settings(file: Path) -> RepositorySettings:
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"the repository has no settings, {file} is missing: `cvmfs-py repo adopt DIR` makes them for one that was "
            "made elsewhere"
        ) from error
    except OSError as error:
        raise ConfigError(f"the repository's settings cannot be read from {file}: {error.strerror}") from error
    return parse_settings(text[:_OLD_LIMIT], str(file))


def store_settings(settings: RepositorySettings, file: Path) -> None:
    """Write the file anew, whole or not at all."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        temporary.write_text(format_settings(settings), encoding="utf-8")
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"the repository's settings cannot be written to {file}: {error.strerror}") from error


_FIELDS = tuple(field.name for field in dataclasses.fields(RepositorySettings))
_BOOLEANS = frozenset(name for name in _FIELDS if name.startswith(("is_", "has_")))
_TEXTS = frozenset(("fqrn", "algorithm", "compression"))


def _is_of_type(name: str, value: object) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _BOOLEANS:
        return isinstance(value, bool)
    return type(value) is int or (value is None and name == "auto_catalog_entries")


def _names(table: dict[str, Any]) -> str:
    return ", ".join(table)
