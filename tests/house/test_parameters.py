"""Every parameter that the program claims to know changes what it does: somebody reads it."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs
from cvmfs_py.config.settings import Settings
from cvmfs_py.network.options import NetworkConfig
from tests.house.sources import Source, sources

if TYPE_CHECKING:
    from collections.abc import Iterable

# makes, shows and checks settings, which is no use of them
NO_READERS = {
    f"cvmfs_py.config.{name}" for name in ("settings", "load", "show", "check", "combined", "parameter_table")
}
NOT_CONFIGURED = {"geo_key", "parallel_connections", "idle_connections", "grace_s"}
FOR_CONFIGURATION_FILES = {"CVMFS_CLIENT_PROFILE", "CVMFS_BASE_ENV", "CVMFS_CONFIG_REPO_DEFAULT_ENV"}


def attributes_of(files: Iterable[Source], owner: str) -> set[str]:
    """The attributes that are read of variables and attributes whose name ends so."""
    found = set()
    for source in files:
        for node in ast.walk(source.syntax):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                value = node.value
                name = (
                    value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
                )
                if name.endswith(owner):
                    found.add(node.attr)
    return found


def test_every_setting_is_read() -> None:
    readers = [source for source in sources("cvmfs_py") if source.module not in NO_READERS]
    unread = {field.name for field in dataclasses.fields(Settings)} - attributes_of(readers, "settings")
    assert not unread


def test_every_option_of_the_network_is_read_there() -> None:
    read = attributes_of(sources("cvmfs_py/network"), "config")
    unread = {field.name for field in dataclasses.fields(NetworkConfig)} - read
    assert not unread


def test_every_parameter_without_a_setting_is_looked_at_while_settings_are_made() -> None:
    texts = set()
    for source in sources("cvmfs_py/config"):
        if source.module != "cvmfs_py.config.parameter_table":
            texts |= {node.value for node in ast.walk(source.syntax) if isinstance(node, ast.Constant)}
    unread = {spec.name for spec in specs().values() if spec.field is None} - texts
    assert unread == FOR_CONFIGURATION_FILES


def test_no_name_is_in_two_lists() -> None:
    assert not IGNORED_NAMES & UNUSED_NAMES
    assert not set(specs()) & (IGNORED_NAMES | UNUSED_NAMES)


def test_an_unread_setting_is_found() -> None:
    source = Source(sources("cvmfs_py/config")[0].path, "self._settings.first; settings.second = 1; other.third")
    assert attributes_of([source], "settings") == {"first"}


def test_the_network_is_told_everything_that_can_be_configured() -> None:
    (wiring,) = [source for source in sources("cvmfs_py/mount") if source.module == "cvmfs_py.mount.wiring"]
    calls = [node for node in ast.walk(wiring.syntax) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "NetworkConfig"]
    told = {keyword.arg for keyword in call.keywords}
    assert {field.name for field in dataclasses.fields(NetworkConfig)} - told == NOT_CONFIGURED
