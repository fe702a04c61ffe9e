"""What programs meet when servers, caches, disks and daemons fail under a mount; and how mounts begin and end."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse import syscalls
from tests.mount.mounting import Mounted, every_engine
from tests.simulator.command import PROGRAM, Client
from tests.simulator.fault_server import FaultServer, Silence, answer
from tests.simulator.publisher import OwnRepository, write_tree
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

    from tests.simulator.fault_server import SeenRequest, Steps

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
FQRN = "faults.test.org"
CHUNK = 1 << 16
LARGE = bytes(range(256)) * (16 * CHUNK // 256)


class World:
    """A repository with small files and one in chunks, its web root, and a client of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        settings = {"chunk_min_bytes": CHUNK // 2, "chunk_average_bytes": CHUNK, "chunk_max_bytes": 2 * CHUNK}
        (directory / "own").mkdir()
        self.own = OwnRepository(directory / "own", FQRN, ttl_s=3600, **settings)
        self.tree = directory / "tree"
        write_tree(self.tree, {"small": b"small\n", "other": b"other\n", "large": LARGE})
        self.own.publish_directory(self.tree)
        served = directory / "www" / "cvmfs"
        served.mkdir(parents=True)
        (served / FQRN).symlink_to(self.own.storage)
        (self.key,) = directory.rglob("*.pub")

    def client(self, url: str, **parameters: str) -> Client:
        return Client(self.directory / "client", FQRN, [url], self.key, **parameters)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def web(world: World) -> Iterator[Nginx]:
    with Nginx(world.directory / "www") as server:
        yield server


def error_of(path: Path) -> int | None:
    """How reading a file ends."""
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        return error.errno
    return None


@every_engine
def test_the_server_goes_in_the_middle_and_comes_back(world: World, engine: str) -> None:
    with Nginx(world.directory / "www") as web:
        port = web.port
        with Mounted(world.client(web.url), world.directory / "mnt", engine=engine) as top:
            assert (top / "small").read_bytes() == b"small\n"
            web.kill()
            assert error_of(top / "large") == errno.EIO
            assert error_of(top / "other") == errno.EIO
            assert (top / "small").read_bytes() == b"small\n"  # what is here can be read
            with Nginx(world.directory / "www", port=port):
                assert (top / "large").read_bytes() == LARGE
                assert (top / "other").read_bytes() == b"other\n"


@every_engine
def test_a_silent_server_ends_every_wait(world: World, engine: str) -> None:
    is_silent = False

    def script(request: SeenRequest) -> Steps:
        file = world.directory / "www" / request.path.lstrip("/")
        if is_silent:
            return Silence()
        return answer(200, file.read_bytes()) if file.is_file() else answer(404, b"")

    with (
        FaultServer(script) as server,
        Mounted(world.client(server.url), world.directory / "mnt", engine=engine) as top,
    ):
        assert os.listdir(top)
        is_silent = True
        started = time.monotonic()
        assert error_of(top / "small") == errno.EIO
        assert time.monotonic() - started < 60
        is_silent = False
        assert (top / "small").read_bytes() == b"small\n"


@every_engine
def test_an_object_that_is_damaged_everywhere(world: World, web: Nginx, engine: str) -> None:
    with Mounted(world.client(web.url), world.directory / "mnt", engine=engine) as top:
        digest = os.getxattr(top / "small", "user.hash").decode()
        stored = world.own.storage / "data" / digest[:2] / digest[2:]
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert error_of(top / "small") == errno.EIO
        assert (top / "other").read_bytes() == b"other\n"
        stored.write_bytes(content)
        assert (top / "small").read_bytes() == b"small\n"


@every_engine
def test_nobody_reads_what_the_daemon_says(world: World, web: Nginx, engine: str) -> None:
    mounted = Mounted(world.client(web.url, MAX_RETRIES="0"), world.directory / "mnt", engine=engine)
    with mounted as top:
        with (
            open(f"/proc/{mounted.process.pid}/fd/2", "wb", opener=_open_at_once) as its_errors,
            suppress(BlockingIOError),
        ):
            while True:
                os.write(its_errors.fileno(), b".")
        web.stop()
        assert error_of(top / "small") == error_of(top / "other") == errno.EIO
        assert sorted(os.listdir(top)) == ["large", "other", "small"]
        assert mounted.process.stderr is not None
        while set(os.read(mounted.process.stderr.fileno(), 1 << 20)) == {ord(".")} and _waits(mounted.process.stderr):
            pass
        assert error_of(top / "large") == errno.EIO
    lost, *told = mounted.errors.splitlines()
    assert lost == "cvmfs-py: 2 lines are missing here: nobody has read them in time"
    assert told
    assert all("cannot fetch /large" in line for line in told)  # the kernel asks for more than the program


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags & os.O_ACCMODE | os.O_NONBLOCK)


def _waits(stream: IO[bytes]) -> bool:
    return bool(select.select([stream], [], [], 0)[0])


@every_engine
@pytest.mark.parametrize("damage", ["truncated", "other content", "removed", "the whole cache"])
def test_a_damaged_cache_heals(world: World, web: Nginx, engine: str, damage: str) -> None:
    client = world.client(web.url)
    with Mounted(client, world.directory / "mnt", engine=engine) as top:
        assert (top / "small").read_bytes() == b"small\n"
        digest = os.getxattr(top / "small", "user.hash").decode()
    (cached,) = [path for path in client.cache.rglob("*") if path.is_file() and digest[2:] in path.name]
    with Mounted(client, world.directory / "mnt", engine=engine) as top:
        if damage == "truncated":
            os.truncate(cached, 2)
        elif damage == "other content":
            cached.chmod(0o600)
            cached.write_bytes(b"wrong\n")
        elif damage == "removed":
            cached.unlink()
        else:
            subprocess.run(["rm", "-r", str(client.cache)], check=True)
        assert (top / "small").read_bytes() == b"small\n"
        assert (top / "large").read_bytes() == LARGE


