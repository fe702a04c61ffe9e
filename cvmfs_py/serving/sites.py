"""Which file answers a URL: the repositories that are served, and the few kinds of names that exist in one.

Every name is matched against the grammar of repository files before the disk is asked, so nothing else below or beside
the storage can be reached: no keys, no transactions, no `..`. Reads only the local disk.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAMED_MAX_AGE_S = 61
DATA_MAX_AGE_S = 259_200

_DATA = re.compile(rb"data/[0-9a-f]{2}/[0-9a-f]{30,38}(-rmd160|-shake128)?[PCXHML]?\Z")
_NAMED = re.compile(rb"\.cvmfs[a-z_]*(\.json|\.pkcs7)?\Z|\.cvmfsalt-[0-9a-f]{32,40}(-rmd160|-shake128)?[PCXHML]?\Z")
_INFO = b"/cvmfs/info/v1/repositories.json"


@dataclass(frozen=True, slots=True)
class Site:
    """One served repository."""

    name: str
    directory: Path


@dataclass(frozen=True, slots=True)
class Found:
    """An open file, or bytes made for the answer, with what its headers need."""

    fd: int | None
    data: bytes
    size_bytes: int
    mtime_s: int
    etag: str
    content_type: str
    max_age_s: int

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


class Sites:
    """All served repositories, by name."""

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self._sites = {site.name.encode(): site for site in sites}

    def find(self, path: bytes) -> Found | None:
        """The file behind a decoded URL path; None: there is none."""
        if path == _INFO:
            return self._information()
        prefix, cvmfs, rest = path.partition(b"/cvmfs/")
        name, _, below = rest.partition(b"/")
        site = self._sites.get(name)
        if prefix or not cvmfs or site is None:
            return None
        if _DATA.match(below):
            return _open_file(site, below, "application/octet-stream", DATA_MAX_AGE_S)
        if _NAMED.match(below):
            is_object = below.startswith(b".cvmfsalt-")
            kind = "application/octet-stream" if is_object else "application/x-cvmfs"
            kind = "application/json" if below.endswith(b".json") else kind
            return _open_file(site, below, kind, DATA_MAX_AGE_S if is_object else NAMED_MAX_AGE_S)
        return None

    def _information(self) -> Found:
        repositories = [{"name": name.decode(), "url": f"/cvmfs/{name.decode()}"} for name in sorted(self._sites)]
        data = json.dumps({"schema": 1, "repositories": repositories, "replicas": []}).encode()
        return Found(None, data, len(data), 0, "", "application/json", NAMED_MAX_AGE_S)


def _open_file(site: Site, below: bytes, content_type: str, max_age_s: int) -> Found | None:
    path = os.path.join(os.fsencode(site.directory), below)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    info = os.fstat(fd)
    # An alternative name may be a link to an object; a link out of the storage is not followed.
    if not stat.S_ISREG(info.st_mode) or (os.path.islink(path) and not _is_inside(path, site)):
        os.close(fd)
        return None
    etag = f'"{info.st_size:x}-{info.st_mtime_ns:x}"'
    return Found(fd, b"", info.st_size, info.st_mtime_ns // 1_000_000_000, etag, content_type, max_age_s)


def _is_inside(path: bytes, site: Site) -> bool:
    top = os.path.realpath(os.fsencode(site.directory))
    return os.path.realpath(path).startswith(top + b"/data/")
