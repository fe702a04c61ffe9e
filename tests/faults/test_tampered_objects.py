"""Objects that are not what was signed: on a server, another one helps or the error names the object; in the local
cache, they are fetched again, and nobody sees anything but the right data.
"""

from __future__ import annotations

import os
import shutil
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import ContentHash, Kind, parse_hash
from cvmfs_py.errors import FetchError
from tests.compat.whole_tree import opened
from tests.faults.tampering_world import FQRN, World, check_failure
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

Object = tuple[ContentHash, Kind]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def field_of_manifest(world: World, key: str) -> ContentHash:
    content_hash = parse_hash(dict(world.repository.head.fields)[key])
    assert content_hash is not None
    return content_hash


# What each object is called in errors, and a command that needs it.
OBJECTS: dict[str, tuple[Callable[[World], Object], str, tuple[str, ...]]] = {
    "certificate": (
        lambda world: (field_of_manifest(world, "X"), Kind.CERTIFICATE),
        f"certificate of {FQRN}",
        ("ls", FQRN),
    ),
    "root catalog": (
        lambda world: (world.repository.head.root_hash, Kind.CATALOG),
        f"root catalog of {FQRN}, revision 1",
        ("ls", FQRN),
    ),
    "nested catalog": (
        lambda world: (world.repository.head.catalog(b"/nested").content_hash, Kind.CATALOG),
        "catalog of /nested",
        ("ls", f"{FQRN}:/nested"),
    ),
    "tags": (
        lambda world: (field_of_manifest(world, "H"), Kind.HISTORY),
        f"tags of {FQRN}",
        ("ls", "--tag", "v1", FQRN),
    ),
    "description": (
        lambda world: (field_of_manifest(world, "M"), Kind.METAINFO),
        f"description of {FQRN}",
        ("info", FQRN),
    ),
    "file": (lambda world: world.repository.find_objects(b"/file")[0], "file /file", ("cat", f"{FQRN}:/file")),
    "plain file": (lambda world: world.repository.find_objects(b"/plain")[0], "file /plain", ("cat", f"{FQRN}:/plain")),
    "inner file": (
        lambda world: world.repository.find_objects(b"/nested/inner")[0],
        "file /nested/inner",
        ("cat", f"{FQRN}:/nested/inner"),
    ),
    "chunk": (
        lambda world: world.repository.find_objects(b"/chunked")[1],
        "/chunked from byte 20000",
        ("cat", f"{FQRN}:/chunked"),
    ),
}


def truncated(stored: bytes) -> bytes:
    return stored[:-1]


def cut_in_half(stored: bytes) -> bytes:
    return stored[: len(stored) // 2]


def empty(stored: bytes) -> bytes:
    return b""


def one_bit_changed(stored: bytes) -> bytes:
    middle = len(stored) // 2
    return stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]


def garbage(stored: bytes) -> bytes:
    return bytes(byte ^ 0xA5 for byte in stored)


def with_a_tail(stored: bytes) -> bytes:
    """Inflates to the same content; but it is not what was hashed."""
    return stored + b"tail"


def compressed_anew(stored: bytes) -> bytes:
    """The right content in another coding."""
    try:
        return zlib.compress(zlib.decompress(stored), 0)
    except zlib.error:
        return zlib.compress(stored)


def bomb(stored: bytes) -> bytes:
    """100 MB of nothing."""
    return _BOMB


def login_page(stored: bytes) -> bytes:
    return b"<!DOCTYPE html><html><body>Welcome to the airport</body></html>\n"


_BOMB = zlib.compress(bytes(100_000_000), 9)
DEFECTS = [
    truncated,
    cut_in_half,
    empty,
    one_bit_changed,
    garbage,
    with_a_tail,
    compressed_anew,
    bomb,
    login_page,
]


def damage(world: World, content_hash: ContentHash, kind: Kind, defect: Callable[[bytes], bytes]) -> None:
    stored = world.repository.object_path(content_hash, kind).read_bytes()
    world.repository.replace_object(content_hash, kind, defect(stored))


async def use_everything(world: World, url: str) -> None:
    """Also the tags and the description, which a walk does not need."""
    client = world.client(*url.split())
    await world.check_everything(client)
    async with opened(client, REPOSITORY_TAG="v1") as repository:
        assert repository.root.trusted is not None
        metainfo = repository.root.trusted.manifest.metainfo_ref
        assert metainfo is not None
        for pin in await repository.pin((metainfo,)):
            with pin:
                assert pin.read() == world.repository.options.metainfo


