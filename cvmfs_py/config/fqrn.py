"""Repository names: which ones are valid, what their domain is, how a short name is completed.

Pure text; does not know which repositories exist. No state.
"""

from __future__ import annotations

import re

from cvmfs_py.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}\Z")


def is_valid_name(name: str) -> bool:
    """Whether the text may be a repository name, with or without a domain. It becomes part of paths and URLs."""
    return _NAME.match(name) is not None and not name.startswith(".") and not name.endswith(".")


def complete_fqrn(name: str, default_domain: str | None) -> str:
    """The fully qualified name: a name without a dot gets the default domain."""
    check_name(name)
    if "." in name:
        return name
    if not default_domain:
        raise ConfigError(
            f"the repository name {name!r} has no domain and CVMFS_DEFAULT_DOMAIN is not set; give the full name"
        )
    fqrn = f"{name}.{default_domain}"
    check_name(fqrn)
    return fqrn


def check_name(name: str) -> None:
    if not is_valid_name(name):
        raise ConfigError(
            f"invalid repository name {name!r}: a name such as sft.cern.ch has 1 to 60 letters, digits, dots, dashes "
            "and underscores"
        )


def domain_of(fqrn: str) -> str:
    """Everything after the first dot."""
    return fqrn.partition(".")[2]


def organisation_of(fqrn: str) -> str:
    """The part before the first dot, which stands for `@org@`."""
    return fqrn.partition(".")[0]
