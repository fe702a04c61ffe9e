"""Real programs on a mount, and from it: copies, archives, version control, an interpreter, a compiler, odd readers.

One published tree for all; one mount for each engine, which fills its cache as the tests go. What was published is
still on the local disk, and every answer is compared with what the same program says there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.mount.engines import ENGINES
from tests.mount.mounting import Mounted, every_engine
from tests.mount.programs_tree import (
    LARGE_BYTES,
    MANY,
    git_environment,
    include_directories,
    make_tree,
)
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository, seen_on_disk
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FQRN = "programs.test.org"
LIMIT_S = 60
pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
    pytest.mark.needs("rsync", "tar", "git", "find", "gcc", "diff"),
]


class World:
    """The tree as it is on the disk, and a server that has it as a repository."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        make_tree(self.source)
        (directory / "own").mkdir()
        sizes = {"chunk_min_bytes": 256 << 10, "chunk_average_bytes": 512 << 10, "chunk_max_bytes": 1 << 20}
        self.own = OwnRepository(directory / "own", FQRN, ttl_s=3600, **sizes)
        self.own.publish_directory(self.source)
        served = directory / "www" / "cvmfs"
        served.mkdir(parents=True)
        (served / FQRN).symlink_to(self.own.storage)

    def client(self, name: str, url: str) -> Client:
        key = self.own.place.public_key_file
        return Client(self.directory / name, FQRN, [url], key, CLAIM_OWNERSHIP="no", TIMEOUT_DIRECT="20")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def web(world: World) -> Iterator[Nginx]:
    with Nginx(world.directory / "www") as server:
        yield server


@pytest.fixture(scope="module", params=ENGINES)
def top(request: pytest.FixtureRequest, world: World, web: Nginx) -> Iterator[Path]:
    engine = request.param
    mounted = Mounted(world.client(engine, web.url), world.directory / f"mnt-{engine}", engine=engine)
    with mounted as place:
        yield place
        assert mounted.end() == 0
    assert mounted.errors == ""