CASES = [(name, defect) for name in ("root catalog", "file", "plain file") for defect in DEFECTS]
CASES += [(name, defect) for name in OBJECTS for defect in (one_bit_changed, bomb) if (name, defect) not in CASES]


@pytest.mark.parametrize(("name", "defect"), CASES, ids=lambda part: getattr(part, "__name__", None))
async def test_a_tampered_object_is_never_seen_and_another_host_heals(
    name: str, defect: Callable[[bytes], bytes], world: World
) -> None:
    find, label, _ = OBJECTS[name]
    damage(world, *find(world), defect)
    with Nginx(world.repository.document_root) as bad, Nginx(world.good_root) as good:
        with pytest.raises(FetchError) as failure:
            await use_everything(world, bad.url)
        assert f"cannot fetch {label}" in str(failure.value)
        assert {attempt.host for attempt in failure.value.attempts} == {f"{bad.url}/cvmfs/{FQRN}"}
        assert all(attempt.reason.startswith("corrupted data (") for attempt in failure.value.attempts)
        await use_everything(world, f"{bad.url} {good.url}")
        bad_log, good_log = stopped(bad), stopped(good)
    content_hash, kind = find(world)
    asked = f"/{str(content_hash)[2:]}{kind.value} "
    assert sum(asked in line for line in bad_log) >= 2  # a second time past all caches
    assert sum(asked in line for line in good_log) == 1


def stopped(web: Nginx) -> list[str]:
    web.kill()
    return web.log


NEEDED = [name for name in OBJECTS if name != "description"]


@pytest.mark.parametrize("name", NEEDED)
def test_a_tampered_object_is_one_line_that_names_it(name: str, world: World) -> None:
    find, label, command = OBJECTS[name]
    damage(world, *find(world), one_bit_changed)
    with Nginx(world.repository.document_root) as web:
        done = world.client(web.url).run(*command)
        check_failure(done, command[0], 5, f"cannot fetch {label}", "corrupted data", web.url)
        assert done.output == b"" or command[0] == "cat"  # what came before the damage may be printed


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_object_is_one_line_that_names_it(name: str, world: World) -> None:
    find, label, command = OBJECTS[name]
    world.repository.drop(*find(world))
    with Nginx(world.repository.document_root) as web:
        done = world.client(web.url).run(*command)
        check_failure(done, command[0], 5, "HTTP 404", web.url)
        assert label in done.errors or "has the tag" in done.errors


def test_without_its_description_the_rest_is_told_of_a_repository(world: World) -> None:
    find, label, command = OBJECTS["description"]
    damage(world, *find(world), one_bit_changed)
    with Nginx(world.repository.document_root) as web:
        done = world.client(web.url).run(*command)
    assert (done.code, len(done.error_lines)) == (0, 1), done
    assert done.errors.startswith(f"cvmfs-py: the description of {FQRN} is left out: cannot fetch {label}")
    assert b"revision      1" in done.output


PAIRS = [("file", "chunk"), ("root catalog", "nested catalog"), ("certificate", "description"), ("file", "other")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_swapped_objects_are_found_out_and_another_host_heals(first: str, second: str, world: World) -> None:
    one = OBJECTS[first][0](world)
    other = world.repository.find_objects(b"/other")[0] if second == "other" else OBJECTS[second][0](world)
    world.repository.swap(one, other)
    with Nginx(world.repository.document_root) as bad, Nginx(world.good_root) as good:
        with pytest.raises(FetchError, match=r"cannot fetch .*corrupted data \(hash mismatch\)|larger than expected"):
            await use_everything(world, bad.url)
        await use_everything(world, f"{bad.url} {good.url}")


def test_verify_counts_what_is_wrong(world: World) -> None:
    for name in ("file", "chunk"):
        damage(world, *OBJECTS[name][0](world), one_bit_changed)
    with Nginx(world.repository.document_root) as web:
        done = world.client(web.url).run("verify", "--data", FQRN)
        check_failure(done, "verify", 5, f"2 problems in {FQRN}", warnings=2)
        assert "cannot fetch file /file (" in done.errors
        assert "cannot fetch /chunked from byte 20000 (" in done.errors


def test_a_copy_goes_on_past_what_is_damaged(world: World) -> None:
    damage(world, *OBJECTS["file"][0](world), one_bit_changed)
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        done = client.run("cp", "-r", "-q", FQRN, "copy")
        check_failure(done, "cp", 5, "1 entry could not be copied", warnings=1)
        assert "cannot fetch file /file (" in done.errors
        assert not (client.directory / "copy" / "file").exists()
        assert (client.directory / "copy" / "other").read_bytes() == b"what was SIGNED\n" * 100


# In the local cache


def local_path(client_cache: Path, content_hash: ContentHash) -> Path:
    text = str(content_hash)
    return client_cache / "objects" / text[:2] / text[2:]


def overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


LOCAL_DEFECTS: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "extended": lambda path: os.truncate(path, path.stat().st_size + 1),
    "extended with data": lambda path: overwrite(path, path.read_bytes() + b"more"),
    "overwritten": lambda path: overwrite(path, bytes(byte ^ 1 for byte in path.read_bytes())),
    "replaced": lambda path: replace(path, bytes(path.stat().st_size)),
    "deleted": lambda path: path.unlink(),
    "a directory": lambda path: make_directory(path),
    "a link to nowhere": lambda path: make_link(path, "/nonexistent/anywhere"),
    "a link to the password file": lambda path: make_link(path, "/etc/passwd"),
    "a pipe": lambda path: make_pipe(path),
}


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def objects_in(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "objects").glob("??/*") if not path.is_dir())


