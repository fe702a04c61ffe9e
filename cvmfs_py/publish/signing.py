"""The signed documents of a repository as bytes: manifests and whitelists.

Decides nothing of what they say, and writes no files. Stateless.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cache.address import hash_bytes
from cvmfs_py.trust.manifest import Manifest
from cvmfs_py.trust.whitelist import format_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.address import Algorithm, ContentHash
    from cvmfs_py.publish.keys import PublisherKeys

__all__ = ["Manifest", "format_manifest", "format_whitelist"]

_ROOT_PATH_HASH = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of the empty path


def format_manifest(manifest: Manifest, keys: PublisherKeys) -> bytes:
    """The manifest, signed with the repository key; the hash below it is of the root catalog's algorithm."""
    lines = [
        f"C{manifest.root_hash}",
        f"B{manifest.root_size_bytes or 0}",
        f"R{_ROOT_PATH_HASH}",
        f"D{manifest.ttl_s}",
        f"S{manifest.revision}",
        f"G{_yes(manifest.is_garbage_collectable)}",
        f"A{_yes(manifest.has_alternative_paths)}",
        f"N{manifest.fqrn}",
        f"X{manifest.certificate_hash}",
    ]
    if manifest.history_hash is not None:
        lines.append(f"H{manifest.history_hash}")
    lines.append(f"T{manifest.timestamp_s}")
    if manifest.metainfo_hash is not None:
        lines.append(f"M{manifest.metainfo_hash}")
    if manifest.reflog_hash is not None:
        lines.append(f"Y{manifest.reflog_hash}")
    lines += [f"Z{tip}" for tip in manifest.channel_tips]
    return _seal(lines, manifest.root_hash.algorithm, keys.sign_manifest_text)


def format_whitelist(
    fqrn: str,
    fingerprints: Iterable[ContentHash],
    created_s: int,
    expires_s: int,
    algorithm: Algorithm,
    keys: PublisherKeys,
) -> bytes:
    """The whitelist, signed with the master key. Clients look at the hour in which it expires, and no closer."""
    lines = [_time(created_s), f"E{_time(expires_s)}", f"N{fqrn}", *map(format_fingerprint, fingerprints)]
    return _seal(lines, algorithm, keys.sign_whitelist_text)


def _seal(lines: list[str], algorithm: Algorithm, sign: Callable[[bytes], bytes]) -> bytes:
    """Body, separator, the body's hash text, and the signature over that text."""
    body = "".join(f"{line}\n" for line in lines).encode("latin-1")
    hash_text = str(hash_bytes(algorithm, body)).encode()
    return body + b"--\n" + hash_text + b"\n" + sign(hash_text)


def _time(time_s: int) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y%m%d%H%M%S}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
