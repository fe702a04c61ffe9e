"""What is wrong, doubtful or without effect in a configuration, for `config check`.

Looks at settings and at the files they name; changes nothing, asks no server. Whether a key is valid, `trust` says.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cvmfs_py.config.id_map import load_id_map
from cvmfs_py.config.keys import load_blacklist_texts, load_master_key_texts
from cvmfs_py.config.parameter_table import UNUSED_NAMES, specs
from cvmfs_py.config.parameters import BUILTIN, COMMAND_LINE, ENVIRONMENT, Kind
from cvmfs_py.config.parse import parse_integer
from cvmfs_py.config.spelling import find_intended
from cvmfs_py.config.typed import find_fault
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cvmfs_py.config.settings import Settings

_SCHEMES = ("http", "https", "file")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at."""

    is_error: bool  # False: it works, but perhaps not as meant
    message: str
    is_note: bool = False  # nothing needs to be done about it

    def __str__(self) -> str:
        return f"{'Error' if self.is_error else 'Note' if self.is_note else 'Warning'}: {self.message}"


def check_settings(settings: Settings, more_warnings: Iterable[str] = ()) -> list[Finding]:
    """All findings, errors first, notes last. Made for settings that were loaded with `require_servers=False`."""
    findings = [Finding(False, warning) for warning in (*more_warnings, *settings.warnings)]
    findings += _check_values(settings)
    findings += _check_names(settings)
    if settings.fqrn:
        findings += _check_servers(settings)
        findings += _check_files(settings, load_master_key_texts)
    findings += _check_files(settings, load_blacklist_texts)
    findings += _check_files(settings, _load_id_maps)
    findings += _check_cache(settings)
    findings += _list_unused(settings)
    return sorted(dict.fromkeys(findings), key=lambda finding: (not finding.is_error, finding.is_note))


def _check_values(settings: Settings) -> Iterator[Finding]:
    known = specs()
    for name, parameter in settings.parameters.items():
        spec = known.get(name)
        if spec is None or not parameter.value:
            continue
        fault = find_fault(spec.kind, parameter.value)
        if fault is not None:
            yield Finding(True, f"{name} in {parameter.source}: {fault}")
        elif spec.kind is Kind.PATH and not os.path.isabs(parameter.value) and parameter.source != ENVIRONMENT:
            yield Finding(False, f"{name} in {parameter.source}: {parameter.value} depends on the current directory")


def _check_names(settings: Settings) -> Iterator[Finding]:
    for name, parameter in settings.parameters.items():
        intended = find_intended(name) if parameter.source != COMMAND_LINE else None  # which has been warned of
        if intended is not None:
            yield Finding(False, f"{name} in {parameter.source} is unknown; is {intended} meant?")


def _list_unused(settings: Settings) -> Iterator[Finding]:
    unused = [name for name, parameter in settings.parameters.items() if name in UNUSED_NAMES and parameter.value]
    if unused:
        yield Finding(False, f"without effect in this version: {', '.join(unused)}", is_note=True)


def _check_servers(settings: Settings) -> Iterator[Finding]:
    if not settings.servers:
        yield Finding(True, f"no server is known for {settings.fqrn} (CVMFS_SERVER_URL)")
    for name, urls in (("CVMFS_SERVER_URL", settings.servers), ("CVMFS_EXTERNAL_URL", settings.external_servers)):
        for url in urls:
            fault = find_url_fault(url)
            if fault is not None:
                yield Finding(True, f"{name}: {url!r} {fault}")
    for name, text in (
        ("CVMFS_HTTP_PROXY", settings.http_proxy),
        ("CVMFS_FALLBACK_PROXY", settings.fallback_proxy),
        ("CVMFS_EXTERNAL_HTTP_PROXY", settings.external_http_proxy),
        ("CVMFS_EXTERNAL_FALLBACK_PROXY", settings.external_fallback_proxy),
    ):
        for proxy in filter(None, map(str.strip, re.split("[;|]", text))):
            fault = find_proxy_fault(proxy)
            if fault is not None:
                yield Finding(False, f"{name}: {proxy!r} {fault}")


def find_url_fault(url: str) -> str | None:
    """What is wrong with the URL of a server, as the end of a sentence; None: nothing."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is no URL ({error})"
    if parts.scheme not in _SCHEMES:
        return "does not begin with http://, https:// or file://"
    if parts.scheme != "file" and not parts.hostname:
        return "names no host"
    if any(character.isspace() for character in url):
        return "has a blank in it (the separator is ;)"
    return "has a template that is not known" if "@" in parts.path else None


def find_proxy_fault(proxy: str) -> str | None:
    """The same of a proxy."""
    if proxy in ("DIRECT", "auto"):
        return None
    if proxy.lower() in ("direct", "auto"):
        return f"is written {proxy.upper() if proxy.lower() == 'direct' else 'auto'}"
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port
    except ValueError as error:
        return f"is no proxy ({error})"
    if not parts.hostname or any(character.isspace() for character in proxy):
        return "is no proxy (separators are ; and |)"
    return "has no port" if port is None else None


def _load_id_maps(settings: Settings) -> None:
    for path in (settings.uid_map, settings.gid_map):
        if path is not None:
            load_id_map(path)


def _check_files(settings: Settings, load: Callable[[Settings], object]) -> Iterator[Finding]:
    try:
        load(settings)
    except ConfigError as error:
        yield Finding(True, str(error))


def _check_cache(settings: Settings) -> Iterator[Finding]:
    def value(name: str) -> str:
        parameter = settings.parameters.get(name)
        return parameter.value if parameter is not None and parameter.source != BUILTIN else ""

    if value("CVMFS_CACHE_DIR") and value("CVMFS_CACHE_BASE") and not value("CVMFS_PY_CACHE_DIR"):
        yield Finding(
            False,
            "both CVMFS_CACHE_DIR and CVMFS_CACHE_BASE are set: here CVMFS_CACHE_DIR counts, the C++ client refuses",
        )
    for path in settings.lower_caches:
        if not path.is_dir():
            yield Finding(True, f"the lower cache {path} does not exist (CVMFS_ALIEN_CACHE, CVMFS_PY_LOWER_CACHES)")
    if value("CVMFS_QUOTA_LIMIT") and 0 < parse_integer(value("CVMFS_QUOTA_LIMIT")) < 64:
        yield Finding(
            False, "CVMFS_QUOTA_LIMIT is less than 64 MiB, which is too little for the catalogs of most repositories"
        )
