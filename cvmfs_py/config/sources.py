"""The sources of parameters in their order: /etc/cvmfs and the configuration repository, the user, the environment, -o.

Later sources win:

1. `/etc/cvmfs`, interleaved with the configuration repository, in the order that the reference client documents, each
   file evaluated by a shell; or instead of both, and of 2, the files of `--config`
2. `~/.config/cvmfs-py/`: default.conf, domain.d/DOMAIN.conf, config.d/FQRN.conf, in the simple syntax
3. CVMFS_* variables of the environment
4. the command line

What 2 to 4 say is also what the files of 1 see: each file starts with these values in its environment, so that a file
which decides by CVMFS_HTTP_PROXY or CVMFS_USE_CDN decides by the value that will be in force. Makes no settings, fills
in no defaults. Synchronous; reads the file system and runs /bin/sh.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts
from cvmfs_py.config.config_repository import ConfigRepository, ConfigTree, is_directory_visible
from cvmfs_py.config.files import is_directory, read_small_file
from cvmfs_py.config.fqrn import check_name, domain_of, is_valid_name
from cvmfs_py.config.parameter_table import specs
from cvmfs_py.config.parameters import BUILTIN, COMMAND_LINE, ENVIRONMENT
from cvmfs_py.config.parse import assigned_names, check_option_name, parse_simple, parse_switch
from cvmfs_py.config.shell import evaluate_file
from cvmfs_py.config.store import ParameterStore
from cvmfs_py.config.templates import expand_templates, repository_templates
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE_LIMIT_BYTES = 1 << 20
NO_DIRECTORY = "configuration repository directory does not exist"
_CONFIG_REPOSITORY = "CVMFS_CONFIG_REPOSITORY"
_SERVERS = "CVMFS_SERVER_URL"
_KEYS = ("CVMFS_PUBLIC_KEY", "CVMFS_KEYS_DIR", "CVMFS_ROOT_HASH")  # what a repository is verified with
_MOUNT_DIR = "CVMFS_MOUNT_DIR"
_DEFAULT_MOUNT_DIR = "/cvmfs"
# made by this program for every repository; a value from outside would be a lie
_RESERVED = frozenset(("CVMFS_FQRN", "CVMFS_ARCH"))


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a configuration is made from."""

    fqrn: str  # empty: what holds for every repository
    environment: Mapping[str, str]
    etc_dir: Path
    user_dir: Path
    config_files: tuple[Path, ...] | None
    overrides: Mapping[str, str]
    config_tree: ConfigTree | None
    simple_parsing: bool
    shell_timeout_s: float
    builtin: Mapping[str, str]  # for a machine without any configuration files

    @property
    def is_bare(self) -> bool:
        """Whether the machine has no configuration of its own."""
        return self.config_files is None and not is_directory(self.etc_dir)


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read."""

    store: ParameterStore
    config_directory: Path | None  # the configuration repository's etc/cvmfs, if it was read
    config_repository: str | None  # the one that applies, read or not
    mount_dir: Path


def default_user_dir(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        home = environment.get("HOME") or os.path.expanduser("~")
        # who has no home has no settings: a relative path would mean those of the current directory
        base = os.path.join(home if os.path.isabs(home) else "/", ".config")
    return Path(base, "cvmfs-py")


def read_sources(inputs: Inputs) -> Sources:
    reading = _Reading(inputs)
    if inputs.config_files is not None:
        for path in inputs.config_files:
            reading.read_file(path, is_required=True)
    else:
        reading.read_first_files()
        reading.read_other_files()
    reading.store.unprotect(_CONFIG_REPOSITORY)
    reading.apply_pinned()
    repository = reading.config_repository_name() if inputs.config_files is None else None
    return Sources(reading.store, reading.config_directory, repository, reading.mount_dir())


def find_config_repository_from(
    inputs: Inputs, is_domain_known: bool, is_domain_public: bool
) -> ConfigRepository | None:
    """The configuration repository that applies, from what is read before it: default.conf and default.d."""
    if inputs.config_files is not None:
        return None
    reading = _Reading(inputs)
    reading.read_first_files()
    name = reading.config_repository_name()
    if name is None:
        return None
    directory = ConfigTree(reading.mount_dir()).directory(name)
    is_builtin = reading.store.source(_CONFIG_REPOSITORY) == BUILTIN and _CONFIG_REPOSITORY not in reading.pinned
    has_knowledge = is_domain_known or bool(reading.pinned.get(_SERVERS))
    return ConfigRepository(
        name,
        directory,
        is_mounted=reading.is_mounted(directory),
        is_builtin=is_builtin,
        is_needed=not (is_builtin and has_knowledge),
        is_spared=reading.describes_itself(is_domain_public) and not reading.is_required(),
    )


class _Reading:
    def __init__(self, inputs: Inputs) -> None:
        if inputs.fqrn:
            check_name(inputs.fqrn)
            if "." not in inputs.fqrn:
                raise ConfigError(f"the repository name {inputs.fqrn!r} has no domain; give the full name")
        self.inputs = inputs
        self.store = ParameterStore(inputs.fqrn)
        self.config_directory: Path | None = None
        self._exported: dict[str, str] = {}
        self._mounted: dict[Path, bool] = {}
        self._is_described = False
        self._layers = _pinned_layers(inputs, self.store)
        templates = repository_templates(inputs.fqrn)
        self.pinned = {
            name: expand_templates(value, templates) for values, _ in self._layers for name, value in values.items()
        }
        if inputs.is_bare:
            self.store.assign_all(inputs.builtin, BUILTIN)
        # variables that are not of the field's own name space mean something to other programs too: files win over them
        self.store.assign_all(
            {name: inputs.environment[name] for name in specs() if name in inputs.environment and not _is_own(name)},
            ENVIRONMENT,
        )

    def apply_pinned(self) -> None:
        for values, source in self._layers:
            self.store.assign_all(values, source)

    def read_first_files(self) -> None:
        etc_dir = self.inputs.etc_dir
        self.read_file(etc_dir / "default.conf")
        try:
            if not is_directory(etc_dir / "default.d"):
                raise FileNotFoundError
            names = sorted(name for name in os.listdir(etc_dir / "default.d") if name.endswith(".conf"))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            self.store.warn(f"cannot read {etc_dir / 'default.d'}: {error.strerror}; skipped")
            names = []
        for name in names:
            self.read_file(etc_dir / "default.d" / name)
        self.store.protect(_CONFIG_REPOSITORY)
        # Who says where a repository is and what vouches for it leaves nothing to be looked up.
        self._is_described = _is_description(self.pinned) and not self.is_required()

    def read_other_files(self) -> None:
        etc_dir, fqrn = self.inputs.etc_dir, self.inputs.fqrn
        self._read_from_repository("default.conf")
        self.read_file(etc_dir / "default.local")
        if not fqrn:
            return
        for name in (f"domain.d/{domain_of(fqrn)}", f"config.d/{fqrn}"):
            self._read_from_repository(f"{name}.conf")
            self.read_file(etc_dir / f"{name}.conf")
            self.read_file(etc_dir / f"{name}.local")

    def read_file(self, path: Path, is_required: bool = False) -> None:
        try:
            text = os.fsdecode(read_small_file(path, _FILE_LIMIT_BYTES))
        except FileNotFoundError as error:
            if is_required:
                raise ConfigError(f"the configuration file {path} does not exist") from error
            return
        except ConfigError as error:
            if is_required:
                raise
            self.store.warn(f"{error}; skipped")
            return
        values = parse_simple(text) if self.inputs.simple_parsing else self._evaluate(path, text)
        if values.get(_MOUNT_DIR) == self._exported.get(_MOUNT_DIR):
            values.pop(_MOUNT_DIR, None)  # only repeats where the tree is
        self.store.assign_all(values, str(path))

    def _evaluate(self, path: Path, text: str) -> dict[str, str]:
        names = assigned_names(text)
        if all(not line or line.startswith("#") for line in map(str.strip, text.split("\n"))):
            return {}
        environment = {
            **self.inputs.environment,
            **self.store.values(),
            **self.pinned,
            **self._exported,
            "CVMFS_FQRN": self.inputs.fqrn,
        }
        result = evaluate_file(path, names, environment, self.inputs.shell_timeout_s)
        if result.failure is not None:
            self.store.warn(f"{path} ends its shell, so that all its parameters are empty: {result.failure}")
        return result.values

    def _value(self, name: str) -> str:
        """The value that is in force so far, seen from the end."""
        return self.pinned.get(name) or self.store.value(name) or ""

    def mount_dir(self) -> Path:
        return Path(self._value(_MOUNT_DIR) or _DEFAULT_MOUNT_DIR)

    def config_repository_name(self) -> str | None:
        name = self.pinned.get(_CONFIG_REPOSITORY)  # empty: the user wants none
        if name is None:
            name = self.store.value(_CONFIG_REPOSITORY)
        if not name or not self.inputs.fqrn or name == self.inputs.fqrn:
            return None
        if self._is_described:
            return None
        if not is_valid_name(name):
            self.store.warn(f"invalid CVMFS_CONFIG_REPOSITORY: {name}")
            return None
        return name

    def is_required(self) -> bool:
        return bool(parse_switch(self._value("CVMFS_CONFIG_REPO_REQUIRED")))

    def describes_itself(self, is_domain_public: bool) -> bool:
        """Whether files of the machine for this repository, or its private domain, name servers and keys outright.

        Those of a public domain come with packages, and lean on the configuration repository.
        """
        fqrn = self.inputs.fqrn
        names = [f"config.d/{fqrn}"] if is_domain_public else [f"domain.d/{domain_of(fqrn)}", f"config.d/{fqrn}"]
        values: dict[str, str] = {}
        for path in (self.inputs.etc_dir / f"{name}.{kind}" for name in names for kind in ("conf", "local")):
            with suppress(FileNotFoundError, ConfigError):  # told of when it is read in its turn
                values.update(parse_simple(os.fsdecode(read_small_file(path, _FILE_LIMIT_BYTES))))
        return _is_description({name: value for name, value in values.items() if "$" not in value})

    def is_mounted(self, directory: Path) -> bool:
        if directory not in self._mounted:
            visible = is_directory_visible(directory, self.inputs.environment)
            if visible is None:
                self.store.warn(f"{directory} does not answer and is treated as missing")
            self._mounted[directory] = bool(visible)
        return self._mounted[directory]

    def _read_from_repository(self, name: str) -> None:
        repository = self.config_repository_name()
        if repository is None:
            return
        tree = self.inputs.config_tree
        if tree is not None:
            directory = tree.directory(repository)
            is_there = is_directory(directory)
        else:
            directory = ConfigTree(self.mount_dir()).directory(repository)
            is_there = self.is_mounted(directory)
        if is_there:
            self.config_directory = directory
            self._exported[_CONFIG_REPOSITORY] = repository
            if tree is not None:
                # files of the repository, and those of /etc/cvmfs that lean on them, go by this variable
                self._exported[_MOUNT_DIR] = str(tree.root)
            self.read_file(directory / name)
            return
        if self.is_required():
            raise ConfigError(
                f"required configuration repository directory does not exist: {directory}; mount {repository}, or "
                "unset CVMFS_CONFIG_REPO_REQUIRED"
            )
        if self.store.source(_CONFIG_REPOSITORY) != BUILTIN:
            self.store.warn(f"{NO_DIRECTORY}: {directory}")


def _pinned_layers(inputs: Inputs, store: ParameterStore) -> list[tuple[dict[str, str], str]]:
    """The sources above the system's files, lowest first: they do not depend on those, so they are read before."""
    layers: list[tuple[dict[str, str], str]] = []
    if inputs.config_files is None and own_mounts.find_own_mount(inputs.user_dir) is None:
        names = ["default.conf"]
        if inputs.fqrn:
            names += [f"domain.d/{domain_of(inputs.fqrn)}.conf", f"config.d/{inputs.fqrn}.conf"]
        for name in names:
            path = inputs.user_dir / name
            try:
                text = os.fsdecode(read_small_file(path, _FILE_LIMIT_BYTES))
            except FileNotFoundError:
                continue
            except ConfigError as error:  # such as the home directory of the user before `su`
                store.warn(f"{error}; skipped")
                continue
            layers.append((parse_simple(text), str(path)))
    variables = {name: value for name, value in inputs.environment.items() if _is_own(name) and name not in _RESERVED}
    layers.append((variables, ENVIRONMENT))
    for name in inputs.overrides:
        check_option_name(name)
    layers.append((dict(inputs.overrides), COMMAND_LINE))
    return layers


def _is_description(values: Mapping[str, str]) -> bool:
    return bool(values.get(_SERVERS)) and any(values.get(name) for name in _KEYS)


def _is_own(name: str) -> bool:
    return name.startswith("CVMFS_")
