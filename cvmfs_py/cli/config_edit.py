"""`cvmfs-py config get`, `set` and `unset`: one parameter, and the user's file that sets it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cvmfs_py.cli.output import write_json
from cvmfs_py.errors import ConfigError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from cvmfs_py.config.settings import Settings

_PARAMETER = re.compile(r"[A-Z0-9_]+\Z")  # repositories have a dot, or are short names in small letters


def split_operands(action: str, operands: Sequence[str]) -> tuple[list[str], str | None]:
    """Parameters or assignments, and the repository that may stand behind (or before) them."""
    mark = "=" if action == "set" else ""
    said = [word for word in operands if (mark in word if mark else _PARAMETER.match(word))]
    others = [word for word in operands if word not in said]
    if not said or len(others) > 1 or (action == "get" and len(said) > 1):
        form = {"get": "NAME [FQRN]", "set": "NAME=VALUE ... [FQRN]", "unset": "NAME ... [FQRN]"}[action]
        example = {
            "get": "CVMFS_HTTP_PROXY sft.cern.ch",
            "set": "CVMFS_QUOTA_LIMIT=8000",
            "unset": "CVMFS_QUOTA_LIMIT",
        }[action]
        raise UsageError(f"{action} what? Write {action} {form}, for example {action} {example}")
    return said, others[0] if others else None


def show_value(name: str, settings: Settings, options: argparse.Namespace) -> int:
    """Prints what is in force: what somebody set, else the default."""
    from cvmfs_py.config.parameter_table import specs
    from cvmfs_py.config.parameters import BUILTIN
    from cvmfs_py.config.value_check import check_assignment

    parameter = settings.parameters.get(name)
    spec = specs().get(name)
    if parameter is None and spec is None:
        raise ConfigError("; ".join((f"{name} is not set", *check_assignment(name, ""))))
    value = parameter.value if parameter is not None else _default(name, settings)
    source = parameter.source if parameter is not None else BUILTIN
    if options.json:
        write_json({"name": name, "value": value, "source": source})
    else:
        print(value)
    return 0


def _default(name: str, settings: Settings) -> str:
    from cvmfs_py.config.parameter_table import specs

    spec = specs()[name]
    if spec.like is None:
        return spec.default or ""
    followed = settings.parameters.get(spec.like)
    return followed.value if followed is not None else _default(spec.like, settings)


def set_values(assignments: Sequence[str], options: argparse.Namespace, repository: str | None) -> int:
    from cvmfs_py.cli.session import warn
    from cvmfs_py.config.user_file import load_text, store_text, with_values
    from cvmfs_py.config.value_check import check_assignment

    values = {name: value for name, _, value in (word.partition("=") for word in assignments)}
    warnings = [text for name, value in values.items() for text in check_assignment(name, value)]
    path = file_to_edit(options, repository)
    store_text(path, with_values(load_text(path), values))
    for name, value in values.items():
        print(f"set {name}={value} in {path}")
    warn([*warnings, *_overruled(values)])
    return 0


def unset_values(names: Sequence[str], options: argparse.Namespace, repository: str | None) -> int:
    from cvmfs_py.cli.session import warn
    from cvmfs_py.config.user_file import load_text, store_text, without_value

    path = file_to_edit(options, repository)
    text = load_text(path)
    for name in names:
        shorter = without_value(text, name)
        if shorter == text:
            whose = f" {repository}" if repository else ""
            raise ConfigError(f"{path} does not set {name}; `cvmfs-py config show --trace{whose}` tells who does")
        text = shorter
    store_text(path, text)
    for name in names:
        print(f"removed {name} from {path}")
    warn(_overruled(dict.fromkeys(names, "")))
    return 0


def file_to_edit(options: argparse.Namespace, repository: str | None) -> Path:
    """The file for all repositories, or for one: the user's, or with --system the machine's."""
    if repository is None:
        return system_directory() / "default.local" if options.system else _user_directory() / "default.conf"
    fqrn = full_name(repository)
    if options.system:
        return system_directory() / "config.d" / f"{fqrn}.local"
    return _user_directory() / "config.d" / f"{fqrn}.conf"


def configuration_directory(options: argparse.Namespace) -> Path:
    """Where the file of a repository that is added goes, and its keys."""
    return (system_directory() if options.system else _user_directory()) / "config.d"


def system_directory() -> Path:
    from cvmfs_py.config.load import ETC_DIR

    if not ETC_DIR.is_dir():
        # Without it, what is built in counts for public domains; an almost empty one would take that away.
        raise ConfigError(
            f"there is no {ETC_DIR}: --system is for machines that have the configuration of the reference client; "
            "leave it out, and the file goes into your own directory"
        )
    return ETC_DIR


def full_name(repository: str) -> str:
    from cvmfs_py.config.load import resolve_fqrn
    from cvmfs_py.config.target import parse_target

    target = parse_target(repository)
    if target.url or target.tag or target.path:
        raise UsageError(f"{repository}: a configuration is of a whole repository; write its name alone")
    return resolve_fqrn(target.name, environment=os.environ)


def _user_directory() -> Path:
    from cvmfs_py.config.sources import default_user_dir

    return default_user_dir(os.environ)


def _overruled(values: dict[str, str]) -> list[str]:
    return [
        f"{name} has another value in the environment ({os.environ[name]!r}), which wins there"
        for name, value in values.items()
        if name.startswith("CVMFS_") and os.environ.get(name, value) != value
    ]
