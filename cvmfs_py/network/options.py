"""Everything the network layer can be told, as one frozen value.

Pure: reads no configuration files and no environment; whoever builds it does. Field names are the parameters' names in
lower case without `CVMFS_`, plus the unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """How to reach the servers of one repository."""

    server_url: tuple[str, ...] = ()
    http_proxy: str = "DIRECT"
    fallback_proxy: str = ""
    external_url: tuple[str, ...] = ()
    external_http_proxy: str = "DIRECT"
    external_fallback_proxy: str = ""

    timeout_s: float = 5
    timeout_direct_s: float = 10
    external_timeout_s: float | None = None  # None: as for the regular servers
    external_timeout_direct_s: float | None = None
    low_speed_limit_bytes_s: int = 1024
    max_retries: int = 1
    backoff_init_s: float = 2
    backoff_max_s: float = 10
    proxy_reset_after_s: float = 300  # 0: never
    host_reset_after_s: float = 1800  # 0: never
    proxy_shard: bool = False
    failover_indefinitely: bool = False

    dns_timeout_s: float = 3
    dns_retries: int = 1
    dns_min_ttl_s: float = 60
    dns_max_ttl_s: float = 86400
    ipfamily_prefer: int = 4
    ipv4_only: bool = False
    max_ipaddr_per_proxy: int = 0  # 0: all
    host_aliases: str = "/etc/hosts"  # the environment's HOST_ALIASES

    use_geoapi: bool = False
    proxy_template: str = ""
    geo_key: str = ""  # tells geo answers of different clients apart where no proxy does; random when empty
    max_servers: int = 0  # 0: all
    external_max_servers: int = 0

    pac_urls: tuple[str, ...] = ()
    environment_http_proxy: str = ""  # the environment's http_proxy; only `auto` looks at it
    follow_redirects: bool = False
    send_info_header: bool = False
    http_tracing: bool = False
    http_tracing_headers: str = ""
    cernvm_uuid: str = ""  # the environment's CERNVM_UUID

    use_ssl_system_ca: bool = True
    x509_cert_bundle: str = ""
    x509_cert_dir: str = ""

    parallel_connections: int = 16
    idle_connections: int = 64
    grace_s: float = 10  # how long a download goes on after its last waiter left
