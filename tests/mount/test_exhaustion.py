"""A daemon without descriptors, and a cache whose disk becomes full amid reads: errors with a reason, never for ever.

What programs read is right or an error, each trouble is told in few words, and all is well as soon as there is room.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse import syscalls
from tests.mount.mounting import Mounted, every_engine
from tests.mount.people import wait_until
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository, write_tree
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
FQRN = "exhausted.test.org"
FILES = {f"file{number}": os.urandom(1000) for number in range(200)} | {"large": os.urandom(1 << 20)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Path]]:
    directory = tmp_path_factory.mktemp("exhausted")
    chunk = 1 << 16
    own = OwnRepository(
        directory, FQRN, chunk_min_bytes=chunk // 2, chunk_average_bytes=chunk, chunk_max_bytes=2 * chunk
    )
    write_tree(directory / "tree", FILES)
    own.publish_directory(directory / "tree")
    www = directory / "www"
    (www / "cvmfs").mkdir(parents=True)
    (www / "cvmfs" / FQRN).symlink_to(own.storage)
    with Nginx(www) as web:
        yield web, next(directory.rglob("*.pub"))


def client_of(served: tuple[Nginx, Path], directory: Path, **parameters: str) -> Client:
    return Client(directory / "client", FQRN, [served[0].url], served[1], **parameters)


def error_of(top: Path, name: str) -> int | None:
    """Why a file cannot be read; what can be read must be right."""
    try:
        assert (top / name).read_bytes() == FILES[name]
    except OSError as error:
        return error.errno
    return None


def fill(path: Path) -> None:
    """Takes all the room there is; what is fetched ahead meanwhile takes some, too."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@every_engine
@pytest.mark.parametrize("limit", [64, 128])
def test_few_descriptors(served: tuple[Nginx, Path], tmp_path: Path, engine: str, limit: int) -> None:
    wrapper = ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
    mounted = Mounted(client_of(served, tmp_path), tmp_path / "mnt", engine=engine, wrapper=wrapper)
    with mounted as top:
        with ThreadPoolExecutor(50) as readers:
            found = set(readers.map(lambda name: error_of(top, name), FILES))
        assert found <= {None, errno.EIO, errno.EMFILE}
        for name in FILES:  # nobody else reads now
            assert error_of(top, name) is None
        os.stat(top / "file0")
        assert len(os.listdir(f"/proc/{mounted.process.pid}/fd")) < limit
    assert "Traceback" not in mounted.errors


def open_objects(pid: int) -> int:
    """How many objects of the cache a daemon has open."""
    place = f"/proc/{pid}/fd"
    count = 0
    for each in os.listdir(place):
        with suppress(FileNotFoundError):  # closed since it was listed
            count += "/objects/" in os.readlink(f"{place}/{each}")
    return count


@every_engine
def test_few_descriptors_and_many_who_read_in_order(served: tuple[Nginx, Path], tmp_path: Path, engine: str) -> None:
    """What is opened ahead of programs that have gone must not be missing for others."""
    limit = 64
    wrapper = ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
    mounted = Mounted(client_of(served, tmp_path), tmp_path / "mnt", engine=engine, wrapper=wrapper)
    with mounted as top:
        for name in FILES:  # from here on all is in the cache
            assert error_of(top, name) is None
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
            drop.write("1")
        half = sorted(FILES)[: len(FILES) // 2]
        for _ in range(12):
            script = "for name in sys.argv[1:]: open(name, 'rb').read()"
            subprocess.run([sys.executable, "-I", "-c", f"import sys\n{script}", *half], cwd=top, check=True)
            os.sync()
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
                drop.write("1")
        # what is on its way at this moment comes to its end first
        assert wait_until(lambda: open_objects(mounted.process.pid) <= limit // 4)
        for name in FILES:
            assert error_of(top, name) is None
    assert "Traceback" not in mounted.errors  # the kernel may have read ahead in the large file, and done without


@every_engine
def test_a_read_of_thousands_of_objects(tmp_path: Path, engine: str) -> None:
    """As the kernel asks for a megabyte: all of its chunks, and many readers at once."""
    sizes = tuple(1 + number * 7 % 300 for number in range(3000))
    content = os.urandom(sum(sizes))
    repository = Repository.create(tmp_path / "repository", FQRN)
    repository.publish(Directory({name: File(content, chunk_sizes=sizes) for name in ("one", "same", "again")}))
    wrapper = ["/bin/sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    with Nginx(repository.document_root) as web:
        client = Client(tmp_path / "client", FQRN, [web.url], repository.master_public_key)
        mounted = Mounted(client, tmp_path / "mnt", engine=engine, wrapper=wrapper)
        with mounted as top:
            assert (top / "one").read_bytes() == content
            with ThreadPoolExecutor(8) as readers:
                names = ["same", "again"] * 4
                assert set(readers.map(lambda name: (top / name).read_bytes() == content, names)) == {True}
    assert mounted.errors == ""


@every_engine
def test_a_disk_that_becomes_full_amid_reads(served: tuple[Nginx, Path], tmp_path: Path, engine: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    syscalls.mount("tmpfs", str(disk), "tmpfs", syscalls.MountFlag(0), "size=3m")
    try:
        mounted = Mounted(
            client_of(served, tmp_path, PY_CACHE_DIR=str(disk / "cache")), tmp_path / "mnt", engine=engine
        )
        with mounted as top:
            with open(top / "large", "rb", buffering=0) as file:
                assert file.read(1000) == FILES["large"][:1000]
                fill(disk / "fill")
                with ThreadPoolExecutor(20) as readers:
                    found = set(readers.map(lambda name: error_of(top, name), FILES))
                assert found <= {None, errno.ENOSPC}
                assert errno.ENOSPC in found
                (disk / "fill").unlink()
                assert file.read() == FILES["large"][1000:]
            for name in FILES:
                assert error_of(top, name) is None
        lines = mounted.errors.splitlines()
        assert all("is full" in line for line in lines), lines
        assert 1 <= len(lines) <= 3  # that objects are evicted; why nothing could be opened, and nothing be read
    finally:
        syscalls.unmount(str(disk), lazily=True)
