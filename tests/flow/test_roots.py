"""Which root a repository is opened at: newest, kept, refused or pinned; with servers and without; and what is kept."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import ContentHash, Kind, hash_bytes
from cvmfs_py.errors import ConfigError, CvmfsError, FetchError, ObjectGoneError, Refusal, TrustError
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.trust.breadcrumb import Breadcrumb
from tests.flow.opening import opened
from tests.simulator.reading import find_all_objects
from tests.simulator.repository import Repository as Published
from tests.simulator.signing import MasterKey, RepositoryKey
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cvmfs_py.mount.roots import Root

NOWHERE = ["file:///nowhere"]
FQRN = "test.example.org"
PAST = datetime.datetime(2020, 2, 1, tzinfo=datetime.UTC)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published.create(tmp_path / "published", FQRN)
    publish(published, 1, tag="v1")
    return published


def publish(published: Published, number: int, **more: object) -> None:
    content = Directory({"number": File(b"%d" % number), "same": Directory({}, nested=True)})
    published.publish(content, **more)  # type: ignore[arg-type]


class Client:
    """One user's cache, and what was seen through it."""

    def __init__(self, published: Published, cache: Path) -> None:
        self.published = published
        self.cache = cache
        self.warnings: tuple[str, ...] = ()

    async def open(self, servers: list[str] | None = None, **parameters: str) -> Root:
        async with opened(self.published, self.cache, servers, **parameters) as repository:
            self.warnings = repository.warnings
            return repository.root

    async def read(self, servers: list[str] | None = None, **parameters: str) -> bytes:
        """The content of the one file."""
        async with opened(self.published, self.cache, servers, **parameters) as repository:
            self.warnings = repository.warnings
            located = await repository.resolve(b"/number")
            (window,) = await repository.content_windows(located)
            (pin,) = await repository.pin(window)
            with pin:
                return pin.read()

    def state(self, name: str) -> Path:
        return self.cache / "state" / name


@pytest.fixture
def client(published: Published, tmp_path: Path) -> Client:
    return Client(published, tmp_path / "cache")


def root_of(published: Published, index: int = -1) -> ContentHash:
    return published.revisions[index].root_hash


