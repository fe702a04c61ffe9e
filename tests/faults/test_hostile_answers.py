"""Answers that are too large, endless, re-coded or something else: bounded, named, and healed by another host."""

from __future__ import annotations

import gzip
import os
import resource
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.errors import FetchError
from tests.compat.whole_tree import opened
from tests.faults.tampering_world import FQRN, World, check_failure
from tests.simulator.fault_server import Endless, FaultServer, Script, SeenRequest, Steps, answer, chunked
from tests.simulator.signing import RepositoryKey
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

MEBIBYTE = 1 << 20
PREFIX = f"/cvmfs/{FQRN}/"
LOGIN_PAGE = b"<!DOCTYPE html><html><body>Welcome to the airport, please log in</body></html>\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def path_of(world: World, name: str) -> str:
    """The path below the repository of one of the things that are fetched."""
    repository = world.repository
    fields = dict(repository.head.fields)
    objects = {
        "certificate": f"{fields['X']}X",
        "root catalog": f"{fields['C']}C",
        "nested catalog": f"{repository.head.catalog(b'/nested').content_hash}C",
        "tags": f"{fields['H']}H",
        "description": f"{fields['M']}M",
        "file": str(repository.find_objects(b"/file")[0][0]),
        "chunk": f"{repository.find_objects(b'/chunked')[1][0]}P",
    }
    if name in objects:
        return f"data/{objects[name][:2]}/{objects[name][2:]}"
    return {"manifest": ".cvmfspublished", "whitelist": ".cvmfswhitelist"}[name]


LABELS = {
    "manifest": ".cvmfspublished",
    "whitelist": ".cvmfswhitelist",
    "certificate": f"certificate of {FQRN}",
    "root catalog": f"root catalog of {FQRN}, revision 1",
    "nested catalog": "catalog of /nested",
    "tags": f"tags of {FQRN}",
    "description": f"description of {FQRN}",
    "file": "file /file",
    "chunk": "/chunked from byte 20000",
}


def lying(world: World, name: str, lie: Callable[[bytes], Steps]) -> Script:
    """A server that has everything, but says something else of one thing."""
    path = PREFIX + path_of(world, name)
    root = world.good_root

    def script(request: SeenRequest) -> Steps:
        file = root / request.path.lstrip("/")
        if not file.is_file():
            return answer(404)
        data = file.read_bytes()
        return lie(data) if request.path == path else answer(200, data)

    return script


