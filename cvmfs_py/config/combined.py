"""Settings that are made of more than one parameter, or by a rule of their own.

Pure.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.config.parameters import XattrVisibility
from cvmfs_py.config.parse import parse_switch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfs_py.config.parameters import Parameter

_TRACING_LIMIT_CHARACTERS = 1000


def is_on(text: str | None) -> bool:
    return bool(parse_switch(text or ""))


def lower_caches(parameters: Mapping[str, Parameter]) -> tuple[Path, ...]:
    """Our own list first, then the alien cache; each once."""
    texts = [*_value(parameters, "CVMFS_PY_LOWER_CACHES").split(":"), _value(parameters, "CVMFS_ALIEN_CACHE")]
    return tuple(dict.fromkeys(Path(text.strip()) for text in texts if text.strip()))


def blacklists(parameters: Mapping[str, Parameter], etc_dir: Path, config_directory: Path | None) -> tuple[Path, ...]:
    """The configured blacklist, or the machine's, and that of the configuration repository."""
    paths = [Path(_value(parameters, "CVMFS_BLACKLIST") or etc_dir / "blacklist")]
    if config_directory is not None:
        paths.append(config_directory / "blacklist")
    return tuple(dict.fromkeys(paths))


def magic_xattrs_visibility(parameters: Mapping[str, Parameter]) -> XattrVisibility:
    """What the newer parameter says, else what the older one does; a word that is none says nothing."""
    text = _value(parameters, "CVMFS_MAGIC_XATTRS_VISIBILITY").strip()
    for visibility in XattrVisibility:
        if visibility.value == text:
            return visibility
    is_hidden = parse_switch(_value(parameters, "CVMFS_HIDE_MAGIC_XATTRS"))
    if is_hidden is None:
        return XattrVisibility.ROOT_ONLY
    return XattrVisibility.NEVER if is_hidden else XattrVisibility.ALWAYS


def parse_tracing_headers(text: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The headers of `name:value|name:value`, and complaints about those that are left out."""
    if len(text) > _TRACING_LIMIT_CHARACTERS:
        return (), (f"CVMFS_HTTP_TRACING_HEADERS is longer than {_TRACING_LIMIT_CHARACTERS} characters and left out",)
    headers: list[tuple[str, str]] = []
    complaints: list[str] = []
    for token in filter(None, map(str.strip, text.split("|"))):
        name, _, value = token.partition(":")
        name, value = name.strip(), value.strip()
        if token.count(":") == 1 and name.isascii() and name.isalnum() and value.isprintable():
            headers.append((name, value))
        else:
            complaints.append(f"CVMFS_HTTP_TRACING_HEADERS: {token!r} is no name:value and left out")
    return tuple(headers), tuple(complaints)


def find_conflicts(parameters: Mapping[str, Parameter]) -> list[str]:
    """Parameters of which only one can count."""
    warnings: list[str] = []
    if _value(parameters, "CVMFS_ROOT_HASH") and _value(parameters, "CVMFS_REPOSITORY_TAG"):
        warnings.append("CVMFS_ROOT_HASH is set, so CVMFS_REPOSITORY_TAG does not count")
    if _value(parameters, "CVMFS_REPOSITORY_DATE") and (
        _value(parameters, "CVMFS_ROOT_HASH") or _value(parameters, "CVMFS_REPOSITORY_TAG")
    ):
        warnings.append("a root hash or tag is set, so CVMFS_REPOSITORY_DATE does not count")
    return warnings


def _value(parameters: Mapping[str, Parameter], name: str) -> str:
    parameter = parameters.get(name)
    return parameter.value if parameter is not None else ""
