"""The local paths that settings name, and the refusal of those that lead into a mount of the process that uses them.

To be asked before a mount, when it is noted as one's own, and by whoever loads settings afterwards. Touches nothing at
these paths. Any thread may ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cvmfs_py import own_mounts
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.config.settings import Settings


class HiddenPathError(ConfigError):
    """A path that is configured leads into a mount of the process that is to use it."""


def check_local_paths(settings: Settings) -> None:
    """HiddenPathError for the first path that this process could only read by asking itself."""
    if own_mounts.is_any():
        for name, path in (*kept_paths(settings), *paths_read_once(settings)):
            check_path(name, path)


def check_path(name: str, path: Path) -> None:
    """`name` says what is there, and how it is set."""
    own = own_mounts.find_own_mount(path)
    if own is not None:
        raise HiddenPathError(
            f"{name} {path} lies below the mountpoint {own}, which hides it from the process that serves the mount; "
            "mount elsewhere, or keep it elsewhere"
        )


def kept_paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    """What is used as long as the repository is."""
    yield "the cache directory (--cache-dir)", settings.cache_dir
    for path in settings.lower_caches:
        yield "the lower cache (CVMFS_ALIEN_CACHE, CVMFS_PY_LOWER_CACHES)", path
    for name, found in (
        ("the authorities of X509_CERT_BUNDLE", settings.x509_cert_bundle),
        ("the authorities of X509_CERT_DIR", settings.x509_cert_dir),
        ("the file of HOST_ALIASES", settings.host_aliases),
    ):
        if found is not None:
            yield name, found
    for url in (*settings.servers, *settings.external_servers, *settings.pac_urls):
        if url.startswith("file:"):
            yield "the server", Path(unquote(urlsplit(url).path))


def paths_read_once(settings: Settings) -> Iterator[tuple[str, Path]]:
    """What is read when the repository is opened. Those that nobody has configured need not be there."""
    for path in settings.public_keys:
        yield "the master key (CVMFS_PUBLIC_KEY)", path
    if settings.is_keys_dir_configured and not settings.public_keys:
        yield "the directory of master keys (CVMFS_KEYS_DIR)", settings.keys_dir
    for path in settings.blacklists:
        yield "the blacklist", path
    for name, found in (("CVMFS_UID_MAP", settings.uid_map), ("CVMFS_GID_MAP", settings.gid_map)):
        if found is not None:
            yield f"the map of {name}", found