class TestNewest:
    async def test_the_root_of_the_server_is_used_and_kept(self, client: Client, published: Published) -> None:
        root = await client.open()
        assert (root.origin, root.content_hash) == (RootOrigin.SERVER, root_of(published))
        assert root.trusted is not None
        assert root.trusted.manifest.revision == 1
        assert client.state(f"cvmfschecksum.{FQRN}").read_bytes() == root.trusted.breadcrumb.format()
        assert client.state(f"{FQRN}.trust").exists()
        publish(published, 2)
        root = await client.open()
        assert (root.origin, root.content_hash) == (RootOrigin.SERVER, root_of(published))
        assert client.warnings == ()

    async def test_of_two_roots_with_one_revision_the_one_that_is_here_stays(
        self, client: Client, published: Published
    ) -> None:
        assert await client.read() == b"1"
        kept = client.state(f"{FQRN}.trust").read_bytes()
        publish(published, 2, revision=1)
        root = await client.open()
        assert (root.origin, root.content_hash) == (RootOrigin.SERVER, root_of(published, 0))
        assert root.trusted is not None
        assert root.trusted.manifest.root_hash == root_of(published, 0)  # who vouches for what is shown
        assert client.warnings == ()
        assert client.state(f"{FQRN}.trust").read_bytes() == kept

    async def test_but_not_when_it_is_lost(self, client: Client, published: Published) -> None:
        await client.open()
        publish(published, 2, revision=1)
        old = published.revisions[0]
        published.drop(old.root_hash, Kind.CATALOG)
        shutil.rmtree(client.cache / "objects")
        assert await client.read() == b"2"
        assert await client.read(NOWHERE) == b"2"  # this one is kept now

    async def test_a_lower_revision_is_not_gone_back_to(self, client: Client, published: Published) -> None:
        publish(published, 2)
        assert await client.read() == b"2"
        now = published.revisions[-1]
        published.resign_manifest(S="1", C=str(root_of(published, 0)), T=str(now.timestamp_s + 60))
        assert await client.read() == b"2"
        assert len(client.warnings) == 1
        assert f"using revision 2 of {FQRN}" in client.warnings[0]
        assert "it is of revision 1 and revision 2 is here" in client.warnings[0]
        assert (await client.open()).origin is RootOrigin.OFFLINE

    async def test_nor_an_older_time(self, client: Client, published: Published) -> None:
        publish(published, 2)
        assert await client.read() == b"2"
        published.resign_manifest(S="9", C=str(root_of(published, 0)), T=str(published.revisions[0].timestamp_s))
        assert await client.read() == b"2"
        assert (
            "it was published on 2023-11-14 22:13 UTC and a root of 2023-11-14 22:14 UTC is here" in client.warnings[0]
        )
        published.resign_manifest(T=None)  # which is second 0
        assert await client.read() == b"2"

    async def test_a_server_that_lost_the_root_catalog(self, client: Client, published: Published) -> None:
        assert await client.read() == b"1"
        publish(published, 2)
        published.drop(root_of(published), Kind.CATALOG)
        assert await client.read() == b"1"
        assert "root catalog" in client.warnings[0]
        kept = Breadcrumb.parse(client.state(f"cvmfschecksum.{FQRN}").read_bytes())
        assert kept is not None
        assert kept.revision == 1  # the other one was never here: nothing is known of it

    async def test_a_first_start_without_a_root_catalog_keeps_nothing(
        self, client: Client, published: Published
    ) -> None:
        published.drop(root_of(published), Kind.CATALOG)
        with pytest.raises(ObjectGoneError, match="root catalog"):
            await client.open()
        assert not client.state(f"{FQRN}.trust").exists()
        assert not client.state(f"cvmfschecksum.{FQRN}").exists()

    @pytest.mark.parametrize("damage", ["manifest", "whitelist", "certificate", "catalog"])
    async def test_the_next_server_is_asked_when_the_first_ones_documents_are_bad(
        self, client: Client, published: Published, tmp_path: Path, damage: str
    ) -> None:
        shutil.copytree(published.document_root, tmp_path / "bad")
        bad = tmp_path / "bad" / "cvmfs" / FQRN
        head = published.head
        certificate = ContentHash(head.root_hash.algorithm, bytes.fromhex(dict(head.fields)["X"]))
        path = {
            "manifest": bad / ".cvmfspublished",
            "whitelist": bad / ".cvmfswhitelist",
            "certificate": bad / "data" / str(certificate)[:2] / (str(certificate)[2:] + "X"),
            "catalog": bad / "data" / str(head.root_hash)[:2] / (str(head.root_hash)[2:] + "C"),
        }[damage]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with SlowServer(tmp_path / "bad") as first, SlowServer(published.document_root) as second:
            assert await client.read([first.url, second.url]) == b"1"
            assert client.warnings == ()
            assert first.requests
            first.stop()
            second.stop()

    async def test_a_blacklisted_revision_is_refused_however_it_is_asked_for(
        self, client: Client, published: Published, tmp_path: Path
    ) -> None:
        blacklist = tmp_path / "blacklist"
        blacklist.write_text(f"<{FQRN} 2\n")
        for pin in ({}, {"CVMFS_REPOSITORY_TAG": "v1"}, {"CVMFS_ROOT_HASH": str(root_of(published))}):
            with pytest.raises(TrustError) as caught:
                await client.open(CVMFS_BLACKLIST=str(blacklist), **pin)
            assert caught.value.reason is Refusal.REVISION_BLACKLISTED
        await client.open()
        for servers in (None, NOWHERE):  # also when it was used before
            with pytest.raises(CvmfsError):
                await client.open(servers, CVMFS_BLACKLIST=str(blacklist))
        publish(published, 2)
        assert await client.read(CVMFS_BLACKLIST=str(blacklist)) == b"2"


