"""The table of parameters: every name that this program reads, its form, its default and what it is for.

Data and one look-up. Where the reference client and the `default.conf` that it ships disagree, the default here is that
of `default.conf`, because that is what installations run with.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cvmfs_py.config.parameters import Kind, ParameterSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

# (name without CVMFS_ or with a leading "=", kind, field, default, meaning); a field with a star is made of several
# parameters, a default with a leading "=" is the value of another parameter
_Row = tuple[str, Kind, str | None, str | None, str]

_SERVERS: tuple[_Row, ...] = (
    ("SERVER_URL", Kind.URLS, "servers", None, "stratum 1 servers, in order of preference; @fqrn@ is the repository"),
    ("USE_CDN", Kind.SWITCH, None, "no", "prefer the servers of the content delivery network"),
    ("MAX_SERVERS", Kind.INTEGER, "max_servers", "0", "use only so many of the servers, the nearest; 0 for all"),
    ("USE_GEOAPI", Kind.SWITCH, "use_geoapi", "no", "ask a server which servers are near, and order them"),
    ("HTTP_PROXY", Kind.TEXT, "http_proxy", "DIRECT", "proxies: groups with ; between, members of a group with |"),
    ("FALLBACK_PROXY", Kind.TEXT, "fallback_proxy", "", "proxy groups that come after all others"),
    (
        "PAC_URLS",
        Kind.URLS,
        "pac_urls",
        None,
        "for the proxy 'auto': proxy auto-configurations (only those that return one constant)",
    ),
    (
        "PROXY_TEMPLATE",
        Kind.OPTIONAL_TEXT,
        "proxy_template",
        None,
        "name to give instead of the proxy's to the geo API",
    ),
    ("PROXY_SHARD", Kind.SWITCH, "proxy_shard", "no", "give every object its own proxy of the group"),
    ("MAX_IPADDR_PER_PROXY", Kind.INTEGER, "max_ipaddr_per_proxy", "0", "addresses per name of a proxy; 0 for all"),
    ("IPFAMILY_PREFER", Kind.INTEGER, "ipfamily_prefer", "4", "4 or 6: addresses of a proxy to prefer"),
    ("IPV4_ONLY", Kind.NONEMPTY, "ipv4_only", "", "never ask for IPv6 addresses"),
    ("FOLLOW_REDIRECTS", Kind.SWITCH, "follow_redirects", "no", "follow up to four HTTP redirects"),
    ("USE_SSL_SYSTEM_CA", Kind.SWITCH, "use_ssl_system_ca", "yes", "trust the system's authorities for HTTPS, too"),
    ("=X509_CERT_DIR", Kind.PATH, "x509_cert_dir", "/etc/grid-security/certificates", "authorities for HTTPS"),
    ("=X509_CERT_BUNDLE", Kind.PATH, "x509_cert_bundle", None, "one file of authorities for HTTPS"),
    ("SEND_INFO_HEADER", Kind.SWITCH, "send_info_header", "no", "tell the server the path in the repository"),
    ("HTTP_TRACING", Kind.SWITCH, "http_tracing", "no", "add tracing headers to every request"),
    ("HTTP_TRACING_HEADERS", Kind.TEXT, "http_tracing_headers*", "", "more tracing headers: name:value|name:value"),
)
_TIMES: tuple[_Row, ...] = (
    ("TIMEOUT", Kind.SECONDS, "timeout_s", "5", "to connect, or without enough data, over a proxy"),
    ("TIMEOUT_DIRECT", Kind.SECONDS, "timeout_direct_s", "10", "the same without a proxy"),
    ("LOW_SPEED_LIMIT", Kind.INTEGER, "low_speed_limit_bytes_per_s", "1024", "bytes per second that are enough data"),
    ("MAX_RETRIES", Kind.INTEGER, "max_retries", "1", "repetitions over the same proxy and server"),
    ("BACKOFF_INIT", Kind.SECONDS, "backoff_init_s", "2", "longest wait before the first repetition"),
    ("BACKOFF_MAX", Kind.SECONDS, "backoff_max_s", "10", "longest wait before any repetition"),
    (
        "PROXY_RESET_AFTER",
        Kind.SECONDS,
        "proxy_reset_after_s",
        "300",
        "until the first proxies are tried again; 0 never",
    ),
    ("HOST_RESET_AFTER", Kind.SECONDS, "host_reset_after_s", "1800", "until the first server is tried again; 0 never"),
    ("FAILOVER_INDEFINITELY", Kind.SWITCH, "failover_indefinitely", "no", "never give up a request"),
    ("DNS_TIMEOUT", Kind.SECONDS, "dns_timeout_s", "3", "for one question for a name"),
    ("DNS_RETRIES", Kind.INTEGER, "dns_retries", "1", "repetitions of that question"),
    ("DNS_MIN_TTL", Kind.SECONDS, "dns_min_ttl_s", "60", "shortest time to believe an answer"),
    ("DNS_MAX_TTL", Kind.SECONDS, "dns_max_ttl_s", "86400", "longest time to believe an answer"),
    ("=HOST_ALIASES", Kind.PATH, "host_aliases", "/etc/hosts", "file of names and addresses that comes before the DNS"),
)
_EXTERNAL: tuple[_Row, ...] = (
    ("EXTERNAL_URL", Kind.URLS, "external_servers", None, "servers of external data"),
    ("EXTERNAL_HTTP_PROXY", Kind.TEXT, "external_http_proxy", "DIRECT", "as CVMFS_HTTP_PROXY"),
    ("EXTERNAL_FALLBACK_PROXY", Kind.TEXT, "external_fallback_proxy", "", "as CVMFS_FALLBACK_PROXY"),
    ("EXTERNAL_TIMEOUT", Kind.SECONDS, "external_timeout_s", "=CVMFS_TIMEOUT", "as CVMFS_TIMEOUT"),
    ("EXTERNAL_TIMEOUT_DIRECT", Kind.SECONDS, "external_timeout_direct_s", "=CVMFS_TIMEOUT_DIRECT", "as that one"),
    ("EXTERNAL_MAX_SERVERS", Kind.INTEGER, "external_max_servers", "0", "as CVMFS_MAX_SERVERS"),
)
_TRUST: tuple[_Row, ...] = (
    ("PUBLIC_KEY", Kind.PATHS, "public_keys", None, "files of master keys; wins over CVMFS_KEYS_DIR"),
    ("KEYS_DIR", Kind.PATH, "keys_dir", None, "directory whose *.pub files are the master keys"),
    ("BLACKLIST", Kind.PATH, "blacklists*", None, "certificates and revisions that are not accepted"),
    ("ROOT_HASH", Kind.HASH, "root_hash", None, "stay at the revision with this root catalog"),
    ("REPOSITORY_TAG", Kind.OPTIONAL_TEXT, "repository_tag", None, "stay at the revision of this name"),
    ("REPOSITORY_DATE", Kind.TIMESTAMP, "repository_date_s", None, "stay at the last named revision before this time"),
    ("ALT_ROOT_PATH", Kind.SWITCH, "alt_root_path", "no", "the root catalog is under its alternative address"),
)
_CACHE: tuple[_Row, ...] = (
    ("PY_CACHE_DIR", Kind.PATH, "cache_dir*", None, "this program's cache, exactly here"),
    (
        "CACHE_DIR",
        Kind.PATH,
        "cache_dir*",
        None,
        "the reference client's cache; this program's goes into cvmfs-py there",
    ),
    ("CACHE_BASE", Kind.PATH, "cache_dir*", None, "the same, for all repositories"),
    ("PY_LOWER_CACHES", Kind.PATHS, "lower_caches*", None, "caches to read, never written"),
    ("ALIEN_CACHE", Kind.PATH, "lower_caches*", None, "one more of them, such as a preloaded cache"),
    ("QUOTA_LIMIT", Kind.QUOTA, "quota_limit_bytes", "4000", "size of the cache"),
)
_VIEW: tuple[_Row, ...] = (
    (
        "CLAIM_OWNERSHIP",
        Kind.SWITCH,
        "claim_ownership",
        "yes",
        "everything belongs to the user of the client; looking shows stored owners unless this is set",
    ),
    ("UID_MAP", Kind.PATH, "uid_map", None, "file that maps user numbers"),
    ("GID_MAP", Kind.PATH, "gid_map", None, "file that maps group numbers"),
    ("WORLD_READABLE", Kind.SWITCH, "world_readable", "no", "everybody may read everything"),
    (
        "MAGIC_XATTRS_VISIBILITY",
        Kind.VISIBILITY,
        "magic_xattrs_visibility*",
        "rootonly",
        "where the magic extended attributes are listed; asked for by name they answer everywhere",
    ),
    ("HIDE_MAGIC_XATTRS", Kind.SWITCH, "magic_xattrs_visibility*", None, "older: yes for never, no for always"),
    ("XATTR_PROTECTED_XATTRS", Kind.NAMES, "protected_xattrs", None, "extended attributes for privileged groups only"),
    ("XATTR_PRIVILEGED_GIDS", Kind.IDS, "xattr_privileged_gids", None, "the numbers of these groups; 0 always is one"),
)
_MOUNT: tuple[_Row, ...] = (
    ("PY_ENGINE", Kind.TEXT, "engine", "channel", "who speaks with the kernel: channel or pyfuse3"),
    ("CHECK_PERMISSIONS", Kind.SWITCH, "check_permissions", "no", "the kernel obeys owners and modes"),
    ("SUID", Kind.SWITCH, "suid", "no", "programs may change their user when they are run (only as root)"),
    (
        "KCACHE_TIMEOUT",
        Kind.SECONDS,
        "kcache_timeout_s",
        "60",
        "how long the kernel remembers names of a mount that follows new revisions",
    ),
    (
        "MAX_TTL",
        Kind.INTEGER,
        "max_ttl_minutes",
        "0",
        "look for a new revision at least so often, in minutes; 0: as the repository says",
    ),
    ("AUTO_UPDATE", Kind.SWITCH, "auto_update", "yes", "follow new revisions while mounted"),
)
_FILES: tuple[_Row, ...] = (
    ("DEFAULT_DOMAIN", Kind.OPTIONAL_TEXT, None, None, "domain of names without a dot"),
    ("MOUNT_DIR", Kind.PATH, None, "/cvmfs", "where a mounted configuration repository is looked for"),
    ("CONFIG_REPOSITORY", Kind.OPTIONAL_TEXT, None, None, "repository that holds configuration files; empty: none"),
    ("CONFIG_REPO_REQUIRED", Kind.SWITCH, None, "no", "no repository without that one"),
    ("CLIENT_PROFILE", Kind.TEXT, None, "", "'single' for a machine on its own, 'custom' for none of the presets"),
    ("BASE_ENV", Kind.TEXT, None, "", "set once default.conf was read"),
    ("CONFIG_REPO_DEFAULT_ENV", Kind.TEXT, None, "", "set once the configuration repository was read"),
)

_GROUPS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    ("Servers and proxies", _SERVERS),
    ("Times and repetitions", _TIMES),
    ("External data", _EXTERNAL),
    ("Trust and revisions", _TRUST),
    ("Cache", _CACHE),
    ("What is shown", _VIEW),
    ("Mounts", _MOUNT),
    ("Configuration files", _FILES),
)

# what the reference client reads and this program does not: no news to anybody, every installation sets some
IGNORED_NAMES = frozenset(
    (
        "CVMFS_AUTHZ_HELPER",
        "CVMFS_AUTHZ_SEARCH_PATH",
        "CVMFS_CACHE_PRIMARY",
        "CVMFS_CACHE_REFCOUNT",
        "CVMFS_CPU_AFFINITY",
        "CVMFS_FUSE3_IDLE_THREADS",
        "CVMFS_FUSE3_MAX_THREADS",
        "CVMFS_IGNORE_SIGNATURE",
        "CVMFS_INITIAL_GENERATION",
        "CVMFS_INSTRUMENT_FUSE",
        "CVMFS_MOUNT_RW",
        "CVMFS_NFS_INTERLEAVED_INODES",
        "CVMFS_NFS_SHARED",
        "CVMFS_NFS_SOURCE",
        "CVMFS_NOTIFICATION_SERVER",
        "CVMFS_PROXY_SHARDING_POLICY",
        "CVMFS_SERVER_CACHE_MODE",
        "CVMFS_SHARED_CACHE",
        "CVMFS_STREAMING_CACHE",
        "CVMFS_SYSTEMD_NOKILL",
        "CVMFS_TRACEBUFFER",
        "CVMFS_TRACEBUFFER_THRESHOLD",
        "CVMFS_TRUSTED_CERTS",
    )
)

# what the reference client obeys and this program does not yet, because nothing is mounted and no names are asked for
# by itself; each comes into the table above with the feature that reads it
UNUSED_NAMES = frozenset(
    (
        "CVMFS_CACHE_SYMLINKS",
        "CVMFS_CATALOG_WATERMARK",
        "CVMFS_DEBUGLOG",
        "CVMFS_DNS_ROAMING",
        "CVMFS_DNS_SERVER",
        "CVMFS_ENFORCE_ACLS",
        "CVMFS_FUSE_NOTIFY_INVALIDATION",
        "CVMFS_MEMCACHE_SIZE",
        "CVMFS_NFILES",
        "CVMFS_OOM_SCORE_ADJ",
        "CVMFS_RELOAD_SOCKETS",
        "CVMFS_REPOSITORIES",
        "CVMFS_STATFS_CACHE_TIMEOUT",
        "CVMFS_STRICT_MOUNT",
        "CVMFS_SYSLOG_FACILITY",
        "CVMFS_SYSLOG_LEVEL",
        "CVMFS_SYSLOG_PREFIX",
        "CVMFS_TALK_OWNER",
        "CVMFS_TALK_SOCKET",
        "CVMFS_TELEMETRY_RATE",
        "CVMFS_TELEMETRY_SEND",
        "CVMFS_TRACEFILE",
        "CVMFS_USER",
        "CVMFS_USYSLOG",
        "CVMFS_WORKSPACE",
    )
)


@cache
def specs() -> dict[str, ParameterSpec]:
    """The table by name, in the order of the groups."""
    return {spec.name: spec for spec in _make_specs()}


def _make_specs() -> Iterator[ParameterSpec]:
    for group, rows in _GROUPS:
        for name, kind, field, default, meaning in rows:
            like = default[1:] if default is not None and default.startswith("=") else None
            yield ParameterSpec(
                name=name[1:] if name.startswith("=") else f"CVMFS_{name}",
                kind=kind,
                field=field.rstrip("*") if field is not None else None,
                default=None if like else default,
                meaning=meaning,
                group=group,
                combined=field is not None and field.endswith("*"),
                like=like,
            )
