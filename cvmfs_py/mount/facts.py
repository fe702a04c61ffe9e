"""What only a running mount knows, for its extended attributes: servers, counters, times. One mapping of names.

The meaning of the attributes is for `vfs.magic`. Concurrency: asked by the tasks of the event loop.
"""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING

from cvmfs_py import __version__
from cvmfs_py.config.keys import load_master_key_texts
from cvmfs_py.errors import ConfigError
from cvmfs_py.vfs.facts import NO_METAINFO, MountFacts, read_metainfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catalog.opened import OpenObject
    from cvmfs_py.mount.log_lines import RecentLines
    from cvmfs_py.mount.volume import MountedVolume
    from cvmfs_py.network.manager import Manager

RESERVED_DESCRIPTORS = 512
KIB = 1024


def mount_facts(
    volume: MountedVolume, lines: RecentLines, expires_s: Callable[[], float], offline: Callable[[], str]
) -> MountFacts:
    """The facts of a mount that begins now. `expires_s`: how long the revision is valid still; `offline`: why it is."""
    started_s = time.time()
    finder, stats, files = volume.finder, volume.stats, volume.files
    settings, standard, external = finder.settings, finder.fetcher.standard, finder.fetcher.external

    def hit_rate() -> str:
        all_of_them = stats.local_operations + stats.waiting_operations
        return f"{100 * stats.local_operations / all_of_them:.3f}" if all_of_them else "n/a"

    def speed() -> str:
        received_bytes = _received_bytes(standard, external)
        return str(int(received_bytes / stats.waited_s / KIB)) if stats.waited_s >= 1 else "n/a"

    values: dict[str, Callable[[], str | int | Sequence[str]]] = {
        "cvmfspy_offline": offline,
        "expires": lambda: int(expires_s() // 60),
        "external_host_list": lambda: _hosts(external),
        "external_timeout": lambda: int(settings.external_timeout_direct_s),
        "hitrate": hit_rate,
        "host_list": lambda: _hosts(standard),
        "inode_max": lambda: files.inodes.highest,
        "logbuffer": lines.newest,
        "maxfd": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS,
        "ncleanup24": lambda: -1,
        "nclg": lambda: files.attached_count,
        "ndiropen": lambda: stats.opendirs,
        "ndownload": lambda: standard.counters.requests + external.counters.requests,
        "nioerr": lambda: stats.io_errors,
        "nopen": lambda: stats.opens,
        "pid": os.getpid,
        "proxy": lambda: (*_proxies(standard), "DIRECT")[0],
        "proxy_list": lambda: _proxies(standard),
        "proxy_list_external": lambda: _proxies(external),
        "pubkeys": lambda: _public_keys(volume),
        "rx": lambda: _received_bytes(standard, external) // KIB,
        "speed": speed,
        "timeout": lambda: int(settings.timeout_s),
        "timeout_direct": lambda: int(settings.timeout_direct_s),
        "timestamp_last_ioerr": lambda: stats.last_io_error_s,
        "uptime": lambda: int(time.time() - started_s) // 60,
        "usedfd": lambda: stats.open_files,
        "useddirp": lambda: stats.open_directories,
        "version": lambda: f"{__version__}.0",
    }
    return MountFacts(
        values,
        local_hash=volume.local_hashes.tell,
        metainfo=lambda open_object: _metainfo(volume, open_object),
    )


def _metainfo(volume: MountedVolume, open_object: OpenObject) -> bytes:
    """The description that the owner has published with the revision that is shown."""
    trusted = volume.root.trusted
    if trusted is None:
        return NO_METAINFO
    return read_metainfo(trusted.manifest.metainfo_ref, open_object)


def _hosts(manager: Manager) -> tuple[str, ...]:
    """From the one in use on."""
    chain = manager.routes.hosts
    return chain.hosts[chain.index :] + chain.hosts[: chain.index]


def _proxies(manager: Manager) -> tuple[str, ...]:
    groups = manager.routes.proxies
    ordered = groups.groups[groups.index :] + groups.groups[: groups.index]
    return tuple(proxy.name for group in ordered for proxy in group)


def _received_bytes(*managers: Manager) -> int:
    return sum(manager.transfers.received_bytes for manager in managers)


def _public_keys(volume: MountedVolume) -> tuple[str, ...]:
    try:
        return tuple(key.pem.decode("utf-8", "replace") for key in load_master_key_texts(volume.finder.settings))
    except ConfigError:  # they were removed since
        return ()