def said(*words: str, code: int = 0, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a program writes when it does well, and nothing else."""
    done = subprocess.run(words, capture_output=True, cwd=cwd, env=env, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (code, b""), (words, done)
    return done.stdout.decode("utf-8", "surrogateescape")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# copies and archives


def test_rsync_copies_everything(top: Path, world: World, tmp_path: Path) -> None:
    source, copy = world.source / "tree", tmp_path / "copy"
    said("rsync", "-aHAX", f"{top}/tree/", f"{copy}/")
    assert seen_on_disk(copy) == seen_on_disk(source)
    assert said("rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", f"{top}/tree/", f"{source}/") == ""


def test_rsync_copies_from_the_root(top: Path, world: World, tmp_path: Path) -> None:
    """Where attributes that tell about the mount are listed, too."""
    said("rsync", "-aHAX", "--exclude=/*/*", f"{top}/", f"{tmp_path}/copy/")
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(world.source))


def test_rsync_finds_nothing_to_do_in_an_exact_copy(top: Path, world: World) -> None:
    excluded = ("--exclude=/tree/odd names", "--no-xattrs")  # attributes of the root tell about the mount
    listed = said("rsync", "-aHAn", *excluded, "--delete", "--itemize-changes", f"{top}/", f"{world.source}/")
    assert listed == ""


def test_tar_keeps_everything(top: Path, world: World, tmp_path: Path) -> None:
    archive, copy = tmp_path / "archive.tar", tmp_path / "copy"
    copy.mkdir()
    said("tar", "--xattrs", "--format=posix", "-C", f"{top}/tree", "-cf", str(archive), ".")
    said("tar", "--xattrs", "--warning=no-timestamp", "-C", str(copy), "-xpf", str(archive))
    assert seen_on_disk(copy) == seen_on_disk(world.source / "tree")
    said("tar", "--xattrs", "-C", f"{top}/tree", "--compare", "-f", str(archive))


def test_cp_and_diff(top: Path, world: World, tmp_path: Path) -> None:
    said("cp", "-a", f"{top}/tree", str(tmp_path))
    assert seen_on_disk(tmp_path / "tree") == seen_on_disk(world.source / "tree")
    for name in ("many", "python", "tools", "bin", "large"):
        assert said("diff", "-r", "--no-dereference", str(world.source / name), str(top / name)) == ""


def test_find(top: Path, world: World) -> None:
    everything = (".", "-printf", r"%y %m %n %U %G %s %T@ %l %p\0")
    # The size of a directory is a convention of each file system.
    files = (".", "!", "-type", "d", *everything[1:])
    for words in (
        files,
        (".", "-type", "d", "-printf", r"%m %U %G %T@ %p\0"),
        (".", "-links", "3", "-type", "f"),
        (".", "-samefile", "tree/links/two"),
        (".", "-newermt", "2040-01-01"),
        (".", "-perm", "-4000"),
        (".", "-xtype", "l"),
        ("-L", "tree/links", "-maxdepth", "1", "-type", "f"),
    ):
        here = sorted(said("find", *words, cwd=world.source).split("\0" if "printf" in str(words) else "\n"))
        assert sorted(said("find", *words, cwd=top).split("\0" if "printf" in str(words) else "\n")) == here, words
        assert len(here) > 1, words


# version control, an interpreter, a compiler


def test_git(top: Path, tmp_path: Path) -> None:
    env = git_environment()
    for words in (("status", "--porcelain"), ("diff", "--stat"), ("ls-files", "--others", "--modified", "--deleted")):
        assert said("git", "-C", f"{top}/work", *words, env=env) == ""
    assert said("git", "-C", f"{top}/work", "log", "--format=%s", env=env) == "first\n"
    said("git", "-C", f"{top}/work", "fsck", "--strict", "--no-progress", env=env)
    said("git", "clone", "-q", "--no-hardlinks", f"{top}/work", str(tmp_path / "clone"), env=env)
    assert said("diff", "-r", "-x", ".git", f"{top}/work", str(tmp_path / "clone")) == ""


def test_python_from_the_mount(top: Path) -> None:
    code = (
        "import sys, os, json, email.message, asyncio, ctypes, sqlite3, unittest.mock, xml.etree.ElementTree, hashlib\n"
        "print(json.dumps([os.__file__, json.__file__, sqlite3.__file__, sys.prefix]))\n"
        "assert hashlib.sha256(b'').hexdigest().startswith('e3b0c442')\n"
        "assert sqlite3.connect(':memory:').execute('select 6 * 7').fetchone() == (42,)\n"
    )
    env = {"LD_LIBRARY_PATH": f"{top}/python/lib", "PATH": "/usr/bin:/bin"}
    words = (f"{top}/python/bin/python3", "-B", "-I", "-W", "error", "-c", code)
    for _ in range(2):  # cold and warm
        assert said(*words, env=env).count(f'"{top}/python') == 4


def test_gcc_from_the_mount(top: Path, tmp_path: Path) -> None:
    tools = top / "tools"
    includes = [word for place in include_directories(tools) for word in ("-isystem", place)]
    assert includes
    compiler = (f"{tools}/gcc", "-B", f"{tools}/", "-L", str(tools), "-nostdinc", *includes, "-O1")
    rule = said(*compiler, "-M", f"{tools}/hello.c").replace("\\\n", " ").split()
    assert len(rule) > 5
    assert all(word.startswith(str(top)) for word in rule[1:])
    said(*compiler, "-o", str(tmp_path / "hello"), f"{tools}/hello.c")
    assert said(str(tmp_path / "hello"), code=7) == "5\n"


def test_programs_are_executed(top: Path, tmp_path: Path) -> None:
    assert said(f"{top}/bin/hello", code=7) == "5\n"
    assert said(f"{top}/bin/script", "runs", code=7) == "script runs\n5\n"
    assert said("./script", "here", code=7, cwd=top / "bin") == "script here\n5\n"
    with pytest.raises(PermissionError):
        subprocess.run([f"{top}/tree/plain/text"], check=False)
    # Many at once, as a batch node begins: all map the same pages.
    started = [subprocess.Popen([f"{top}/bin/hello"], stdout=subprocess.PIPE) for _ in range(32)]
    assert [process.communicate(timeout=LIMIT_S)[0] for process in started] == [b"5\n"] * 32


# ways to read


def test_mmap(top: Path, world: World) -> None:
    expected = (world.source / "large").read_bytes()
    with open(top / "large", "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
            shared.madvise(mmap.MADV_RANDOM)
            assert shared[LARGE_BYTES // 2 : LARGE_BYTES // 2 + 10] == expected[LARGE_BYTES // 2 :][:10]
            assert digest(shared) == digest(expected)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
            private[:5] = b"mine!"
            assert private[:10] == b"mine!" + expected[5:10]
        with pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_WRITE)
    assert (top / "large").read_bytes()[:5] == expected[:5]


def test_sendfile_and_splice(top: Path, world: World, tmp_path: Path) -> None:
    expected = digest((world.source / "large").read_bytes())
    with open(top / "large", "rb") as file:
        ours, theirs = socket.socketpair()
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: theirs.recv(1 << 20), b"")))
        reader.start()
        with ours:
            sent = 0
            while count := os.sendfile(ours.fileno(), file.fileno(), sent, LARGE_BYTES):
                sent += count
        reader.join(LIMIT_S)
        theirs.close()
        assert (sent, digest(b"".join(received))) == (LARGE_BYTES, expected)
        with open(tmp_path / "copy", "wb") as copy:
            sent = 0
            while count := os.sendfile(copy.fileno(), file.fileno(), sent, LARGE_BYTES):
                sent += count
        assert digest((tmp_path / "copy").read_bytes()) == expected
        read_end, write_end = os.pipe()
        assert os.splice(file.fileno(), write_end, 4096, offset_src=100) > 0
        os.close(write_end)
        with open(read_end, "rb") as piped:
            assert piped.read(64) == (world.source / "large").read_bytes()[100:164]


def test_direct_reads(top: Path, world: World) -> None:
    expected = (world.source / "large").read_bytes()
    fd = os.open(top / "large", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 20) as buffer:
            for offset in (0, 4096, 5 << 20, LARGE_BYTES - (1 << 20), LARGE_BYTES - 4096):
                count = os.preadv(fd, [buffer], offset)
                assert buffer[:count] == expected[offset : offset + (1 << 20)], offset
            assert os.preadv(fd, [buffer], LARGE_BYTES) == 0
    finally:
        os.close(fd)


def test_offsets_beyond_the_end_and_small_reads(top: Path, world: World) -> None:
    expected = (world.source / "tree" / "plain" / "binary").read_bytes()
    fd = os.open(top / "tree" / "plain" / "binary", os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(fd, 0, 0) == os.pread(fd, 10, len(expected)) == os.pread(fd, 10, 1 << 60) == b""
        assert os.pread(fd, 10, len(expected) - 3) == expected[-3:]
        for offset in range(0, len(expected), 37_003):
            assert os.pread(fd, 17, offset) == expected[offset : offset + 17]
        assert os.lseek(fd, 0, os.SEEK_END) == len(expected)
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        assert os.lseek(fd, 5, os.SEEK_HOLE) == len(expected)
    finally:
        os.close(fd)


def test_locks(top: Path) -> None:
    """Programs lock what they only read."""
    with open(top / "large", "rb") as one, open(top / "large", "rb") as two:
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(one, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


@every_engine
def test_many_readers_of_one_cold_file_and_listings_beside_them(
    world: World, web: Nginx, tmp_path: Path, engine: str
) -> None:
    """Every chunk is fetched once, whoever waits for it, and a listing goes on in the meantime."""
    content = (world.source / "large").read_bytes()
    names = sorted(os.listdir(world.source / "many"))
    before = len(web.log)
    lengths = [LARGE_BYTES if number % 2 else number * 97_003 + 1 for number in range(64)]  # of what each one reads
    with Mounted(world.client(str(tmp_path), web.url), tmp_path / "mnt", engine=engine) as top:
        readers = [
            subprocess.Popen(f"tail -c {length} '{top}/large' | sha256sum", shell=True, stdout=subprocess.PIPE)
            for length in lengths
        ]
        for _ in range(3):
            assert sorted(said("ls", str(top / "many")).split()) == names
            assert said("ls", "-lU", str(top / "many")).count("entry") == MANY
        answers = [process.communicate(timeout=LIMIT_S)[0].split()[0].decode() for process in readers]
        assert answers == [digest(content[-length:]) for length in lengths]
    paths = [line.split(" ")[2] for line in web.log[before:]]
    assert len(paths) == len(set(paths)) > LARGE_BYTES >> 20


# changes


CHANGES: dict[str, Callable[[Path], object]] = {
    "open to write": lambda top: os.open(top / "large", os.O_WRONLY),
    "open to change": lambda top: os.open(top / "large", os.O_RDWR),
    "open and empty": lambda top: os.open(top / "large", os.O_RDONLY | os.O_TRUNC),
    "create": lambda top: os.open(top / "tree" / "new", os.O_WRONLY | os.O_CREAT),
    "unnamed file": lambda top: os.open(top / "tree", os.O_RDWR | os.O_TMPFILE),
    "mkdir": lambda top: os.mkdir(top / "tree" / "new"),
    "mkfifo": lambda top: os.mkfifo(top / "tree" / "new"),
    "unlink": lambda top: os.unlink(top / "large"),
    "rmdir": lambda top: os.rmdir(top / "many"),
    "rename": lambda top: os.rename(top / "large", top / "small"),
    "link": lambda top: os.link(top / "large", top / "new"),
    "symlink": lambda top: os.symlink("large", top / "new"),
    "chmod": lambda top: os.chmod(top / "large", 0o600),
    "chown": lambda top: os.chown(top / "large", 1, 1),
    "utime": lambda top: os.utime(top / "large"),
    "truncate": lambda top: os.truncate(top / "large", 0),
    "setxattr": lambda top: os.setxattr(top / "large", "user.new", b"x"),
    "removexattr": lambda top: os.removexattr(top / "tree" / "plain" / "text", "user.note"),
}


def test_changes_are_refused(top: Path, world: World) -> None:
    refusals = {name: _errno_of(change, top) for name, change in CHANGES.items()}
    assert refusals == dict.fromkeys(CHANGES, errno.EROFS)
    assert not os.access(top / "large", os.W_OK)
    assert os.access(top / "large", os.R_OK)
    assert sorted(os.listdir(top)) == sorted(os.listdir(world.source))


def _errno_of(change: Callable[[Path], object], top: Path) -> int | None:
    try:
        change(top)
    except OSError as error:
        return error.errno
    return None
