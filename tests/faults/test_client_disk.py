"""The whole client on disks that are full, read-only, foreign, forbidden, or vanish under it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rights import NOBODY
from tests.simulator.command import Client, Finished, as_nobody, in_mount_namespace
from tests.simulator.fault_server import refused_port
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Iterator

FQRN = "test.example.org"
MIB = 1 << 20
MANY = {f"file{number:02d}": random.Random(number).randbytes(150_000) for number in range(60)}
CHUNKED = random.Random(100).randbytes(10 * MIB)
DEAD = f"http://127.0.0.1:{refused_port()}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN, level=0)
    many = {name: File(content) for name, content in MANY.items()}
    tree = {
        "many": Directory(many, nested=True),
        "chunked": File(CHUNKED, chunk_sizes=MIB),
        "large": File(CHUNKED),
        "small": File(b"small\n"),
        "smaller": File(b"smaller\n"),
    }
    repository.publish(Directory(tree))
    return repository


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[SlowServer]:
    with SlowServer(repository.document_root) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, repository: Repository, server: SlowServer) -> Client:
    client = Client(tmp_path, FQRN, [server.url], repository.master_public_key)
    client.cache.mkdir()
    return client


@pytest.fixture
def warm(client: Client) -> Client:
    """A client that has the small file in its cache."""
    assert client.run("cat", f"{FQRN}:/small").output == b"small\n"
    return client


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every account can enter."""
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-public-", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def small_disk(directory: Path, size: str, *, inodes: int = 0) -> list[str]:
    """A wrapper for what runs with a small disk of its own at this place."""
    return in_mount_namespace(f"mount -t tmpfs -o size={size},nr_inodes={inodes} tmpfs {directory}")


def read_only(directory: Path) -> list[str]:
    return in_mount_namespace(f"mount --bind {directory} {directory}; mount -o remount,bind,ro {directory}")


def is_refused(done: Finished, *words: str) -> None:
    """Asserts that a command failed with one line that has these words, and no output."""
    assert done.code == 5, done
    assert done.output == b""
    assert len(done.error_lines) == 1, done
    for word in words:
        assert word in done.errors


def has_many(directory: Path) -> bool:
    return all((directory / name).read_bytes() == content for name, content in MANY.items())


# full disks


@pytest.mark.parametrize("size", ["3m", "1m"], ids=["a third of it fits", "hardly more than the files in flight"])
def test_more_is_copied_than_fits(client: Client, size: str) -> None:
    done = client.run("cp", "-r", f"{FQRN}:/many", "copy", wrapper=small_disk(client.cache, size))
    assert done.code == 0, done
    assert has_many(client.directory / "copy")
    assert len(done.error_lines) == 2, done
    assert f"the disk of the cache {client.cache} is full" in done.error_lines[0]


@pytest.mark.parametrize("size", ["8m", "1536k"])
def test_a_file_is_larger_than_the_disk_but_its_chunks_are_not(client: Client, size: str) -> None:
    wrapper = small_disk(client.cache, size)
    done = client.run("cat", f"{FQRN}:/chunked", wrapper=wrapper)
    assert (done.code, done.output == CHUNKED) == (0, True), done
    done = client.run("cp", f"{FQRN}:/chunked", "copy", wrapper=wrapper)
    assert done.code == 0, done
    assert (client.directory / "copy").read_bytes() == CHUNKED


def test_an_object_is_larger_than_the_disk(client: Client) -> None:
    wrapper = small_disk(client.cache, "4m")
    words = (
        f"the disk of the cache {client.cache} is full",
        "free some space there, or choose another cache directory",
    )
    is_refused(client.run("cat", f"{FQRN}:/large", wrapper=wrapper), *words)
    is_refused(client.run("cp", f"{FQRN}:/large", "copy", wrapper=wrapper), *words)
    is_refused(client.run("cat", f"{FQRN}:/chunked", wrapper=small_disk(client.cache, "1m")), *words)
    assert not (client.directory / "copy").exists()
    # For what fits the same disk is good enough.
    assert client.run("cat", f"{FQRN}:/small", wrapper=wrapper).output == b"small\n"


