"""Programs of every day on a mount: they find what they would find on a local disk."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import Mounted, why_no_mounts
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository
from tests.simulator.web import PROGRAM as NGINX
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(bool(why_no_mounts()), reason=why_no_mounts()),
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]
FQRN = "programs.test.org"
LIBRARY = Path(os.__file__).parent
PACKAGES = ("json", "email", "collections", "re", "string.py", "textwrap.py", "statistics.py", "this.py")
CHUNK = 1 << 20
LARGE = b"".join(number.to_bytes(8, "big") for number in range(3 * CHUNK))  # 24 MiB in about 24 chunks


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local tree with one of everything that programs look at."""
    top = tmp_path_factory.mktemp("source") / "tree"
    (top / "python").mkdir(parents=True)
    for name in PACKAGES:
        place = LIBRARY / name
        if place.is_dir():
            shutil.copytree(place, top / "python" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(place, top / "python" / name)
    (top / "large").write_bytes(LARGE)
    (top / "many").mkdir()
    for number in range(3000):
        (top / "many" / f"file-{number}").write_bytes(b"%d" % number)
    (top / "links").mkdir()
    os.link(top / "many" / "file-1", top / "many" / "same")
    (top / "links" / "soft").symlink_to("../large")
    (top / "run.sh").write_text("#!/bin/sh\necho run as $0\n")
    (top / "run.sh").chmod(0o755)
    os.setxattr(top / "run.sh", "user.kept", b"\0value")
    (top / "include").mkdir()
    (top / "include" / "answer.h").write_text("#define ANSWER 42\n")
    (top / "odd \xff\n name").write_bytes(b"odd")
    os.utime(top / "large", ns=(1, 1_600_000_000_123_456_789))
    return top


@pytest.fixture(scope="module")
def served(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL and the key of its repository."""
    place = tmp_path_factory.mktemp("served")
    sizes = {"chunk_min_bytes": CHUNK // 2, "chunk_average_bytes": CHUNK, "chunk_max_bytes": 2 * CHUNK}
    own = OwnRepository(place, FQRN, ttl_s=3600, **sizes)
    own.publish_directory(source)
    (place / "www" / "cvmfs").mkdir(parents=True)
    (place / "www" / "cvmfs" / FQRN).symlink_to(own.storage)
    (key,) = place.rglob("*.pub")
    with Nginx(place / "www") as web:
        yield web.url, key


@pytest.fixture(params=["channel", "pyfuse3"])
def top(request: pytest.FixtureRequest, served: tuple[str, Path], tmp_path: Path) -> Iterator[Path]:
    url, key = served
    # Else the root would list attributes that no source has.
    client = Client(tmp_path / "client", FQRN, [url], key, CLAIM_OWNERSHIP="no", MAGIC_XATTRS_VISIBILITY="never")
    with Mounted(client, tmp_path / "mnt", engine=request.param) as mounted:
        yield mounted


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done
    return done.stdout.decode("latin-1")


@needs("rsync")
def test_rsync_finds_no_difference(top: Path, source: Path) -> None:
    assert run("rsync", "-aHAXni", "--checksum", "--delete", f"{source}/", f"{top}/") == ""


def test_tar_and_find(top: Path, source: Path, tmp_path: Path) -> None:
    assert _without_directory_sizes(top) == _without_directory_sizes(source)
    run("tar", "-cf", tmp_path / "mounted.tar", "-C", top, ".")
    run("tar", "-df", tmp_path / "mounted.tar", "-C", source)


def _without_directory_sizes(place: Path) -> list[str]:
    of_directories = ["(", "-type", "d", "-printf", "%p %m %n\\0", ")"]
    return sorted(run("find", ".", *of_directories, "-o", "-printf", "%p %s %m %n %l\\0", cwd=place).split("\0"))


def test_python_imports_from_it(top: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(top / 'python')!r}); import json, email; print(json.__file__)"
    assert run(sys.executable, "-I", "-S", "-c", script).strip() == str(top / "python" / "json" / "__init__.py")


@needs("git")
def test_git_compares_with_it(top: Path, source: Path) -> None:
    done = subprocess.run(
        ["git", "diff", "--no-index", "--stat", str(source / "python"), str(top / "python")],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")


@needs("gcc")
def test_gcc_compiles_with_it(top: Path, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "answer.h"\nint main(void) { return ANSWER; }\n')
    run("gcc", f"-I{top / 'include'}", "-o", tmp_path / "main", tmp_path / "main.c")
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 42


def test_running_mapping_and_sending(top: Path, tmp_path: Path) -> None:
    assert run(top / "run.sh") == f"run as {top / 'run.sh'}\n"
    with open(top / "large", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[-16:] == LARGE[-16:]
        assert mapped[CHUNK - 7 : CHUNK + 9] == LARGE[CHUNK - 7 : CHUNK + 9]
        assert mapped.find(LARGE[5 * CHUNK : 5 * CHUNK + 100]) == 5 * CHUNK
    with open(top / "large", "rb") as file, open(tmp_path / "sent", "wb") as sent:
        sent_bytes = 0
        while count := os.sendfile(sent.fileno(), file.fileno(), sent_bytes, 1 << 24):
            sent_bytes += count
    assert (tmp_path / "sent").read_bytes() == LARGE


def test_past_the_page_cache(top: Path) -> None:
    fd = os.open(top / "large", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, CHUNK) as buffer:
            assert os.preadv(fd, [buffer], 3 * CHUNK) == CHUNK
            assert buffer[:] == LARGE[3 * CHUNK : 4 * CHUNK]
    finally:
        os.close(fd)


def test_many_read_a_cold_file_at_once(top: Path) -> None:
    wrong: list[int] = []

    def read(number: int) -> None:
        offset = number * 97_003 % (len(LARGE) - 300_000)
        with open(top / "large", "rb", buffering=0) as file:
            file.seek(offset)
            found = b""
            while len(found) < 300_000 and (part := file.read(300_000 - len(found))):
                found += part
        if found != LARGE[offset : offset + 300_000]:
            wrong.append(number)

    readers = [threading.Thread(target=read, args=[number]) for number in range(64)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(120)
    assert not any(reader.is_alive() for reader in readers)
    assert wrong == []


def test_listing_while_others_read(top: Path) -> None:
    with subprocess.Popen(["md5sum", str(top / "large")], stdout=subprocess.PIPE) as reading:
        for _ in range(5):
            assert len(os.listdir(top / "many")) == 3001
        assert reading.wait(120) == 0


def test_nothing_can_be_written(top: Path) -> None:
    for change in (
        lambda: (top / "new").touch(),
        lambda: (top / "new").mkdir(),
        lambda: (top / "large").unlink(),
        lambda: (top / "large").chmod(0o777),
        lambda: (top / "large").rename(top / "other"),
        lambda: os.link(top / "large", top / "other"),
        lambda: os.truncate(top / "large", 0),
        lambda: os.setxattr(top / "large", "user.new", b"x"),
        lambda: open(top / "large", "r+b").close(),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()  # type: ignore[no-untyped-call]
        assert caught.value.errno == errno.EROFS