class TestOffline:
    @pytest.fixture
    async def used(self, client: Client, published: Published) -> Client:
        assert await client.read() == b"1"
        return client

    async def test_the_last_root_is_used_with_one_warning(self, used: Client) -> None:
        assert await used.read(NOWHERE) == b"1"
        assert len(used.warnings) == 1
        assert (
            f"using revision 1 of {FQRN}, published on 2023-11-14 22:13 UTC, from the cache, because no server"
            in used.warnings[0]
        )
        root = await used.open(NOWHERE)
        assert root.origin is RootOrigin.OFFLINE
        assert root.trusted is not None

    async def test_a_whitelist_that_has_expired_since_is_no_matter(self, used: Client, published: Published) -> None:
        """What was mounted may be mounted again; but nothing new is taken from such a server."""
        publish(published, 2)
        published.write_whitelist(expires=PAST)
        assert await used.read() == b"1"
        assert "has expired" in used.warnings[0]
        fresh = Client(published, used.cache.with_name("fresh"))
        with pytest.raises(TrustError) as caught:
            await fresh.open()
        assert caught.value.reason is Refusal.WHITELIST_EXPIRED

    async def test_other_master_keys_vouch_for_nothing_that_is_here(
        self, used: Client, published: Published, tmp_path: Path
    ) -> None:
        key = tmp_path / "other.pub"
        key.write_bytes(MasterKey.generate(slot=5).public_pem)
        with pytest.raises(CvmfsError):
            await used.open(NOWHERE, CVMFS_PUBLIC_KEY=str(key))
        assert await used.read(NOWHERE) == b"1"

    async def test_a_repository_that_starts_again_with_other_keys(self, used: Client, tmp_path: Path) -> None:
        """Its revisions have nothing to do with those before: no roll-back is seen in them."""
        again = Published.create(tmp_path / "again", FQRN, master=MasterKey.generate(slot=6))
        again.publish(Directory({"number": File(b"anew")}), timestamp_s=1_000_000_000)
        assert await Client(again, used.cache).read() == b"anew"

    async def test_a_certificate_that_was_blacklisted_since(
        self, used: Client, published: Published, tmp_path: Path
    ) -> None:
        blacklist = tmp_path / "blacklist"
        blacklist.write_text(published.repository_key.fingerprint() + "\n")
        for servers in (NOWHERE, None):
            with pytest.raises(CvmfsError):
                await used.open(servers, CVMFS_BLACKLIST=str(blacklist))
        # What it signed is not used, but it still says what is too old.
        published.use_key(RepositoryKey.generate(slot=3))
        assert await used.read(CVMFS_BLACKLIST=str(blacklist)) == b"1"

    @pytest.mark.parametrize("position", [0, 20, 60, 100, 400, -300, -1])
    async def test_state_that_was_tampered_with_is_not_used(self, used: Client, position: int) -> None:
        path = used.state(f"{FQRN}.trust")
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(FetchError):
            await used.open(NOWHERE)
        assert await used.read() == b"1"
        assert await used.read(NOWHERE) == b"1"  # written anew

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, os.urandom(5000)])
    async def test_nor_is_rubbish(self, used: Client, content: bytes) -> None:
        for name in (f"{FQRN}.trust", f"cvmfschecksum.{FQRN}"):
            used.state(name).write_bytes(content)
        with pytest.raises(FetchError):
            await used.open(NOWHERE)
        assert await used.read() == b"1"

    async def test_a_breadcrumb_alone_is_no_root_but_says_what_is_too_old(
        self, used: Client, published: Published
    ) -> None:
        publish(published, 2)
        await used.open()
        used.state(f"{FQRN}.trust").unlink()
        with pytest.raises(FetchError):
            await used.open(NOWHERE)
        published.serve(published.revisions[0])
        with pytest.raises(TrustError) as caught:
            await used.open()
        assert caught.value.reason is Refusal.OUTDATED

    async def test_without_its_root_catalog_nothing_is_left(self, used: Client) -> None:
        shutil.rmtree(used.cache / "objects")
        with pytest.raises(FetchError, match=r"cannot fetch|no server has"):
            await used.open(NOWHERE)