def test_there_is_room_for_nothing_at_all(client: Client) -> None:
    is_refused(client.run("ls", FQRN, wrapper=small_disk(client.cache, "16k")), str(client.cache), "free some space")
    is_refused(client.run("ls", FQRN, wrapper=small_disk(client.cache, "1m", inodes=4)), str(client.cache))


def test_the_limit_is_kept_where_the_disk_is_large(client: Client) -> None:
    limited = client.changed(QUOTA_LIMIT="4")
    done = limited.run("cp", "-r", f"{FQRN}:/many", "copy")
    assert done.code == 0, done
    assert len(done.error_lines) == 1, done
    assert has_many(client.directory / "copy")
    used = sum(path.stat().st_size for path in client.cache.rglob("objects/??/*"))
    assert used < 4 * MIB + 32 * 150_000  # what was in flight may exceed it


def test_the_destination_is_full(client: Client) -> None:
    target = client.directory / "target"
    target.mkdir()
    done = client.run("cp", "-r", f"{FQRN}:/many", "target/copy", wrapper=small_disk(target, "2m"))
    is_refused(done, "cannot write the copy of /many/file", "No space left on device")
    # The disk of the copy is not that of the cache: nothing was evicted, and the rest is copied elsewhere.
    assert client.run("cp", "-r", f"{FQRN}:/many", "copy").code == 0
    assert has_many(client.directory / "copy")
    done = client.run("cp", f"{FQRN}:/small", "target/copy", wrapper=read_only(target))
    is_refused(done, "small", "Read-only file system")
    done = client.run("cp", "-r", f"{FQRN}:/many", "target/copy", wrapper=read_only(target))
    is_refused(done, "target/copy", "Read-only file system")
    is_refused(client.run("cp", "-r", f"{FQRN}:/many", "nowhere/copy"), "nowhere", "No such file or directory")
    assert os.listdir(target) == []


# cache directories that cannot be used


def test_a_read_only_cache_serves_what_it_has(warm: Client) -> None:
    wrapper = read_only(warm.cache)
    for client in (warm, warm.changed([DEAD])):
        is_online = client is warm
        done = client.run("cat", f"{FQRN}:/small", wrapper=wrapper)
        assert (done.code, done.output) == (0, b"small\n"), done
        assert len(done.error_lines) == (0 if is_online else 1), done
        assert client.run("ls", FQRN, wrapper=wrapper).code == 0
        assert client.run("cp", f"{FQRN}:/small", "copy", wrapper=wrapper).code == 0
    is_refused(
        warm.run("cat", f"{FQRN}:/smaller", wrapper=wrapper),
        f"cannot write to the cache directory {warm.cache}: Read-only file system; choose a cache directory that you",
    )
    is_refused(warm.run("cache", "gc", "--to", "0", wrapper=wrapper), str(warm.cache), "Read-only file system")
    assert warm.run("cache", "status", wrapper=wrapper).code == 0


def test_a_read_only_cache_that_has_nothing(client: Client) -> None:
    done = client.run("ls", FQRN, wrapper=read_only(client.cache))
    is_refused(done, f"cannot write to the cache directory {client.cache}: Read-only file system")


def test_a_foreign_directory_is_left_alone(client: Client, server: SlowServer) -> None:
    (client.cache / "thesis.tex").write_text("precious")
    for arguments in (["ls", FQRN], ["cache", "status"], ["cache", "gc", "--to", "0"]):
        is_refused(client.run(*arguments), f"{client.cache} contains files but is no cache directory; choose an empty")
    assert os.listdir(client.cache) == ["thesis.tex"]
    reference = client.directory / "reference"
    (reference / "00").mkdir(parents=True)
    (reference / "ff").mkdir()
    done = client.changed(PY_CACHE_DIR=str(reference)).run("ls", FQRN)
    is_refused(done, "a cache of the reference client, which this program only reads")
    assert sorted(os.listdir(reference)) == ["00", "ff"]


