"""From settings to the parts that work by them: network options, stores, keys, views. One mapping each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.directory import DirectoryStore
from cache.errors import CacheError
from cache.tiers import LowerTier
from cvmfs_py.config.cache_place import check_temporary_place
from cvmfs_py.config.id_map import load_id_map
from cvmfs_py.config.keys import load_blacklist_texts, load_master_key_texts
from cvmfs_py.errors import ConfigError
from cvmfs_py.network.options import NetworkConfig
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.keys import parse_master_key
from cvmfs_py.vfs.attrs import SAME_IDS, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.store import Store
    from cvmfs_py.config.settings import Settings
    from cvmfs_py.trust.keys import MasterKey


def network_config(settings: Settings, environment: Mapping[str, str]) -> NetworkConfig:
    return NetworkConfig(
        server_url=settings.servers,
        http_proxy=settings.http_proxy,
        fallback_proxy=settings.fallback_proxy,
        external_url=settings.external_servers,
        external_http_proxy=settings.external_http_proxy,
        external_fallback_proxy=settings.external_fallback_proxy,
        timeout_s=settings.timeout_s,
        timeout_direct_s=settings.timeout_direct_s,
        external_timeout_s=settings.external_timeout_s,
        external_timeout_direct_s=settings.external_timeout_direct_s,
        low_speed_limit_bytes_s=settings.low_speed_limit_bytes_per_s,
        max_retries=settings.max_retries,
        backoff_init_s=settings.backoff_init_s,
        backoff_max_s=settings.backoff_max_s,
        proxy_reset_after_s=settings.proxy_reset_after_s,
        host_reset_after_s=settings.host_reset_after_s,
        proxy_shard=settings.proxy_shard,
        failover_indefinitely=settings.failover_indefinitely,
        dns_timeout_s=settings.dns_timeout_s,
        dns_retries=settings.dns_retries,
        dns_min_ttl_s=settings.dns_min_ttl_s,
        dns_max_ttl_s=settings.dns_max_ttl_s,
        ipfamily_prefer=settings.ipfamily_prefer,
        ipv4_only=settings.ipv4_only,
        max_ipaddr_per_proxy=settings.max_ipaddr_per_proxy,
        host_aliases=str(settings.host_aliases or ""),
        use_geoapi=settings.use_geoapi,
        proxy_template=settings.proxy_template or "",
        max_servers=settings.max_servers,
        external_max_servers=settings.external_max_servers,
        pac_urls=settings.pac_urls,
        environment_http_proxy=environment.get("http_proxy", ""),
        follow_redirects=settings.follow_redirects,
        send_info_header=settings.send_info_header,
        http_tracing=settings.http_tracing,
        http_tracing_headers="|".join(f"{name}:{value}" for name, value in settings.http_tracing_headers),
        cernvm_uuid=environment.get("CERNVM_UUID", ""),
        use_ssl_system_ca=settings.use_ssl_system_ca,
        x509_cert_bundle=str(settings.x509_cert_bundle or ""),
        x509_cert_dir=str(settings.x509_cert_dir or ""),
    )


def open_store(settings: Settings) -> Store:
    """The configured cache over its lower tiers; sharing it with other processes is fine."""
    try:
        lower = [LowerTier(str(directory)) for directory in settings.lower_caches]
    except CacheError as error:
        raise ConfigError(f"{error} (CVMFS_ALIEN_CACHE, CVMFS_PY_LOWER_CACHES)") from error
    store = DirectoryStore(str(settings.cache_dir), settings.quota_limit_bytes, lower)
    if "CVMFS_PY_CACHE_DIR" not in settings.parameters:
        check_temporary_place(settings.cache_dir, os.environ, os.geteuid())
    return store


def load_keys(settings: Settings) -> tuple[MasterKey, ...]:
    return tuple(parse_master_key(key.pem, key.origin) for key in load_master_key_texts(settings))


def load_blacklist(settings: Settings) -> Blacklist:
    return Blacklist.parse(text for _, text in load_blacklist_texts(settings))


def make_view(settings: Settings, *, claim_by_default: bool) -> View:
    """How the repository is shown. Looking at it shows the stored owners unless the configuration says otherwise."""
    claim = settings.claim_ownership
    if not claim_by_default and "CVMFS_CLAIM_OWNERSHIP" not in settings.parameters:
        claim = False
    return View(
        uid=os.geteuid(),
        gid=os.getegid(),
        claim_ownership=claim,
        uid_map=SAME_IDS if settings.uid_map is None else load_id_map(settings.uid_map),
        gid_map=SAME_IDS if settings.gid_map is None else load_id_map(settings.gid_map),
        world_readable=settings.world_readable,
        link_variables={os.fsencode(name): os.fsencode(value) for name, value in settings.symlink_environment.items()},
    )
