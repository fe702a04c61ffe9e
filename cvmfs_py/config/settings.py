"""The settings of one repository: every parameter with its type, in one immutable value.

Holds values only; `load` makes it. Names carry units; None means unset or, where said, unlimited. What each parameter
is for stands in `parameter_table`. Immutable, so any thread may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cache.address import ContentHash
    from cvmfs_py.config.domains import KeyText
    from cvmfs_py.config.parameters import Parameter, XattrVisibility


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    fqrn: str  # empty: what holds for every repository of the machine

    # servers and proxies
    servers: tuple[str, ...]  # base URLs without a slash at the end
    max_servers: int
    use_geoapi: bool
    http_proxy: str
    fallback_proxy: str
    pac_urls: tuple[str, ...]
    proxy_template: str | None
    proxy_shard: bool
    max_ipaddr_per_proxy: int
    ipfamily_prefer: int
    ipv4_only: bool
    follow_redirects: bool
    use_ssl_system_ca: bool
    x509_cert_dir: Path | None
    x509_cert_bundle: Path | None
    send_info_header: bool
    http_tracing: bool
    http_tracing_headers: tuple[tuple[str, str], ...]  # names as they are configured, without X-CVMFS-

    # times and repetitions
    timeout_s: float
    timeout_direct_s: float
    low_speed_limit_bytes_per_s: int
    max_retries: int
    backoff_init_s: float
    backoff_max_s: float
    proxy_reset_after_s: float  # 0: never
    host_reset_after_s: float  # 0: never
    failover_indefinitely: bool
    dns_timeout_s: float
    dns_retries: int
    dns_min_ttl_s: float
    dns_max_ttl_s: float
    host_aliases: Path | None

    # external data
    external_servers: tuple[str, ...]
    external_http_proxy: str
    external_fallback_proxy: str
    external_timeout_s: float
    external_timeout_direct_s: float
    external_max_servers: int

    # trust and revisions
    public_keys: tuple[Path, ...]
    keys_dir: Path
    is_keys_dir_configured: bool
    builtin_keys: tuple[KeyText, ...]  # empty where keys are configured
    blacklists: tuple[Path, ...]
    root_hash: ContentHash | None
    repository_tag: str | None
    repository_date_s: int | None  # seconds since the epoch
    alt_root_path: bool

    # cache
    cache_dir: Path
    lower_caches: tuple[Path, ...]
    quota_limit_bytes: int | None  # None: unlimited

    # what is shown
    claim_ownership: bool
    uid_map: Path | None
    gid_map: Path | None
    world_readable: bool
    magic_xattrs_visibility: XattrVisibility
    protected_xattrs: tuple[str, ...]  # full names
    xattr_privileged_gids: tuple[int, ...]

    # mounts
    engine: str
    check_permissions: bool
    suid: bool
    kcache_timeout_s: float
    max_ttl_minutes: int  # 0: as the repository says
    auto_update: bool

    # what was read
    parameters: Mapping[str, Parameter]  # every parameter that is set, by name; defaults of the program are not in it
    symlink_environment: Mapping[str, str]  # what variant symlinks see
    warnings: tuple[str, ...]  # for the user and the log, each one line