@every_engine
def test_a_full_disk_is_an_error_and_no_more(world: World, web: Nginx, engine: str) -> None:
    small_disk = world.directory / "disk"
    small_disk.mkdir()
    syscalls.mount("tmpfs", str(small_disk), "tmpfs", syscalls.MountFlag(0), "size=400k")
    try:
        client = world.client(web.url, PY_CACHE_DIR=str(small_disk / "cache"))
        with Mounted(client, world.directory / "mnt", engine=engine) as top:
            (small_disk / "fill").write_bytes(bytes(180 << 10))
            assert error_of(top / "small") in (None, errno.ENOSPC)
            assert error_of(top / "large") in (None, errno.ENOSPC)
            (small_disk / "fill").unlink()
            assert (top / "small").read_bytes() == b"small\n"
    finally:
        syscalls.unmount(str(small_disk), lazily=True)


@every_engine
@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "umount", "lazily"])
def test_a_mount_ends_cleanly(world: World, web: Nginx, engine: str, way: str) -> None:
    place = world.directory / "mnt"
    mounted = Mounted(world.client(web.url), place, engine=engine)
    with mounted as top:
        assert (top / "small").read_bytes() == b"small\n"
        process = mounted.process
        if way.startswith("SIG"):
            process.send_signal(signal.Signals[way])
        else:
            syscalls.unmount(str(place), lazily=way == "lazily")
        assert process.wait(60) == 0
        assert not os.path.ismount(place)
        assert list(place.iterdir()) == []
    assert mounted.errors == ""


USER_OF_A_MOUNT = """
import os, sys
os.chdir(sys.argv[1])
files = [os.open("large", os.O_RDONLY) for _ in range(900)]
print("busy", flush=True)
while True:
    for file in files:
        os.pread(file, 4096, 0)
    os.statvfs(".")
"""


@every_engine
def test_a_mount_ends_cleanly_with_its_last_users(world: World, web: Nginx, engine: str) -> None:
    """Unmounted lazily while they are at work, and then they are killed: the kernel lets go amid requests."""
    place = world.directory / "mnt"
    for _ in range(12):
        mounted = Mounted(world.client(web.url), place, engine=engine)
        with mounted:
            users = [
                subprocess.Popen([sys.executable, "-c", USER_OF_A_MOUNT, str(place)], stdout=subprocess.PIPE)
                for _ in range(2)
            ]
            for user in users:
                assert user.stdout is not None
                assert user.stdout.readline() == b"busy\n"
            syscalls.unmount(str(place), lazily=True)
            for user in users:
                user.kill()
            for user in users:
                user.communicate()
            assert mounted.process.wait(60) == 0
        assert "cvmfs-py" not in mounted.errors  # libfuse may say on its own that the connection was aborted


@every_engine
def test_a_dead_mount_is_repaired_by_the_next(world: World, web: Nginx, engine: str) -> None:
    client = world.client(web.url)
    place = world.directory / "mnt"
    mounted = Mounted(client, place, engine=engine)
    with mounted as top:
        assert (top / "small").exists()
        mounted.process.kill()
        mounted.process.wait(60)
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(place)
        assert error_of(top / "other") == errno.ENOTCONN
        with Mounted(client, place, engine=engine) as again:
            assert (again / "other").read_bytes() == b"other\n"
            double = client.run("mount", FQRN, str(place))
            assert double.code == 3
            assert "already" in double.errors


def test_the_daemon_tells_how_it_went(world: World, web: Nginx) -> None:
    """In the background: exit codes and reasons are those of the foreground."""
    client = world.client(web.url)
    place = world.directory / "mnt"
    place.mkdir()
    client.environment["XDG_RUNTIME_DIR"] = str(world.directory)
    (world.directory / "file").touch()
    foreign = world.directory / "foreign.pub"
    (world.directory / "elsewhere").mkdir()
    foreign.write_bytes(World(world.directory / "elsewhere").key.read_bytes())
    for words, code, text in (
        ((FQRN, str(world.directory / "nowhere" / "at all")), 3, "does not exist"),
        ((FQRN, str(world.directory / "file")), 3, "not a directory"),
        (("--tag", "none", FQRN, str(place)), 2, "has no tag"),
        (("--key", str(foreign), FQRN, str(place)), 4, "is not signed by any of the configured master keys"),
        (("--cache-dir", str(place.parent / "new"), "--server", "http://127.0.0.1:9", FQRN, str(place)), 5, "refused"),
        (("not a name", str(place)), 2, "names no repository"),
    ):
        done = client.run("mount", *words)
        assert done.code == code, done
        assert text in done.errors
        assert len(done.error_lines) == 1, done
        assert not os.path.ismount(place)
    try:
        done = client.run("mount", FQRN, str(place))
        assert (done.code, done.errors) == (0, "")
        assert (place / "small").read_bytes() == b"small\n"
        listed = subprocess.run(
            [*PROGRAM, "list", "--json"],
            env=client.environment,
            capture_output=True,
            check=True,
        )
        (mount,) = [each for each in json.loads(listed.stdout) if each["mountpoint"] == str(place)]
        assert (mount["fqrn"], mount["state"], mount["revision"]) == (FQRN, "mounted", 2)
    finally:
        done = subprocess.run(
            [*PROGRAM, "umount", str(place)],
            env=client.environment,
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert not os.path.ismount(place)
