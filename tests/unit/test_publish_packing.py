"""Files become objects: small and large ones, on several processes and without any, and what can go wrong."""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash, Kind, hash_bytes, object_path
from catalog.entry import Chunk
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.channel import Channel
from cvmfs_py.publish.chunking import ChunkSizes
from cvmfs_py.publish.local_files import file_state, open_directory, read_xattrs_at
from cvmfs_py.publish.packed import FileRecipe, NotPacked, Packed, PackedFile, SourceFile, StoredContent
from cvmfs_py.publish.packing import Packer
from cvmfs_py.publish.recent_contents import RecentContents, content_key, new_table
from cvmfs_py.publish.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZES = ChunkSizes(32 << 10, 64 << 10, 128 << 10)
RECIPE = FileRecipe(chunking=SIZES)
LARGE = random.Random(7).randbytes(1 << 20)
SHA1 = Algorithm.SHA1


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "server")
    made.create()
    return made


@pytest.fixture(params=[0, 2], ids=["alone", "two processes"])
def processes(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param
    assert children() == []


def children() -> list[int]:
    """The processes that this one has started and not waited for."""
    threads = Path("/proc/self/task").iterdir()
    return [int(word) for thread in threads for word in (thread / "children").read_text().split()]


def source(path: Path, **changes: Any) -> SourceFile:
    state = file_state(path.lstat())._replace(**changes)
    return SourceFile(os.fsencode(path.parent), os.fsencode(path.name), state)


def make_files(directory: Path, contents: Mapping[str, bytes]) -> list[Path]:
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return [directory / name for name in contents]


def pack_files(packer: Packer[Path], paths: list[Path], recipe: FileRecipe = RECIPE) -> dict[Path, Packed[Path]]:
    found = {}
    for path in paths:
        packer.pack(path, source(path), recipe)
        found |= {answer.token: answer for answer in packer.results()}
    found |= {answer.token: answer for answer in packer.finish()}
    assert all(isinstance(answer, Packed) for answer in found.values())
    return found  # type: ignore[return-value]


def one(packer: Packer[str]) -> Packed[str] | NotPacked[str]:
    (answer,) = packer.finish()
    return answer


def packed_file(answer: Packed[Any] | NotPacked[Any]) -> PackedFile:
    assert isinstance(answer, Packed)
    assert answer.file is not None
    return answer.file


def stored(storage: Storage, content_hash: ContentHash, kind: Kind = Kind.BULK) -> bytes:
    """The bytes of an object, which must be what its name says."""
    data = (storage.directory / object_path(content_hash, kind)).read_bytes()
    assert hash_bytes(content_hash.algorithm, data) == content_hash
    return data


def content_of(storage: Storage, file: PackedFile, verbatim: bool = False) -> bytes:
    """What a client would read, put together from whole zlib streams."""
    if file.content_hash is not None:
        assert file.chunks == ()
        objects = [(0, file.size_bytes, stored(storage, file.content_hash))]
    else:
        objects = [(one.offset, one.size, stored(storage, one.content_hash, Kind.CHUNK)) for one in file.chunks]
    content = b""
    for offset, size, data in objects:
        piece = data if verbatim else zlib.decompress(data)
        assert offset == len(content)
        assert len(piece) == size
        content += piece
    assert len(content) == file.size_bytes
    return content


def leftovers(storage: Storage) -> list[str]:
    return os.listdir(storage.directory / "data" / "txn")


CONTENTS = {
    "empty": b"",
    "one byte": b"x",
    "text": b"a line\n" * 5000,
    "a/b/deep": b"deep",
    "a/same": b"a line\n" * 5000,
    "large": LARGE,
    "zeros": bytes(500_000),
    "as large as may be in one piece": LARGE[: SIZES.max_bytes],
    "one byte more": LARGE[: SIZES.max_bytes + 1],
    **{f"many/{number}": b"%d" % number * number for number in range(400)},
}


def test_every_content_is_stored_as_it_is(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    with Packer[Path](storage, processes=processes) as packer:
        found = pack_files(packer, paths)
    assert len(found) == len(CONTENTS)
    for (name, content), path in zip(CONTENTS.items(), paths, strict=True):
        answer = found[path]
        file = packed_file(answer)
        assert content_of(storage, file) == content
        assert bool(file.chunks) is (len(content) > SIZES.max_bytes)
        assert len(file.chunks) != 1
        assert answer.state == file_state(path.stat()), name
    written = sum(one.stat().st_size for one in (storage.directory / "data").rglob("*") if one.is_file())
    counted = sum(packed_file(answer).stored_bytes for answer in found.values())
    # Two processes that store the same object at the same moment may both count it.
    assert counted >= written if processes else counted == written
    assert leftovers(storage) == []


def test_both_ways_give_the_same_objects(tmp_path: Path) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    trees = []
    for processes in (0, 2):
        storage = Storage(tmp_path / str(processes))
        storage.create()
        with Packer[Path](storage, processes=processes) as packer:
            pack_files(packer, paths)
        trees.append({address: size for address, _, size in storage.objects()})
    assert trees[0] == trees[1]


def test_nothing_is_stored_twice(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    with Packer[Path](storage, processes=processes) as packer:
        first = pack_files(packer, paths)
        objects = {address: size for address, _, size in storage.objects()}
        again = pack_files(packer, paths)
    with Packer[Path](storage, processes=processes) as packer:  # without any memory
        anew = pack_files(packer, paths)
    new = sum(packed_file(answer).new_objects for answer in first.values())
    assert new >= len(objects) if processes else new == len(objects)
    for later in (again, anew):
        assert all(packed_file(answer).new_objects == 0 for answer in later.values())
        assert all(packed_file(answer).stored_bytes == 0 for answer in later.values())
        assert [packed_file(later[path]).content_hash for path in paths] == [
            packed_file(first[path]).content_hash for path in paths
        ]
        assert [packed_file(later[path]).chunks for path in paths] == [
            packed_file(first[path]).chunks for path in paths
        ]
    assert {address: size for address, _, size in storage.objects()} == objects


@pytest.mark.parametrize("algorithm", [Algorithm.RMD160, Algorithm.SHAKE128])
def test_other_algorithms(tmp_path: Path, storage: Storage, algorithm: Algorithm) -> None:
    (path,) = make_files(tmp_path, {"file": LARGE})
    with Packer[Path](storage, processes=0) as packer:
        found = pack_files(packer, [path], FileRecipe(algorithm=algorithm, chunking=SIZES))
    file = packed_file(found[path])
    assert {chunk.content_hash.algorithm for chunk in file.chunks} == {algorithm}
    assert content_of(storage, file) == LARGE


def test_uncompressed_files_are_stored_as_they_are(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", {"small": b"content", "large": LARGE})
    with Packer[Path](storage, processes=processes) as packer:
        found = pack_files(packer, paths, FileRecipe(compression="none", chunking=SIZES))
    assert [content_of(storage, packed_file(found[path]), verbatim=True) for path in paths] == [b"content", LARGE]


def test_external_files_are_addressed_and_not_stored(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", {"small": b"content", "large": LARGE})
    with Packer[Path](storage, processes=processes) as packer:
        plain = pack_files(packer, paths, FileRecipe(compression="none", chunking=SIZES, is_external=True))
        packed = pack_files(packer, paths, FileRecipe(chunking=SIZES, is_external=True))
    small, large = (packed_file(plain[path]) for path in paths)
    assert small.content_hash == hash_bytes(SHA1, b"content")
    assert len(large.chunks) > 4
    for chunk in large.chunks:
        assert chunk.content_hash == hash_bytes(SHA1, LARGE[chunk.offset : chunk.offset + chunk.size])
    assert packed_file(packed[paths[1]]).chunks == ()  # a compressed stream has no ranges
    assert list(storage.objects()) == []


def test_large_files_can_be_one_object(tmp_path: Path, storage: Storage) -> None:
    """Above what is held in memory it is compressed piece by piece."""
    content = (LARGE + bytes(1 << 20)) * 13
    paths = make_files(tmp_path / "source", {"large": content})
    recipe = FileRecipe(chunking=None)
    with Packer[Path](storage, processes=0) as packer:
        found = pack_files(packer, paths, recipe)
        file = packed_file(found[paths[0]])
        assert content_of(storage, file) == content
        with paths[0].open("rb") as stream:
            packer.pack_stream(paths[0], stream.read, len(content), recipe)
        (answer,) = packer.finish()
    assert packed_file(answer).content_hash == file.content_hash
    assert packed_file(answer).new_objects == 0


def test_extended_attributes_come_with_the_content(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", {"small": b"content", "large": LARGE})
    for path in paths:
        os.setxattr(path, "user.colour", b"blue\0green")
    with Packer[Path](storage, processes=processes) as packer:
        found = pack_files(packer, paths)
    assert [dict(found[path].xattrs) for path in paths] == [{b"user.colour": b"blue\0green"}] * 2


def test_streams_are_packed_as_files_are(tmp_path: Path, storage: Storage, processes: int) -> None:
    contents = {name: content for name, content in CONTENTS.items() if "many" not in name}
    paths = make_files(tmp_path / "source", contents)
    found: dict[Path, Packed[Path] | NotPacked[Path]] = {}
    with Packer[Path](storage, processes=processes) as packer:
        for path in paths:
            with path.open("rb") as stream:
                packer.pack_stream(path, stream.read, path.stat().st_size, RECIPE)
            found |= {answer.token: answer for answer in packer.results()}
        found |= {answer.token: answer for answer in packer.finish()}
        as_files = pack_files(packer, paths)
    for path in paths:
        streamed, read = packed_file(found[path]), packed_file(as_files[path])
        assert (streamed.content_hash, streamed.chunks) == (read.content_hash, read.chunks)
        assert read.new_objects == 0


# --- files that are not what they were


@pytest.mark.parametrize("content", [b"it is this", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("changes", [{"size_bytes": 3}, {"size_bytes": 300_000}, {"mtime_ns": 0}])
def test_a_file_that_has_changed_is_read_as_it_is_now(
    tmp_path: Path, storage: Storage, processes: int, content: bytes, changes: dict[str, int]
) -> None:
    (path,) = make_files(tmp_path, {"file": content})
    with Packer[str](storage, processes=processes) as packer:
        packer.pack("it", source(path, **changes), RECIPE)
        answer = one(packer)
    assert isinstance(answer, Packed)
    assert answer.state == file_state(path.stat())
    assert content_of(storage, packed_file(answer)) == content


def test_a_file_that_never_keeps_still_is_an_answer(storage: Storage, processes: int) -> None:
    with Packer[str](storage, processes=processes) as packer:
        packer.pack("it", source(Path("/proc/self/stat")), RECIPE)  # whose size is said to be 0
        answer = one(packer)
    assert answer == NotPacked("it", "it changes while it is read")


def test_failures_are_answers(tmp_path: Path, storage: Storage, processes: int) -> None:
    names = ["good", "gone", "directory", "link", "fifo", "dir/gone too", "large gone"]
    paths = {path.name: path for path in make_files(tmp_path, dict.fromkeys(names, b"content"))}
    sources = {name: source(path) for name, path in paths.items()}
    sources["large gone"] = source(paths["large gone"], size_bytes=1 << 20)
    for name in ("gone", "directory", "link", "fifo", "gone too", "large gone"):
        paths[name].unlink()
    paths["gone too"].parent.rmdir()
    paths["directory"].mkdir()
    paths["link"].symlink_to("good")
    os.mkfifo(paths["fifo"])
    with Packer[str](storage, processes=processes) as packer:
        for name, one_source in sources.items():
            packer.pack(name, one_source, RECIPE)
        answers = {answer.token: answer for answer in packer.finish()}
    reasons = {name: answer.reason for name, answer in answers.items() if isinstance(answer, NotPacked)}
    assert content_of(storage, packed_file(answers["good"])) == b"content"
    assert reasons == {
        "gone": "No such file or directory",
        "directory": "Is a directory",
        "link": "it is no regular file any more",
        "fifo": "it is no regular file any more",
        "gone too": "No such file or directory",
        "large gone": "No such file or directory",
    }


# --- comparing


def stored_otherwise(storage: Storage, content: bytes, kind: Kind = Kind.BULK) -> ContentHash:
    """An object of a content that this program would never make."""
    data = zlib.compress(content, 1)
    content_hash = hash_bytes(SHA1, data)
    storage.put_bytes(data, content_hash, kind)
    return content_hash


def test_content_is_compared_whatever_compressed_it(tmp_path: Path, storage: Storage, processes: int) -> None:
    content = b"to be compared\n" * 9000
    (path,) = make_files(tmp_path, {"file": content})
    whole = StoredContent(False, stored_otherwise(storage, content), ())
    halves = content[:50_000], content[50_000:]
    pieces = tuple(
        Chunk(offset, len(half), stored_otherwise(storage, half, Kind.CHUNK))
        for offset, half in zip((0, 50_000), halves, strict=True)
    )
    chunked = StoredContent(False, None, pieces)
    before = sorted(storage.objects())
    with Packer[str](storage, processes=processes) as packer:
        for same_as in (whole, chunked):
            packer.pack("it", source(path), RECIPE, same_as)
            answer = one(packer)
            assert isinstance(answer, Packed)
            assert answer.file is None
    assert sorted(storage.objects()) == before


@pytest.mark.parametrize("size", [30_000, 500_000])
@pytest.mark.parametrize("other", ["shorter", "longer", "different", "missing", "damaged"])
def test_what_differs_is_packed(tmp_path: Path, storage: Storage, processes: int, size: int, other: str) -> None:
    content = random.Random(size).randbytes(size)
    (path,) = make_files(tmp_path, {"file": content})
    old = {"shorter": content[:-1], "longer": content + b"!", "different": content[:-1] + b"!"}.get(other, content)
    content_hash = stored_otherwise(storage, old)
    if other == "missing":
        storage.remove(content_hash, Kind.BULK)
    elif other == "damaged":
        file = storage.path(content_hash)
        file.write_bytes(file.read_bytes()[:-50])
    with Packer[str](storage, processes=processes) as packer:
        packer.pack("it", source(path), RECIPE, StoredContent(False, content_hash, ()))
        assert content_of(storage, packed_file(one(packer))) == content


# --- the machinery


def test_a_storage_that_does_not_work_ends_it(tmp_path: Path, storage: Storage, processes: int) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    for directory in (storage.directory / "data").iterdir():
        directory.rmdir()
    (storage.directory / "data").rmdir()
    (storage.directory / "data").write_bytes(b"in the way")
    with pytest.raises(PublishError, match="storage"), Packer[Path](storage, processes=processes) as packer:
        pack_files(packer, paths)


def test_a_killed_process_is_an_error_and_leaves_no_other(tmp_path: Path, storage: Storage) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    with pytest.raises(PublishError, match="killed by signal 9"), Packer[Path](storage, processes=2) as packer:  # noqa: PT012
        pack_files(packer, paths)
        os.kill(children()[0], signal.SIGKILL)
        pack_files(packer, paths)
    assert children() == []


def test_leaving_in_the_middle_leaves_no_process(tmp_path: Path, storage: Storage) -> None:
    paths = make_files(tmp_path / "source", CONTENTS)
    with pytest.raises(KeyboardInterrupt), Packer[Path](storage, processes=2) as packer:  # noqa: PT012
        for path in paths:
            packer.pack(path, source(path), RECIPE)
        assert len(children()) == 2
        raise KeyboardInterrupt
    assert children() == []


ABANDONING = """
import itertools, os, sys
from pathlib import Path
from cvmfs_py.publish.packed import FileRecipe
from cvmfs_py.publish.packing import Packer
from cvmfs_py.publish.storage import Storage
with Packer(Storage(sys.argv[1]), processes=2) as packer:
    for number in itertools.count():
        packer.pack_content(number, os.urandom(50_000), FileRecipe())
        list(packer.results())
        if number == 20:
            print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
"""


def test_processes_end_when_the_publisher_is_killed(storage: Storage) -> None:
    command = [sys.executable, "-c", ABANDONING, str(storage.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as publisher:
        assert publisher.stdout is not None
        watched = [os.pidfd_open(int(pid)) for pid in publisher.stdout.readline().split()]
        publisher.kill()
    assert len(watched) == 2
    for fd in watched:
        assert select.select([fd], [], [], 30)[0] == [fd]
        os.close(fd)


def test_processes_do_not_need_the_surroundings(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up scripts of scientific stacks point Python to other libraries; the program protects itself, and these."""
    trap = tmp_path / "trap"
    make_files(trap, {"zlib.py": b"raise SystemExit(3)", "socket.py": b"raise SystemExit(3)"})
    monkeypatch.setenv("PYTHONPATH", str(trap))
    monkeypatch.setenv("PYTHONSTARTUP", str(trap / "zlib.py"))
    monkeypatch.chdir(trap)
    paths = make_files(tmp_path / "source", CONTENTS)
    with Packer[Path](storage, processes=1) as packer:
        found = pack_files(packer, paths)
    assert len(found) == len(CONTENTS)


def test_messages_of_any_size_cross(tmp_path: Path) -> None:
    """Two ends that send large messages at the same time both get rid of them."""
    ours, theirs = (Channel(end) for end in socket.socketpair())
    payloads = [LARGE, b"", b"x" * 100_000, LARGE]

    def talk() -> None:
        for number, payload in enumerate(payloads):
            theirs.send(("there", number), payload)
        answers.extend(theirs.receive() for _ in payloads)

    answers: list[tuple[Any, bytearray]] = []
    other = threading.Thread(target=talk)
    other.start()
    for number, payload in enumerate(payloads):
        ours.send(("here", number), payload)
    got = [ours.receive() for _ in payloads]
    other.join()
    assert got == [(("there", number), payload) for number, payload in enumerate(payloads)]
    assert answers == [(("here", number), payload) for number, payload in enumerate(payloads)]
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()
    with pytest.raises(EOFError):
        ours.send("to nobody", LARGE)
    ours.close()


@given(contents=st.lists(st.binary(max_size=50), min_size=1, max_size=30))
def test_recent_contents_are_never_mistaken(contents: list[bytes]) -> None:
    table_fd = new_table()
    ours, theirs = RecentContents(table_fd), RecentContents(table_fd)
    os.close(table_fd)
    recipes = [FileRecipe(), FileRecipe(compression="none"), FileRecipe(algorithm=Algorithm.SHAKE128)]
    cases = {
        content_key(content, recipe, letter): hashlib.sha1(content + letter.encode()).digest()
        for content in contents
        for recipe in recipes
        for letter in ("", "P")
    }
    assert len(cases) == len(set(contents)) * 6
    assert all(theirs.digest(key) is None for key in cases)
    for key, digest in cases.items():
        ours.remember(key, digest)
        assert theirs.digest(key) == digest
    assert all(theirs.digest(key) in (digest, None) for key, digest in cases.items())
    ours.close()
    theirs.close()


def test_a_torn_slot_counts_as_empty() -> None:
    table_fd = new_table()
    table = RecentContents(table_fd)
    key = content_key(b"content", RECIPE, "")
    table.remember(key, bytes(range(20)))
    found = os.pread(table_fd, os.fstat(table_fd).st_size, 0)
    at = found.index(key)
    os.pwrite(table_fd, b"\xff", at + len(key) + 3)  # one byte of the digest
    assert table.digest(key) is None
    table.close()
    os.close(table_fd)


def test_paths_of_any_length_can_be_read(tmp_path: Path, storage: Storage, processes: int) -> None:
    """Deeper than the kernel takes at once."""
    name = b"d" * 200
    directory = os.fsencode(tmp_path)
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(30):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        directory += b"/" + name
    file = os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.setxattr(file, "user.depth", b"6000")
    state = file_state(os.fstat(file))
    os.close(file)
    os.close(fd)
    fd = open_directory(directory)
    assert read_xattrs_at(fd, b"file") == {b"user.depth": b"6000"}
    os.close(fd)
    with Packer[str](storage, processes=processes) as packer:
        packer.pack("it", SourceFile(directory, b"file", state), RECIPE)
        answer = one(packer)
    assert content_of(storage, packed_file(answer)) == b"deep"
