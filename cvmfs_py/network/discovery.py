"""Finding proxies for `auto` groups: the environment, then proxy auto-configuration files.

Fetches such files directly, without proxies. What they may contain is `pac`'s matter.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError
from cvmfs_py.network import pac
from cvmfs_py.network.client import Client, Collector, Target
from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_list import DIRECT
from cvmfs_py.network.routes import Route

if TYPE_CHECKING:
    from cvmfs_py.network.options import NetworkConfig

_log = logging.getLogger(__name__)


async def discover_proxies(text: str, hosts: tuple[str, ...], config: NetworkConfig, client: Client) -> str:
    """The proxy list with discovered proxies in place of `auto`. Raises ConfigError if nothing is left."""
    if not pac.is_auto(text):
        return text
    expanded = pac.expand_auto(text, config.environment_http_proxy or await _ask_pac_files(config, client))
    if not expanded:
        raise ConfigError(
            f"no proxies were found for CVMFS_HTTP_PROXY={text}; set http_proxy or CVMFS_PAC_URLS, "
            "or append ';DIRECT' to it"
        )
    return expanded


async def _ask_pac_files(config: NetworkConfig, client: Client) -> str:
    for url in config.pac_urls:
        url = pac.WPAD_URL if url == "auto" else url
        collector = Collector(pac.LIMIT_BYTES)
        root, path = split_location(url)
        end = await client.attempt(Route(root, DIRECT, False, 0, config.timeout_direct_s), Target(path), collector)
        if end.outcome is not Outcome.OK:
            _log.warning("cannot fetch the proxy auto-configuration %s: %s", url, end.reason)
            continue
        try:
            return pac.proxies_of_pac(collector.data)
        except pac.PacError as error:
            _log.warning("cannot use the proxy auto-configuration %s: %s", url, error)
    return ""


def split_location(url: str) -> tuple[str, bytes]:
    """A URL as host and path."""
    scheme, separator, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}{separator}{authority}", b"/" + path.encode("utf-8", "surrogateescape")