class TestPins:
    @pytest.fixture
    def tagged(self, published: Published) -> Published:
        publish(published, 2, tag="v2")
        publish(published, 3)
        return published

    @pytest.mark.parametrize(
        ("parameters", "content", "origin"),
        [
            ({"CVMFS_REPOSITORY_TAG": "v1"}, b"1", RootOrigin.TAG),
            ({"CVMFS_REPOSITORY_TAG": "v2"}, b"2", RootOrigin.TAG),
            ({"CVMFS_REPOSITORY_TAG": "trunk-previous"}, b"2", RootOrigin.TAG),
            ({"CVMFS_REPOSITORY_DATE": "2023-11-14T22:13:59Z"}, b"1", RootOrigin.DATE),
            ({"CVMFS_REPOSITORY_DATE": "2023-11-14T22:14:20Z"}, b"2", RootOrigin.DATE),
            ({"CVMFS_REPOSITORY_DATE": "2100-01-01T00:00:00Z"}, b"3", RootOrigin.DATE),
            ({"CVMFS_ROOT_HASH": "1"}, b"1", RootOrigin.ROOT_HASH),
        ],
        ids=str,
    )
    async def test_online_and_then_offline(
        self, client: Client, tagged: Published, parameters: dict[str, str], content: bytes, origin: RootOrigin
    ) -> None:
        if "CVMFS_ROOT_HASH" in parameters:
            parameters = parameters | {"CVMFS_ROOT_HASH": str(root_of(tagged, int(parameters["CVMFS_ROOT_HASH"]) - 1))}
        assert await client.read(**parameters) == content
        assert client.warnings == ()
        assert (await client.open(**parameters)).origin is origin
        assert not client.state(f"cvmfschecksum.{FQRN}").exists()  # a pin is no step forward
        assert await client.read(NOWHERE, **parameters) == content
        assert len(client.warnings) == (origin is not RootOrigin.ROOT_HASH)
        with pytest.raises(FetchError):
            await client.read(NOWHERE)  # the newest root was never here

    async def test_a_root_hash_comes_before_a_tag_and_a_tag_before_a_date(
        self, client: Client, tagged: Published
    ) -> None:
        date = {"CVMFS_REPOSITORY_DATE": "2100-01-01T00:00:00Z"}
        tag = {"CVMFS_REPOSITORY_TAG": "v1", **date}
        assert await client.read(CVMFS_ROOT_HASH=str(root_of(tagged, 1)), **tag) == b"2"
        assert await client.read(**tag) == b"1"
        assert await client.read(**date) == b"3"

    async def test_pins_know_nothing_of_roll_back(self, client: Client, tagged: Published) -> None:
        assert await client.read() == b"3"
        tagged.serve(tagged.revisions[1])
        assert await client.read(CVMFS_REPOSITORY_TAG="v2") == b"2"

    async def test_a_root_hash_needs_no_keys_and_no_signatures(self, client: Client, tagged: Published) -> None:
        parameters = {"CVMFS_ROOT_HASH": str(root_of(tagged, 0)), "CVMFS_PUBLIC_KEY": "/nowhere/at/all.pub"}
        for name in (".cvmfspublished", ".cvmfswhitelist"):
            (tagged.server_root / name).unlink()
        assert await client.read(**parameters) == b"1"
        assert (await client.open(**parameters)).trusted is None

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"CVMFS_REPOSITORY_TAG": "v3"}, f"{FQRN} has no tag 'v3'; `cvmfs-py tags {FQRN}` lists what it has"),
            (
                {"CVMFS_REPOSITORY_DATE": "2001-01-01T00:00:00Z"},
                "has no tagged snapshot as early as 2001-01-01 00:00 UTC",
            ),
        ],
    )
    async def test_what_is_not_there(
        self, client: Client, tagged: Published, parameters: dict[str, str], message: str
    ) -> None:
        for servers in (None, NOWHERE):
            with pytest.raises(ConfigError) as caught:
                await client.open(servers, **parameters)
            assert message in str(caught.value)

    async def test_a_root_hash_that_no_server_has(self, client: Client) -> None:
        with pytest.raises(ObjectGoneError, match=r"no server of test\.example\.org has a root catalog 0123456789"):
            await client.open(CVMFS_ROOT_HASH="0123456789" * 4)

    async def test_a_tag_whose_catalog_was_collected(self, client: Client, tagged: Published) -> None:
        tagged.drop(root_of(tagged, 0), Kind.CATALOG)
        with pytest.raises(ObjectGoneError, match="has the tag 'v1' still, but no server has its root catalog"):
            await client.open(CVMFS_REPOSITORY_TAG="v1")

    async def test_a_repository_without_tags(self, tmp_path: Path) -> None:
        bare = Published.create(tmp_path / "bare", FQRN, history_revision=None)
        publish(bare, 1)
        with pytest.raises(ConfigError, match="has no tags: it can be pinned by its root hash only"):
            await Client(bare, tmp_path / "cache").open(CVMFS_REPOSITORY_TAG="v1")


