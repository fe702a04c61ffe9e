"""`user.lhash` of a large object: computed while everybody else is served, and from what is in the cache now."""

from __future__ import annotations

import os
import threading
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import Algorithm, hash_bytes
from cvmfs_py.mount.local_hashes import PIECE_BYTES
from tests.mount.mounting import Mounted, every_engine
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository, write_tree
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
FQRN = "hashes.test.org"
LARGE_BYTES = 200 << 20
SERVED = 50


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Path]]:
    directory = tmp_path_factory.mktemp("hashes")
    limit = 1 << 30  # nothing is cut into chunks
    own = OwnRepository(directory, FQRN, chunk_min_bytes=limit, chunk_average_bytes=limit, chunk_max_bytes=limit)
    tree = directory / "tree"
    write_tree(tree, {"small": b"small\n", "odd": os.urandom(PIECE_BYTES * 2 + 1)})
    with open(tree / "large", "wb") as file:
        file.truncate(LARGE_BYTES)
    own.publish_directory(tree)
    www = directory / "www"
    (www / "cvmfs").mkdir(parents=True)
    (www / "cvmfs" / FQRN).symlink_to(own.storage)
    with Nginx(www) as web:
        yield web, next(directory.rglob("*.pub"))


@pytest.fixture
def client(served: tuple[Nginx, Path], tmp_path: Path) -> Client:
    return Client(tmp_path / "client", FQRN, [served[0].url], served[1])


def hash_anew(content: bytes) -> bytes:
    """As the reference client does it; the publisher may compress in another way."""
    return str(hash_bytes(Algorithm.SHA1, zlib.compress(content))).encode()


@every_engine
def test_others_are_served_meanwhile(client: Client, tmp_path: Path, engine: str) -> None:
    with Mounted(client, tmp_path / "mnt", engine=engine) as top:
        with open(top / "large", "rb") as file:
            while file.read(1 << 20):
                pass
        found: list[bytes] = []
        asking = threading.Thread(target=lambda: found.append(os.getxattr(top / "large", "user.lhash")))
        count = 0
        asking.start()
        while asking.is_alive():
            os.statvfs(top)  # which the kernel never answers by itself
            count += 1
        asking.join()
        assert found == [hash_anew(bytes(LARGE_BYTES))]
        assert count > SERVED


@every_engine
def test_what_is_in_the_cache_counts(client: Client, tmp_path: Path, engine: str) -> None:
    with Mounted(client, tmp_path / "mnt", engine=engine) as top:
        for name in ("odd", "small"):
            assert os.getxattr(top / name, "user.lhash") == b"Not in cache"
            content = (top / name).read_bytes()
            assert os.getxattr(top / name, "user.lhash") == hash_anew(content)
        (cached,) = [each for each in client.cache.rglob("*") if each.is_file() and each.stat().st_size == 6]
        cached.chmod(0o600)
        time_ns = cached.stat().st_mtime_ns
        cached.write_bytes(b"wrong\n")
        os.utime(cached, ns=(time_ns, time_ns))  # the seal is that of the right content: only the hash can tell
        assert os.getxattr(top / "small", "user.lhash") == hash_anew(b"wrong\n")
        cached.unlink()
        assert os.getxattr(top / "small", "user.lhash") == b"Not in cache"
