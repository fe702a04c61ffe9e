"""Opens repositories in this process, with a configuration of their own: nothing of the machine's counts.

async with opened(repository, tmp_path / "cache") as client: ...       # read from the disk, as if from a server
async with opened(repository, tmp_path / "cache", servers=[web.url], CVMFS_REPOSITORY_TAG="v1") as client: ...
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cvmfs_py.mount.assemble import Wanted, open_repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from cvmfs_py.mount.repository import Repository
    from tests.simulator.repository import Repository as Published


def wanted(published: Published, cache: Path, servers: Sequence[str] | None = None, **parameters: str) -> Wanted:
    """`servers` serve the document root; without any it is read from the disk."""
    bases = [f"file://{published.document_root}"] if servers is None else servers
    overrides = {
        "CVMFS_SERVER_URL": ";".join(f"{base}/cvmfs/{published.fqrn}" for base in bases),
        "CVMFS_PUBLIC_KEY": str(published.master_public_key),
        "CVMFS_EXTERNAL_URL": f"file://{published.external_root}",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PY_CACHE_DIR": str(cache),
        "CVMFS_TIMEOUT_DIRECT": "2",
        "CVMFS_MAX_RETRIES": "0",
    }
    return Wanted(published.fqrn, overrides | parameters, ())


@asynccontextmanager
async def opened(
    published: Published,
    cache: Path,
    servers: Sequence[str] | None = None,
    *,
    fresh: bool = False,
    **parameters: str,
) -> AsyncIterator[Repository]:
    async with open_repository(wanted(published, cache, servers, **parameters), fresh=fresh) as repository:
        yield repository


class Nobody:
    """Watches no progress."""

    def expect(self, objects: int = 1, size_bytes: int = 0) -> None: ...

    def skip(self, size_bytes: int = 0, objects: int = 1) -> None: ...

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...