@pytest.mark.parametrize("name", LOCAL_DEFECTS)
async def test_a_damaged_cache_is_healed_without_a_word(name: str, world: World) -> None:
    """Every single object in it is damaged in the same way."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        paths = objects_in(client.cache)
        assert len(paths) >= 10
        for path in paths:
            LOCAL_DEFECTS[name](path)
        await world.check_everything(client)
        for path in paths:
            LOCAL_DEFECTS[name](path)
        done = client.run("cat", f"{FQRN}:/file", f"{FQRN}:/chunked", f"{FQRN}:/nested/inner")
        assert (done.code, done.errors) == (0, ""), done
        files = ("file", "chunked")
        expected = b"".join(world.tree.entries[name].content for name in files)  # type: ignore[index]
        assert done.output.startswith(expected)
        assert len(done.output) == len(expected) + 300


async def test_objects_of_the_same_size_that_changed_places_are_noticed(world: World) -> None:
    """By renaming, so that each keeps its own time; and by copying with times."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        one, other = (
            local_path(client.cache, world.repository.find_objects(path)[0][0]) for path in (b"/file", b"/other")
        )
        assert one.stat().st_size == other.stat().st_size
        beside = client.directory / "beside"
        one.rename(beside)
        other.rename(one)
        beside.rename(other)
        await world.check_everything(client)
        shutil.copy2(other, one)
        await world.check_everything(client)


@pytest.mark.parametrize("name", ["truncated", "overwritten", "deleted"])
def test_a_damaged_cache_without_a_server_is_an_error_that_names_the_object(name: str, world: World) -> None:
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        assert client.run("cat", f"{FQRN}:/file").code == 0
    LOCAL_DEFECTS[name](local_path(client.cache, world.repository.find_objects(b"/file")[0][0]))
    done = client.run("cat", f"{FQRN}:/file")
    check_failure(done, "cat", 5, "cannot fetch file /file", "connection refused", warnings=1)
    assert done.output == b""


async def test_changes_that_hide_behind_a_forged_time_are_found_by_a_check(world: World) -> None:
    """What a disk does by itself leaves no trace in the file's time: only reading all of it can tell."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        path = local_path(client.cache, world.repository.find_objects(b"/file")[0][0])
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        overwrite(path, bytes(byte ^ 1 for byte in path.read_bytes()))
        os.utime(path, ns=times)
        assert client.run("verify", "--data", FQRN).code == 0  # it fetches what is damaged
        await world.check_everything(client)
        overwrite(path, bytes(byte ^ 1 for byte in path.read_bytes()))
        os.utime(path, ns=times)
        done = client.run("cache", "check")
        check_failure(done, "cache", 5, "corrupt: 1 object", warnings=1)
        await world.check_everything(client)


@pytest.mark.parametrize("name", ["root catalog", "nested catalog"])
async def test_a_catalog_that_rotted_in_the_cache_is_fetched_again(name: str, world: World) -> None:
    """Its time is untouched, but the database makes no sense any more."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        path = local_path(client.cache, OBJECTS[name][0](world)[0])
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        data = path.read_bytes()
        overwrite(path, data[:100] + b"\xff" * (len(data) - 100))
        os.utime(path, ns=times)
        await world.check_everything(client)
        assert path.read_bytes() == data