class TestPreloaded:
    """A directory that the reference client's preloader has filled, below our own cache."""

    @pytest.fixture
    def preloaded(self, published: Published, tmp_path: Path) -> Iterator[dict[str, str]]:
        directory = tmp_path / "preloaded"
        return {"CVMFS_ALIEN_CACHE": str(directory), "CVMFS_SHARED_CACHE": "no", "CVMFS_QUOTA_LIMIT": "-1"}

    @staticmethod
    def preload(published: Published, directory: Path, revision: int, breadcrumb: bytes | None = None) -> None:
        """As `cvmfs_preload` leaves it: inflated objects without their kind's letter, and the breadcrumb."""
        made = published.revisions[revision - 1]
        for number in range(256):
            (directory / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for ref in find_all_objects(published.server_root, made.root_hash):
            text = str(ref.content_hash)
            content = zlib.decompress(published.object_path(ref.content_hash, ref.kind).read_bytes())
            (directory / text[:2] / text[2:]).write_bytes(content)
        crumb = f"{made.root_hash}T{made.timestamp_s}R{made.number}".encode() if breadcrumb is None else breadcrumb
        (directory / f"cvmfschecksum.{published.fqrn}").write_bytes(crumb)

    async def test_it_serves_without_any_network(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str]
    ) -> None:
        self.preload(published, tmp_path / "preloaded", 1)
        assert await client.read(NOWHERE, **preloaded) == b"1"
        assert len(client.warnings) == 1
        root = await client.open(NOWHERE, **preloaded)
        assert (root.origin, root.trusted) == (RootOrigin.OFFLINE, None)

    async def test_its_objects_are_not_fetched(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str]
    ) -> None:
        self.preload(published, tmp_path / "preloaded", 1)
        with SlowServer(published.document_root) as server:
            assert await client.read([server.url], **preloaded) == b"1"
            assert client.warnings == ()
            fetched = {path.rpartition("/")[2] for path in server.paths}
        assert {name for name in fetched if not name.endswith("X")} == {".cvmfspublished", ".cvmfswhitelist"}
        # Verified in between: now there is a root that is vouched for.
        root = await client.open(NOWHERE, **preloaded)
        assert root.trusted is not None

    async def test_newer_than_what_is_known_it_is_used(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str]
    ) -> None:
        assert await client.read() == b"1"
        publish(published, 2)
        self.preload(published, tmp_path / "preloaded", 2)
        assert await client.read(NOWHERE, **preloaded) == b"2"
        published.serve(published.revisions[0])
        assert await client.read(**preloaded) == b"2"  # and no server leads back

    async def test_older_than_what_is_known_it_is_not(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str]
    ) -> None:
        self.preload(published, tmp_path / "preloaded", 1)
        publish(published, 2)
        assert await client.read(**preloaded) == b"2"
        assert await client.read(NOWHERE, **preloaded) == b"2"

    @pytest.mark.parametrize(
        "crumb", [b"", b"rubbish", b"0" * 40 + b"T1R1", b"\xff" * 500, b"T5R5", b"a" * 40 + b"T0R1"]
    )
    async def test_a_breadcrumb_that_says_nothing_is_none(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str], crumb: bytes
    ) -> None:
        self.preload(published, tmp_path / "preloaded", 1, crumb)
        with pytest.raises(FetchError):
            await client.open(NOWHERE, **preloaded)
        assert await client.read(**preloaded) == b"1"

    async def test_a_time_that_no_calendar_has(
        self, client: Client, published: Published, tmp_path: Path, preloaded: dict[str, str]
    ) -> None:
        crumb = f"{root_of(published)}T{2**60}R1".encode()
        self.preload(published, tmp_path / "preloaded", 1, crumb)
        assert await client.read(NOWHERE, **preloaded) == b"1"
        assert f"published on second {2**60}" in client.warnings[0]


async def test_metainfo_is_no_reason_to_fail(client: Client, published: Published) -> None:
    content_hash = hash_bytes(published.options.algorithm, zlib.compress(published.options.metainfo or b"", 6))
    assert json.loads(published.options.metainfo or b"")
    published.drop(content_hash, Kind.METAINFO)
    assert await client.read() == b"1"
