"""A mount of a repository that goes on being published: it follows, and nothing that was there before is mixed into it.

Both engines are mounted at the same time where many revisions are needed, because each takes a second to be seen.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.mount.engines import ENGINES
from tests.mount.mounting import Mounted, every_engine
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
FQRN = "live.test.org"
TTL_S = 1
LIMIT_S = 60.0
CHUNK = 256 << 10
SAME_BYTES = 1_500_000  # of the file that has one size and another content in every revision
REVISIONS = 20


class Live:
    """A repository with its source, and its web root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = directory / "tree"
        (directory / "own").mkdir()
        sizes = {"chunk_min_bytes": CHUNK // 2, "chunk_average_bytes": CHUNK, "chunk_max_bytes": 2 * CHUNK}
        self.own = OwnRepository(directory / "own", FQRN, ttl_s=TTL_S, **sizes)
        self.root = directory / "www"
        (self.root / "cvmfs").mkdir(parents=True)
        (self.root / "cvmfs" / FQRN).symlink_to(self.own.storage)
        self.revision, self.root_hash = 1, ""

    def write(self, **files: bytes | None) -> None:
        """Changes the source; `__` stands for a slash, None removes."""
        for name, content in files.items():
            path = self.tree / name.replace("__", "/")
            path.unlink(missing_ok=True)  # another inode, and so certainly another time
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def publish(self, **wishes: str) -> int:
        """The number of the new revision."""
        published = self.own.publish_directory(self.tree, **wishes)
        self.revision, self.root_hash = published.revision, str(published.root_hash)
        return self.revision

    def client(self, url: str, name: str = "client", **parameters: str) -> Client:
        key = self.own.place.public_key_file
        return Client(self.directory / name, FQRN, [url], key, KCACHE_TIMEOUT="1", TIMEOUT_DIRECT="20", **parameters)

    def wait(self, *tops: Path) -> None:
        """Until mounts show what was published last."""
        for top in tops:
            until(lambda top=top: shown_revision(top) == self.revision)  # type: ignore[misc]


@pytest.fixture
def live(tmp_path: Path) -> Live:
    live = Live(tmp_path)
    live.write(changing=b"first", going=b"gone soon", same=bytes(SAME_BYTES), nested__file=b"stays", old__file=b"old")
    live.write(**{"nested__.cvmfscatalog": b"", "old__.cvmfscatalog": b""})
    live.publish(tag="v1")
    return live


@pytest.fixture
def web(live: Live) -> Iterator[Nginx]:
    with Nginx(live.root) as server:
        yield server


def shown_revision(top: Path) -> int:
    return int(os.getxattr(top, "user.revision"))


def until(condition: Callable[[], bool]) -> None:
    """The kernel tells nobody about a new revision: there is nothing to wait for but the answer."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "it does not become true"
        time.sleep(0.02)


def error_of(path: Path) -> int | None:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno
    return None


@every_engine
def test_a_mount_follows(live: Live, web: Nginx, engine: str) -> None:
    mounted = Mounted(live.client(web.url), live.directory / "mnt", engine=engine)
    with mounted as top, ExitStack() as held:
        # What is used in every way that the kernel remembers.
        opened = held.enter_context(open(top / "same", "rb"))
        assert opened.read(100) == bytes(100)
        mapped = held.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        old = os.open(top / "old", os.O_RDONLY)
        held.callback(os.close, old)
        listing = held.enter_context(os.scandir(top))
        first = next(listing).name
        assert [error_of(top / name) for name in ("new", "later", "old/new")] == [errno.ENOENT] * 3
        assert (top / "changing").read_bytes() == b"first"
        assert sorted(os.listdir(top)) == ["changing", "going", "nested", "old", "same"]
        kept = os.lstat(top / "nested" / "file").st_ino

        live.write(changing=b"second", new=b"new", same=b"\1" * SAME_BYTES, going=None, old__file=None, old__new=b"new")
        (live.tree / "going").mkdir()
        (live.tree / "later").symlink_to("changing")
        live.publish()
        live.wait(top)
        # Names are asked for anew, at once or when the kernel's time for them is over.
        until(lambda: (top / "changing").read_bytes() == b"second")
        until(lambda: error_of(top / "new") is None)
        until(lambda: os.path.isdir(top / "going"))
        until(lambda: error_of(top / "old" / "file") == errno.ENOENT)
        until(lambda: error_of(top / "old" / "new") is None)
        assert os.readlink(top / "later") == "changing"
        assert (top / "same").read_bytes() == b"\1" * SAME_BYTES
        until(lambda: sorted(os.listdir(top)) == ["changing", "going", "later", "nested", "new", "old", "same"])
        assert os.lstat(top / "nested" / "file").st_ino == kept

        # What was opened before is as it was, also where it had not been read yet.
        assert opened.read() == bytes(SAME_BYTES - 100)
        assert mapped[:] == bytes(SAME_BYTES)
        assert sorted(os.listdir(old)) == [".cvmfscatalog", "file"]
        fd = os.open("file", os.O_RDONLY, dir_fd=old)
        held.callback(os.close, fd)
        assert os.read(fd, 100) == b"old"
        rest = {entry.name for entry in listing}
        assert {first, *rest} >= {"changing", "nested", "old", "same"}
        held.close()
        assert mounted.end() == 0
    assert mounted.errors == ""


class Reader(threading.Thread):
    """Reads the file that changes again and again, in pieces, and remembers what was wrong with it."""

    def __init__(self, path: Path, stopped: threading.Event) -> None:
        super().__init__()
        self._path = path
        self._stopped = stopped
        self.seen: list[int] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self._stopped.wait(0.05):
                self._read()
        except OSError as error:
            self.wrong.append(str(error))

    def _read(self) -> None:
        with open(self._path, "rb", buffering=0) as file:
            pieces = list(iter(lambda: file.read(100_000), b""))
            values = {byte for piece in pieces for byte in set(piece)}
            if len(values) != 1 or sum(map(len, pieces)) != SAME_BYTES:
                self.wrong.append(f"{sorted(values)} in {sum(map(len, pieces))} bytes")
            value = values.pop()
            if self.seen and value < self.seen[-1]:
                self.wrong.append(f"{value} after {self.seen[-1]}")
            self.seen.append(value)


def test_twenty_revisions(live: Live, web: Nginx) -> None:
    """Every reader sees one revision at a time and none twice in turn; what is superseded is closed."""
    tops: list[Path] = []
    counts: dict[str, list[int]] = {engine: [] for engine in ENGINES}
    stopped = threading.Event()
    with ExitStack() as mounts:
        daemons = {}
        for engine in ENGINES:
            mounted = Mounted(live.client(web.url, engine), live.directory / f"mnt-{engine}", engine=engine)
            tops.append(mounts.enter_context(mounted))
            daemons[engine] = mounted
        readers = [Reader(top / "same", stopped) for top in tops for _ in range(2)]
        mounts.callback(stopped.set)
        for reader in readers:
            reader.start()
        for number in range(1, REVISIONS + 1):
            name = f"directory{number}"
            live.write(same=bytes([number]) * SAME_BYTES, nested__file=b"%d" % number)
            live.write(**{f"{name}__file": b"%d" % number, f"{name}__.cvmfscatalog": b""})
            live.publish()
            live.wait(*tops)
            for engine, top in zip(ENGINES, tops, strict=True):
                until(lambda top=top, name=name: error_of(top / name / "file") is None)  # type: ignore[misc]
                # Nobody comes back to these: the kernel goes on knowing them, and the revision that they are of.
                assert (top / name / "file").read_bytes() == b"%d" % number
                until(lambda top=top, number=number: (top / "nested" / "file").read_bytes() == b"%d" % number)  # type: ignore[misc]
                counts[engine].append(len(os.listdir(f"/proc/{daemons[engine].process.pid}/fd")))
        stopped.set()
        for reader in readers:
            reader.join(LIMIT_S)
        assert [reader.wrong for reader in readers] == [[]] * len(readers)
        assert all(len(set(reader.seen)) > REVISIONS // 2 for reader in readers)
        for found in counts.values():
            # A descriptor is kept for each of the objects that were read last, of which a revision has up to four.
            assert max(found[-5:]) - max(found[4:9]) <= 4 * (len(found) - 9), counts
        for mounted in daemons.values():
            # The newest revision has that many, each of which may have been looked at since it is shown.
            assert int(os.getxattr(mounted.mountpoint, "user.nclg")) <= REVISIONS + 3
            assert mounted.end() == 0
            assert mounted.errors == ""


@every_engine
def test_pins_stay_and_ask_for_no_news(live: Live, web: Nginx, engine: str) -> None:
    """Beside a mount that follows, which tells when the others would have had the time to do the same."""
    first_hash = live.root_hash
    pins = {"hash": ("--root-hash", first_hash), "tag": ("--tag", "v1"), "date": ("--date", "2100-01-01T00:00:00Z")}
    at_start = {"hash": 0, "tag": 1, "date": 1}
    pinned_revision = live.revision
    with ExitStack() as mounts:
        following = mounts.enter_context(Mounted(live.client(web.url, "live"), live.directory / "mnt"))
        servers, tops = {}, {}
        for name, pin in pins.items():
            servers[name] = mounts.enter_context(Nginx(live.root))  # each its own, so that its log is
            client = live.client(servers[name].url, name)
            tops[name] = mounts.enter_context(Mounted(client, live.directory / f"mnt-{name}", *pin, engine=engine))
        before = {name: (os.lstat(top / "same").st_ino, error_of(top / "new")) for name, top in tops.items()}
        for number in range(1, 4):
            live.write(same=bytes([number]) * SAME_BYTES, changing=b"%d" % number, new=b"new")
            live.publish()
            live.wait(following)
        until(lambda: (following / "changing").read_bytes() == b"3")
        for name, top in tops.items():
            assert shown_revision(top) == pinned_revision
            assert (top / "changing").read_bytes() == b"first"
            assert (top / "same").read_bytes() == bytes(SAME_BYTES)  # not a page of it was read before
            assert (os.lstat(top / "same").st_ino, error_of(top / "new")) == before[name]
            assert os.getxattr(top, "user.root_hash").decode() == first_hash
        assert {name: manifest_requests(server) for name, server in servers.items()} == at_start
        assert manifest_requests(web) > 3


def manifest_requests(server: Nginx) -> int:
    return sum(line.split(" ")[2].endswith("/.cvmfspublished") for line in server.log)


@pytest.mark.parametrize("kind", ["older", "forged"])
def test_what_may_not_be_shown_is_not_shown(live: Live, web: Nginx, kind: str) -> None:
    """The mount goes on with what it has, and says why."""
    published = live.own.storage / ".cvmfspublished"
    older = published.read_bytes()
    live.write(changing=b"second")
    live.publish()
    mounted = Mounted(live.client(web.url), live.directory / "mnt")
    with mounted as top:
        assert (top / "changing").read_bytes() == b"second"
        assert os.getxattr(top, "user.cvmfspy_offline") == b""
        forged = published.read_bytes().replace(b"\nS3\n", b"\nS9\n")
        published.write_bytes(older if kind == "older" else forged)
        until(lambda: b"no news" in os.getxattr(top, "user.logbuffer"))
        assert os.getxattr(top, "user.cvmfspy_offline") != b""
        assert shown_revision(top) == live.revision == 3
        assert (top / "changing").read_bytes() == b"second"
        assert mounted.end() == 0
    (warning,) = mounted.errors.splitlines()
    assert ("is older than" if kind == "older" else "does not match its own hash") in warning