class Endings:
    """The ways of saying too much. Each takes the true bytes and gives the steps of the answer."""

    @staticmethod
    def announced_as_a_terabyte(data: bytes) -> Steps:
        return [answer(200, data, length=1 << 40), Endless(b"x" * 65536)]

    @staticmethod
    def endless_after_the_truth(data: bytes) -> Steps:
        return [b"HTTP/1.1 200 OK\r\n\r\n" + data, Endless(bytes(65536))]

    @staticmethod
    def endless_in_chunks(data: bytes) -> Steps:
        piece = b"10000\r\n" + b"y" * 65536 + b"\r\n"
        return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Endless(piece)]

    @staticmethod
    def endless_zlib(data: bytes) -> Steps:
        """Content without end; nothing about it looks wrong but the amount."""
        deflater = zlib.compressobj(1)
        first = deflater.compress(bytes(MEBIBYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
        more = deflater.compress(bytes(64 * MEBIBYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
        return [b"HTTP/1.1 200 OK\r\n\r\n" + first, Endless(more)]

    @staticmethod
    def endless_head(data: bytes) -> Steps:
        return [b"HTTP/1.1 200 OK\r\n", Endless(b"X-Padding: " + b"z" * 1000 + b"\r\n")]

    @staticmethod
    def endless_status_line(data: bytes) -> Steps:
        return Endless(b"HTTP/1.1 200 " + b"O" * 65000)

    @staticmethod
    def never_a_final_status(data: bytes) -> Steps:
        return Endless(b"HTTP/1.1 103 Early Hints\r\n\r\n")


ENDINGS = [
    Endings.announced_as_a_terabyte,
    Endings.endless_after_the_truth,
    Endings.endless_in_chunks,
    Endings.endless_zlib,
    Endings.endless_head,
    Endings.endless_status_line,
    Endings.never_a_final_status,
]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may become larger than what is allowed for the largest of these objects, the list of tags."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (260 * MEBIBYTE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def use_everything(world: World, *urls: str) -> None:
    client = world.client(*urls, name=f"client{os.urandom(4).hex()}")
    await world.check_everything(client)
    async with opened(client, REPOSITORY_TAG="v1") as repository:
        assert repository.root.trusted is not None
        metainfo = repository.root.trusted.manifest.metainfo_ref
        assert metainfo is not None
        for pin in await repository.pin((metainfo,)):
            pin.close()


ENDLESS = [(name, lie) for name in ("manifest", "root catalog", "file") for lie in ENDINGS]
ENDLESS += [(name, lie) for name in LABELS for lie in ENDINGS[1:4] if (name, lie) not in ENDLESS]


@pytest.mark.parametrize(("name", "lie"), ENDLESS, ids=lambda part: getattr(part, "__name__", None))
async def test_an_answer_without_end_ends(
    name: str, lie: Callable[[bytes], Steps], world: World, small_disk: None
) -> None:
    """After an amount that has to do with the thing that was asked for; another host has it."""
    with FaultServer(lying(world, name, lie)) as liar, Nginx(world.good_root) as good:
        with pytest.raises(FetchError) as failure:
            await use_everything(world, liar.url)
        assert LABELS[name] in str(failure.value)
        assert {attempt.host for attempt in failure.value.attempts} == {f"{liar.url}/cvmfs/{FQRN}"}
        await use_everything(world, liar.url, good.url)


@pytest.mark.parametrize("name", LABELS)
def test_the_command_line_tells_which_answer_was_too_large(name: str, world: World) -> None:
    with FaultServer(lying(world, name, Endings.announced_as_a_terabyte)) as liar:
        client = world.client(liar.url)
        done = client.run("cp", "-r", "-q", "--tag", "v1", FQRN, "copy")
        if name == "description":
            assert (done.code, done.errors) == (0, ""), done
            return
        if name in ("file", "chunk", "nested catalog"):  # what is no matter of the whole repository
            check_failure(done, "cp", 5, "1 entry could not be copied", warnings=1)
        else:
            check_failure(done, "cp", 5)
        label = LABELS[name] if name != "root catalog" else "root catalog of tag v1"
        assert label in done.errors
        assert "larger than" in done.errors


# Re-coded


def gzipped(data: bytes) -> Steps:
    return answer(200, gzip.compress(data), {"Content-Encoding": "gzip"})


def deflated(data: bytes) -> Steps:
    return answer(200, zlib.compress(data), {"content-encoding": "Deflate"})


def gzipped_in_chunks(data: bytes) -> Steps:
    return chunked([gzip.compress(data)], {"Content-Encoding": "x-gzip"})


def claimed_to_be_gzipped(data: bytes) -> Steps:
    return answer(200, data, {"Content-Encoding": "gzip"})


RECODED = [(name, gzipped) for name in LABELS]
RECODED += [
    (name, lie) for name in ("manifest", "file") for lie in (deflated, gzipped_in_chunks, claimed_to_be_gzipped)
]


@pytest.mark.parametrize(("name", "lie"), RECODED, ids=lambda part: getattr(part, "__name__", None))
async def test_a_recoded_answer_is_named_as_that_and_another_host_heals(
    name: str, lie: Callable[[bytes], Steps], world: World
) -> None:
    with FaultServer(lying(world, name, lie)) as liar, Nginx(world.good_root) as good:
        with pytest.raises(FetchError, match=r"re-encoded by proxy \(Content-Encoding: ") as failure:
            await use_everything(world, liar.url)
        assert LABELS[name] in str(failure.value)
        await use_everything(world, liar.url, good.url)
        assert all(request.headers["accept-encoding"] == "identity" for request in liar.requests)


async def test_identity_is_no_coding(world: World) -> None:
    def plainly(data: bytes) -> Steps:
        return answer(200, data, {"Content-Encoding": "identity"})

    with FaultServer(lying(world, "file", plainly)) as server:
        await use_everything(world, server.url)


async def test_a_proxy_that_recodes_is_passed_by(world: World) -> None:
    """Everything over this proxy is gzip-encoded; the next group goes past it."""

    def recode(request: SeenRequest) -> Steps:
        file = world.good_root / request.path.lstrip("/")
        return gzipped(file.read_bytes()) if file.is_file() else answer(404)

    with FaultServer(recode) as proxy, Nginx(world.good_root) as web:
        client = world.client(web.url, HTTP_PROXY=proxy.url)
        with pytest.raises(FetchError, match="re-encoded by proxy"):
            async with opened(client):
                pass
        done = client.run("ls", FQRN)
        check_failure(done, "ls", 5, "re-encoded by proxy (Content-Encoding: gzip)", proxy.url)
        for text in (f"{proxy.url};DIRECT", f"{proxy.url}|{proxy.url.replace('127.0.0.1', 'localhost')};DIRECT"):
            await world.check_everything(world.client(web.url, name=str(len(text)), HTTP_PROXY=text))


# Something else


@pytest.mark.parametrize("name", [name for name in LABELS if name not in ("manifest", "whitelist")])
def test_a_login_page_in_place_of_an_object_is_corrupted_data(name: str, world: World) -> None:
    """Signed files have their own reasons."""

    def page(data: bytes) -> Steps:
        return answer(200, LOGIN_PAGE, {"Content-Type": "text/html"})

    with FaultServer(lying(world, name, page)) as liar, Nginx(world.good_root) as good:
        commands = {"tags": ("tags", FQRN), "nested catalog": ("ls", "-R", FQRN), "description": ("info", FQRN)}
        commands |= {"file": ("cat", f"{FQRN}:/file"), "chunk": ("cat", f"{FQRN}:/chunked")}
        command = commands.get(name, ("ls", FQRN))
        done = world.client(liar.url).run(*command)
        if name == "description":
            assert (done.code, len(done.error_lines)) == (0, 1), done
        elif name == "nested catalog":
            check_failure(done, "ls", 5, "the listing is incomplete: 1 directory left out", warnings=1)
        else:
            check_failure(done, command[0], 5)
        assert f"cannot fetch {LABELS[name]} (" in done.errors
        assert "corrupted data (" in done.errors
        assert b"airport" not in done.output
        healed = world.client(liar.url, good.url, name="other").run(*command)
        assert (healed.code, healed.errors) == (0, ""), healed


def test_a_captive_portal_answers_everything(world: World) -> None:
    """All that anybody asks for is the same page, with 200; a start from the cache still works."""
    with Nginx(world.good_root) as good, FaultServer(lambda request: answer(200, LOGIN_PAGE)) as portal:
        client = world.client(good.url)
        assert client.run("cat", f"{FQRN}:/file").code == 0
        captive = client.changed([portal.url])
        done = captive.run("cat", f"{FQRN}:/file")
        assert (done.code, len(done.error_lines)) == (0, 1), done
        assert "is malformed" in done.errors
        assert done.output == b"what was signed\n" * 100
        missing = captive.run("cat", f"{FQRN}:/other")
        check_failure(missing, "cat", 5, "cannot fetch file /other", "corrupted data", warnings=1)
        check_failure(world.client(portal.url, name="new").run("ls", FQRN), "ls", 4, "is malformed")


async def test_documents_of_two_servers_that_do_not_fit_are_taken_from_one(world: World) -> None:
    """The first server loses its manifest in the middle of things: its whitelist is of another time."""
    old_whitelist = (world.repository.server_root / ".cvmfswhitelist").read_bytes()
    world.repository.use_key(RepositoryKey.generate(slot=1))
    world.keep_good()

    def first(request: SeenRequest) -> Steps:
        if request.path.endswith(".cvmfswhitelist"):
            return answer(200, old_whitelist)
        return answer(404)

    with FaultServer(first) as stale, Nginx(world.good_root) as good:
        await world.check_everything(world.client(stale.url, good.url))


def test_a_bomb_that_is_signed_is_as_large_as_its_catalog_says(world: World) -> None:
    """The publisher himself may store what inflates to far more than the row says."""
    bomb = zlib.compress(bytes(50 * MEBIBYTE), 9)
    world.repository.publish(Directory({"bomb": File(b"", stored=bomb, size=10), "file": File(b"fine")}))
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        done = client.run("cat", f"{FQRN}:/bomb")
        check_failure(done, "cat", 5, "cannot fetch file /bomb", "larger than expected")
        assert done.output == b""
        assert client.run("cat", f"{FQRN}:/file").output == b"fine"


def test_a_catalog_that_is_a_bomb_is_refused_by_its_announced_size(world: World) -> None:
    """The manifest is signed and tells the size of the root catalog."""
    repository = world.repository
    stored = repository.objects.put_stored(zlib.compress(bytes(200 * MEBIBYTE), 9), Kind.CATALOG)
    repository.resign_manifest(C=str(stored))
    with Nginx(repository.document_root) as web:
        done = world.client(web.url).run("ls", FQRN)
        check_failure(done, "ls", 5, f"cannot fetch root catalog of {FQRN}, revision 1", "larger than expected")
