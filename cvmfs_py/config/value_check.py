"""Whether a value may be written for a parameter: before it is, more is refused than where files are read.

Pure text. Whether files exist and servers answer, others find out.
"""

from __future__ import annotations

import os
import re

from cvmfs_py.config.check import find_proxy_fault, find_url_fault
from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs
from cvmfs_py.config.parameters import COMMAND_LINE, Assignment, Kind, Parameter
from cvmfs_py.config.parse import check_option_name
from cvmfs_py.config.spelling import find_intended
from cvmfs_py.config.typed import parse_value
from cvmfs_py.errors import ConfigError

_PROXIES = re.compile(r"CVMFS_(?:EXTERNAL_)?(?:HTTP|FALLBACK)_PROXY\Z")


def check_assignment(name: str, value: str) -> tuple[str, ...]:
    """Refuses what makes no sense; gives what the user should know about the rest."""
    check_option_name(name)
    known = specs()
    spec = known.get(name)
    if spec is None:
        return _about_unknown(name)
    if not value:
        return ()
    parse_value(spec, {name: Parameter(name, (Assignment(value, COMMAND_LINE),))}, known)
    words = [word.strip() for word in value.split(":" if spec.kind is Kind.PATHS else ";") if word.strip()]
    if spec.kind in (Kind.PATH, Kind.PATHS):
        for word in words if spec.kind is Kind.PATHS else [value]:
            if not os.path.isabs(word):
                raise ConfigError(f"{name}: {word!r} depends on the current directory: give the whole path")
    elif spec.kind is Kind.URLS:
        for word in words:
            fault = find_url_fault(word.replace("@fqrn@", "x").replace("@org@", "x"))
            if fault is not None:
                raise ConfigError(f"{name}: {word!r} {fault}")
    elif _PROXIES.match(name):
        faults = ((proxy, find_proxy_fault(proxy)) for proxy in filter(None, map(str.strip, re.split("[;|]", value))))
        return tuple(f"{name}: {proxy!r} {fault}" for proxy, fault in faults if fault is not None)
    return ()


def _about_unknown(name: str) -> tuple[str, ...]:
    if name in UNUSED_NAMES:
        return (f"{name} is without effect in this version",)
    if name in IGNORED_NAMES or not name.startswith("CVMFS_"):
        return ()
    intended = find_intended(name)
    hint = f"is {intended} meant?" if intended else "`cvmfs-py config parameters` lists those that are known"
    return (f"{name} is unknown; {hint}",)