def test_there_is_a_file_in_the_way(client: Client) -> None:
    file = client.directory / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        done = client.changed(PY_CACHE_DIR=str(place)).run("ls", FQRN)
        is_refused(done, f"cannot use the cache directory {place}: Not a directory; choose another one")
    assert file.read_text() == "mine"


def test_another_account_has_no_permission(public_directory: Path, repository: Repository, server: SlowServer) -> None:
    key = public_directory / "key.pub"
    shutil.copy(repository.master_public_key, key)
    client = Client(public_directory, FQRN, [server.url], key)
    wrapper = as_nobody(public_directory / "namespace")
    assert client.run("cat", f"{FQRN}:/small").output == b"small\n"
    for path in (client.cache, *client.cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        # What can be read serves.
        done = client.run("cat", f"{FQRN}:/small", wrapper=wrapper)
        assert (done.code, done.output, done.errors) == (0, b"small\n", "")
        is_refused(
            client.run("cat", f"{FQRN}:/smaller", wrapper=wrapper),
            f"cannot write to the cache directory {client.cache}: Permission denied; choose a cache directory",
        )
        done = client.run("cp", f"{FQRN}:/small", str(client.cache / "copy"), wrapper=wrapper)
        is_refused(done, "cannot write the copy of /small: Permission denied")
        client.cache.chmod(0)
        is_refused(
            client.run("cat", f"{FQRN}:/small", wrapper=wrapper),
            f"cannot use the cache directory {client.cache}: Permission denied; choose another one",
        )
    finally:
        for path in (client.cache, *client.cache.rglob("*")):
            path.chmod(0o700)


@pytest.mark.parametrize("others", ["mode", "link", pytest.param("account", marks=pytest.mark.needs("other users"))])
def test_the_cache_among_temporary_files_was_made_by_somebody_else(
    public_directory: Path, repository: Repository, server: SlowServer, others: str
) -> None:
    key = public_directory / "key.pub"
    shutil.copy(repository.master_public_key, key)
    client = Client(public_directory, FQRN, [server.url], key)
    wrapper = as_nobody(public_directory / "namespace")  # root has a home wherever HOME leads
    trap = public_directory / "tmp" / f"cvmfs-py-cache-{NOBODY if wrapper else os.geteuid()}"
    trap.parent.mkdir()
    trap.parent.chmod(0o1777)
    filled = client.changed(PY_CACHE_DIR=str(trap)).run("ls", FQRN, wrapper=wrapper)
    assert filled.code == 0, filled  # to choose it by name is everybody's own business
    del client.parameters["PY_CACHE_DIR"]
    client.environment |= {"HOME": "/proc/1", "TMPDIR": str(trap.parent), "XDG_CACHE_HOME": "none"}
    client.parameters["CACHE_BASE"] = "/proc/1/none"
    if others == "account":
        os.chown(trap, 12345, 12345)
    elif others == "mode":
        trap.chmod(0o777)
    else:
        trap.rename(public_directory / "elsewhere")
        trap.symlink_to(public_directory / "elsewhere")
    done = client.run("cat", f"{FQRN}:/small", wrapper=wrapper)
    assert (done.code, done.output) == (2, b""), done
    assert len(done.error_lines) == 1
    assert f"the cache directory {trap}, used because there is no home directory to write to, " in done.errors
    assert "--cache-dir" in done.errors


def test_there_is_no_home(public_directory: Path, repository: Repository, server: SlowServer) -> None:
    key = public_directory / "key.pub"
    shutil.copy(repository.master_public_key, key)
    client = Client(public_directory, FQRN, [server.url], key)
    del client.parameters["PY_CACHE_DIR"]
    del client.environment["HOME"]
    temporary = public_directory / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    client.environment["TMPDIR"] = str(temporary)
    # Elsewhere the account's own entry in the password file says where its home is, and that is not for tests.
    wrapper = as_nobody(public_directory / "namespace") or in_mount_namespace("")
    done = client.run("cat", f"{FQRN}:/small", wrapper=wrapper)
    assert (done.code, done.output, done.errors) == (0, b"small\n", "")
    (cache,) = temporary.iterdir()
    assert cache.name.startswith("cvmfs-py-cache-")
    assert (cache / ".cvmfs-py-cache").is_file()
    assert cache.stat().st_mode & 0o777 == 0o700


# what happens to a cache while it is used, and between two uses


def test_the_cache_is_removed_while_it_is_filled(client: Client, repository: Repository) -> None:
    with SlowServer(repository.document_root, delay_s=0.03) as slow:
        slowed = client.changed([slow.url])
        for moment in (10, 35, 55):
            seen = len(slow.requests)
            copy = client.directory / f"copy{moment}"
            running = slowed.start("cp", "-r", f"{FQRN}:/many", copy.name)
            slow.wait_for_requests(seen + moment, running.is_alive)
            shutil.rmtree(client.cache, ignore_errors=True)
            done = running.finish()
            assert done.code == 0, done
            assert has_many(copy)
            done = client.run("cat", f"{FQRN}:/small")
            assert (done.code, done.output, done.errors) == (0, b"small\n", "")
            shutil.rmtree(client.cache)


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated", "removed", "a directory", "locked"])
def test_the_index_is_damaged(warm: Client, damage: str) -> None:
    assert warm.run("cp", "-r", f"{FQRN}:/many", "first").code == 0
    index = warm.cache / "index.sqlite"
    assert index.is_file()
    if damage == "garbage":
        index.write_bytes(b"no database" * 1000)
    elif damage == "empty":
        index.write_bytes(b"")
    elif damage == "truncated":
        os.truncate(index, index.stat().st_size // 2)
    else:
        index.unlink()
    if damage == "a directory":
        index.mkdir()
    elif damage == "locked":
        (warm.cache / "running" / "left-behind").write_bytes(b"")
    objects = len(list(warm.cache.rglob("objects/??/*")))
    done = warm.changed(QUOTA_LIMIT="100").run("cat", f"{FQRN}:/smaller")
    assert (done.code, done.output) == (0, b"smaller\n"), done
    assert all("Traceback" not in line for line in done.error_lines)
    done = warm.changed([DEAD]).run("cp", "-r", f"{FQRN}:/many", "second")
    assert done.code == 0, done
    assert has_many(warm.directory / "second")
    done = warm.run("cache", "status", "--json")
    assert done.code == 0, done
    assert f'"objects": {objects + 1}' in done.output.decode()
    assert warm.run("cache", "check").code == 0
    assert os.listdir(warm.cache / "txn") == []


def test_a_small_limit_of_open_files(tmp_path: Path) -> None:
    """Many systems have 1024 at first and let every process raise that."""
    tree = Directory({f"file{number}": File(b"%d" % number * 64, chunk_sizes=8) for number in range(20)})
    for level in range(100):
        tree = Directory({f"level{level}": tree})
    repository = Repository.create(tmp_path / "repository", FQRN)
    repository.publish(tree)
    with SlowServer(repository.document_root) as server:
        client = Client(tmp_path / "client", FQRN, [server.url], repository.master_public_key)
        wrapper = ["/bin/sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh"]
        done = client.run("cp", "-rq", f"{FQRN}:/", "copy", wrapper=wrapper)
    assert (done.code, done.errors) == (0, "")
    assert len([path for path in (client.directory / "copy").rglob("file*") if path.is_file()]) == 20
