"""From all sources to the settings of one repository.

Brings together what the other modules do; fetches nothing and prints nothing. Synchronous: reads files, runs /bin/sh
for configuration files that exist. Every call reads everything anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cvmfs_py.config import combined
from cvmfs_py.config.cache_place import choose_cache_place, default_cache_directory
from cvmfs_py.config.config_repository import is_directory_visible
from cvmfs_py.config.domains import KeyText, load_knowledge
from cvmfs_py.config.files import is_directory
from cvmfs_py.config.fqrn import complete_fqrn, domain_of
from cvmfs_py.config.local_paths import check_local_paths
from cvmfs_py.config.parameter_table import specs
from cvmfs_py.config.parameters import BUILTIN, Kind
from cvmfs_py.config.settings import Settings
from cvmfs_py.config.shell import TIMEOUT_S
from cvmfs_py.config.sources import Inputs, Sources, default_user_dir, find_config_repository_from, read_sources
from cvmfs_py.config.spelling import tell_misspelt
from cvmfs_py.config.typed import parse_value
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cvmfs_py.config.config_repository import ConfigRepository, ConfigTree

ETC_DIR = Path("/etc/cvmfs")


def load_settings(
    fqrn: str,
    *,
    environment: Mapping[str, str],
    etc_dir: Path = ETC_DIR,
    user_dir: Path | None = None,
    config_files: Sequence[Path] | None = None,
    overrides: Mapping[str, str] | None = None,
    config_tree: ConfigTree | None = None,
    simple_parsing: bool = False,
    require_servers: bool = True,
    shell_timeout_s: float = TIMEOUT_S,
) -> Settings:
    """The settings of a repository; with an empty name, what holds for the machine.

    `config_files` are read instead of /etc/cvmfs, the configuration repository and the user's files. `config_tree`
    stands in for the mounted configuration repository. `require_servers=False` accepts a repository that nobody can
    fetch, to show what is configured for it. What leads into a mount of this process is not read, and no setting may.
    """
    inputs = _make_inputs(
        fqrn,
        environment,
        etc_dir,
        user_dir,
        config_files,
        overrides,
        config_tree,
        simple_parsing=simple_parsing,
        shell_timeout_s=shell_timeout_s,
    )
    sources = read_sources(inputs)
    builtin_keys = _fill_in_knowledge(inputs, sources)
    settings = _make_settings(inputs, sources, builtin_keys)
    if fqrn and require_servers and not settings.servers:
        misspelt = "".join(f"; {text}" for text in tell_misspelt(inputs.overrides))
        raise ConfigError(
            f"no server is known for {fqrn}: `cvmfs-py config add {fqrn} --server URL --key FILE` makes it known; or "
            "set CVMFS_SERVER_URL (and CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR) in "
            f"{inputs.etc_dir / 'domain.d' / (domain_of(fqrn) + '.local')} or with --server and --key, or use a "
            f"configuration repository that knows the domain (CVMFS_CONFIG_REPOSITORY){misspelt}"
        )
    check_local_paths(settings)
    return settings


def find_config_repository(
    fqrn: str,
    *,
    environment: Mapping[str, str],
    etc_dir: Path = ETC_DIR,
    user_dir: Path | None = None,
    config_files: Sequence[Path] | None = None,
    overrides: Mapping[str, str] | None = None,
    simple_parsing: bool = False,
) -> ConfigRepository | None:
    """The configuration repository that applies to a repository, and whether it is mounted; None if there is none."""
    inputs = _make_inputs(
        fqrn, environment, etc_dir, user_dir, config_files, overrides, None, simple_parsing=simple_parsing
    )
    is_public = domain_of(fqrn) in load_knowledge().domains
    return find_config_repository_from(inputs, inputs.is_bare and is_public, is_public)


def resolve_fqrn(
    name: str,
    *,
    environment: Mapping[str, str],
    etc_dir: Path = ETC_DIR,
    user_dir: Path | None = None,
    config_files: Sequence[Path] | None = None,
    overrides: Mapping[str, str] | None = None,
    simple_parsing: bool = False,
) -> str:
    """The full name of a repository; the configuration is read only for a name without a dot."""
    if "." in name:
        return complete_fqrn(name, None)
    inputs = _make_inputs(
        "", environment, etc_dir, user_dir, config_files, overrides, None, simple_parsing=simple_parsing
    )
    return complete_fqrn(name, read_sources(inputs).store.value("CVMFS_DEFAULT_DOMAIN"))


def _make_inputs(
    fqrn: str,
    environment: Mapping[str, str],
    etc_dir: Path,
    user_dir: Path | None,
    config_files: Sequence[Path] | None,
    overrides: Mapping[str, str] | None,
    config_tree: ConfigTree | None,
    *,
    simple_parsing: bool,
    shell_timeout_s: float = TIMEOUT_S,
) -> Inputs:
    etc_dir = Path(os.path.abspath(etc_dir))
    is_bare = config_files is None and not is_directory(etc_dir)
    return Inputs(
        fqrn=fqrn,
        environment=environment,
        etc_dir=etc_dir,
        user_dir=default_user_dir(environment) if user_dir is None else user_dir,
        config_files=None if config_files is None else tuple(Path(os.path.abspath(path)) for path in config_files),
        overrides=overrides or {},
        config_tree=config_tree,
        simple_parsing=simple_parsing,
        shell_timeout_s=shell_timeout_s,
        builtin=_bare_parameters(environment) if is_bare else {},
    )


def _bare_parameters(environment: Mapping[str, str]) -> dict[str, str]:
    """What the files of a configuration repository expect that /etc/cvmfs/default.conf has set before them."""
    knowledge = load_knowledge()
    return {
        "CVMFS_CONFIG_REPOSITORY": knowledge.config_repository,
        "CVMFS_DEFAULT_DOMAIN": knowledge.default_domain,
        "CVMFS_MOUNT_DIR": "/cvmfs",
        "CVMFS_CACHE_BASE": str(default_cache_directory(environment, os.geteuid())),
    }


def _fill_in_knowledge(inputs: Inputs, sources: Sources) -> tuple[KeyText, ...]:
    """Servers and keys of a public domain, each where nothing is configured; the keys are not a parameter."""
    store = sources.store
    keys_dir = store.value("CVMFS_KEYS_DIR")
    needs_keys = not store.value("CVMFS_PUBLIC_KEY") and (not keys_dir or Path(keys_dir) == inputs.etc_dir / "keys")
    needs_servers = not store.value("CVMFS_SERVER_URL")
    if not inputs.fqrn or not (needs_keys or needs_servers):
        return ()
    domain = load_knowledge().domains.get(domain_of(inputs.fqrn))
    if domain is None:
        return ()
    if needs_servers:
        prefers_cdn = combined.is_on(store.value("CVMFS_USE_CDN"))
        servers = domain.cdn_servers if prefers_cdn and domain.cdn_servers else domain.servers
        store.assign("CVMFS_SERVER_URL", ";".join(servers), BUILTIN)
        if store.value("CVMFS_USE_GEOAPI") is None:
            store.assign("CVMFS_USE_GEOAPI", "yes", BUILTIN)
    return domain.keys if needs_keys else ()


def _make_settings(inputs: Inputs, sources: Sources, builtin_keys: tuple[KeyText, ...]) -> Settings:
    store = sources.store
    if inputs.fqrn and not inputs.is_bare and not store.value("CVMFS_HTTP_PROXY"):
        store.warn("CVMFS_HTTP_PROXY is not set; servers are asked directly (set it to DIRECT if that is meant)")
    parameters = store.parameters()
    known = specs()
    # also those without a field of their own are looked at: a wrong value on the command line is an error
    values = {spec: parse_value(spec, parameters, known) for spec in known.values()}
    fields: dict[str, Any] = {
        spec.field: value for spec, value in values.items() if spec.field is not None and not spec.combined
    }
    place = choose_cache_place(parameters, inputs.environment, os.geteuid())
    headers, complaints = combined.parse_tracing_headers(store.value("CVMFS_HTTP_TRACING_HEADERS") or "")
    for message in (
        *tell_misspelt(inputs.overrides),
        *place.warnings,
        *complaints,
        *combined.find_conflicts(parameters),
    ):
        store.warn(message)
    fields.update(
        cache_dir=place.directory,
        lower_caches=combined.lower_caches(parameters),
        http_tracing_headers=headers,
        magic_xattrs_visibility=combined.magic_xattrs_visibility(parameters),
        keys_dir=fields["keys_dir"] or inputs.etc_dir / "keys",
        blacklists=combined.blacklists(parameters, inputs.etc_dir, sources.config_directory),
        ipfamily_prefer=6 if fields["ipfamily_prefer"] == 6 else 4,
    )
    if sources.config_directory is not None and inputs.config_tree is not None:
        _move_into_tree(inputs, fields, sources.mount_dir, inputs.config_tree.root, sources.config_repository)
    environment = {**inputs.environment, **store.values()}
    environment.update(CVMFS_FQRN=inputs.fqrn, CVMFS_ARCH=os.uname().machine)
    return Settings(
        fqrn=inputs.fqrn,
        is_keys_dir_configured=bool(store.value("CVMFS_KEYS_DIR")),
        builtin_keys=builtin_keys,
        parameters=MappingProxyType(parameters),
        symlink_environment=MappingProxyType(environment),
        warnings=store.warnings,
        **fields,
    )


def _move_into_tree(
    inputs: Inputs, fields: dict[str, Any], mount_dir: Path, root: Path, repository: str | None
) -> None:
    """Files that are named by the mount of the configuration repository are in its tree, when there is no mount."""
    mounted = mount_dir / (repository or "")
    if repository is None or is_directory_visible(mounted, inputs.environment):
        return

    def move(path: Path) -> Path:
        return root / path.relative_to(mount_dir) if path.is_relative_to(mounted) else path

    for spec in specs().values():
        if spec.field is None:
            continue
        value = fields[spec.field]
        if spec.kind is Kind.PATH and isinstance(value, Path):
            fields[spec.field] = move(value)
        elif isinstance(value, tuple):
            fields[spec.field] = tuple(move(item) if isinstance(item, Path) else item for item in value)
