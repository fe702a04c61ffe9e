"""Every way to tamper with what is signed has its own exact reason, in the program and on the command line."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.errors import Refusal, TrustError
from tests.compat.whole_tree import describe, opened, read_whole
from tests.faults.tampering_world import FQRN, World, check_failure
from tests.simulator.repository import Repository
from tests.simulator.schema import NEWEST
from tests.simulator.signing import MasterKey, RepositoryKey
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

NOW = datetime.now(UTC)
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Welcome to the airport</body></html>\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def expired(world: World) -> None:
    world.repository.write_whitelist(expires=NOW - timedelta(days=1))


def expiring_this_hour(world: World) -> None:
    world.repository.write_whitelist(expires=NOW.replace(minute=59, second=59))


def whitelist_of_another(world: World) -> None:
    world.repository.write_whitelist(fqrn="other.example.org")


def manifest_of_another(world: World) -> None:
    world.repository.resign_manifest(N="other.example.org")


def nameless_manifest(world: World) -> None:
    world.repository.resign_manifest(N=None)


def manifest_of_a_subtree(world: World) -> None:
    world.repository.resign_manifest(R="00000000000000000000000000000000")


def manifest_without_root(world: World) -> None:
    world.repository.resign_manifest(C=None)


def manifest_without_revision(world: World) -> None:
    world.repository.resign_manifest(S=None)


def manifest_without_certificate(world: World) -> None:
    world.repository.resign_manifest(X=None)


def whitelist_of_a_foreign_master(world: World) -> None:
    world.repository.write_whitelist(master=MasterKey.generate(1))


def certificate_not_listed(world: World) -> None:
    world.repository.use_key(RepositoryKey.generate(slot=1), listed=False)


def nobody_listed(world: World) -> None:
    world.repository.write_whitelist(fingerprints=[])


def only_a_comment_lists_it(world: World) -> None:
    line = f"# {world.repository.repository_key.fingerprint()}"
    world.repository.write_whitelist(fingerprints=[], extra_lines=[line])


def signed_by_another_key(world: World) -> None:
    """With the certificate of the right one."""
    world.repository.resign_manifest(repository_key=RepositoryKey.generate(slot=1))


def manifest_with_a_broken_signature(world: World) -> None:
    data = manifest_bytes(world)
    world.repository.replace_manifest(data[:-1] + bytes([data[-1] ^ 1]))


def manifest_without_signature(world: World) -> None:
    world.repository.replace_manifest(manifest_bytes(world)[:-256])


def manifest_with_a_tail(world: World) -> None:
    world.repository.replace_manifest(manifest_bytes(world) + b"\n")


def manifest_with_a_changed_body(world: World) -> None:
    """Another revision number: the hash below does not fit any more."""
    world.repository.replace_manifest(manifest_bytes(world).replace(b"\nS1\n", b"\nS9\n"))


def manifest_with_a_field_in_front(world: World) -> None:
    world.repository.replace_manifest(b"Zchannel\n" + manifest_bytes(world))


def truncated_manifest(world: World) -> None:
    world.repository.replace_manifest(manifest_bytes(world)[:100])


def empty_manifest(world: World) -> None:
    world.repository.replace_manifest(b"")


def login_page_for_manifest(world: World) -> None:
    world.repository.replace_manifest(LOGIN_PAGE)


def whitelist_with_a_broken_signature(world: World) -> None:
    data = whitelist_bytes(world)
    world.repository.replace_whitelist(data[:-1] + bytes([data[-1] ^ 1]))


def whitelist_with_a_tail(world: World) -> None:
    world.repository.replace_whitelist(whitelist_bytes(world) + b"\n")


def whitelist_with_a_later_expiry(world: World) -> None:
    world.repository.replace_whitelist(whitelist_bytes(world).replace(b"\nE2120", b"\nE2999"))


def whitelist_with_one_more_line(world: World) -> None:
    extra = RepositoryKey.generate(slot=1).fingerprint().encode()
    world.repository.replace_whitelist(whitelist_bytes(world).replace(b"\n--\n", b"\n" + extra + b"\n--\n"))


def whitelist_for_pkcs7(world: World) -> None:
    world.repository.write_whitelist(flags=["Vpkcs7"])


def login_page_for_whitelist(world: World) -> None:
    world.repository.replace_whitelist(LOGIN_PAGE)


def truncated_whitelist(world: World) -> None:
    world.repository.replace_whitelist(whitelist_bytes(world)[:40])


def certificate_is_a_text(world: World) -> None:
    stored = world.repository.objects.put(b"I am a certificate, trust me\n", Kind.CERTIFICATE)
    world.repository.resign_manifest(X=str(stored.content_hash))


def certificate_is_a_key(world: World) -> None:
    stored = world.repository.objects.put(world.repository.master.public_pem, Kind.CERTIFICATE)
    world.repository.resign_manifest(X=str(stored.content_hash))


def whitelist_of_the_time_before_a_change_of_keys(world: World) -> None:
    """A server that has the new manifest and the old whitelist."""
    old = whitelist_bytes(world)
    world.repository.use_key(RepositoryKey.generate(slot=1))
    world.keep_good()
    world.repository.replace_whitelist(old)


def manifest_of_the_time_before_a_change_of_keys(world: World) -> None:
    """A server that has the old manifest and the new whitelist."""
    old = manifest_bytes(world)
    world.repository.use_key(RepositoryKey.generate(slot=1))
    world.keep_good()
    world.repository.replace_manifest(old)


def everything_of_another_repository(world: World) -> None:
    """Correctly signed by its own master key, and served under this name."""
    other = Repository.create(world.directory / "other", "other.example.org", master=MasterKey.generate(1))
    other.publish(Directory({"file": File(b"other")}))
    shutil.rmtree(world.repository.server_root)
    shutil.copytree(other.server_root, world.repository.server_root)


def manifest_bytes(world: World) -> bytes:
    return (world.repository.server_root / ".cvmfspublished").read_bytes()


def whitelist_bytes(world: World) -> bytes:
    return (world.repository.server_root / ".cvmfswhitelist").read_bytes()


SERVED: dict[Callable[[World], None], Refusal] = {
    expired: Refusal.WHITELIST_EXPIRED,
    expiring_this_hour: Refusal.WHITELIST_EXPIRED,
    whitelist_of_another: Refusal.WRONG_NAME,
    manifest_of_another: Refusal.WRONG_NAME,
    nameless_manifest: Refusal.WRONG_NAME,
    everything_of_another_repository: Refusal.WRONG_NAME,
    manifest_of_a_subtree: Refusal.WRONG_ROOT_PATH,
    manifest_without_root: Refusal.INCOMPLETE,
    manifest_without_revision: Refusal.INCOMPLETE,
    manifest_without_certificate: Refusal.INCOMPLETE,
    whitelist_of_a_foreign_master: Refusal.FOREIGN_KEY,
    whitelist_with_a_broken_signature: Refusal.FOREIGN_KEY,
    whitelist_with_a_tail: Refusal.FOREIGN_KEY,
    whitelist_with_a_later_expiry: Refusal.BODY_HASH,
    whitelist_with_one_more_line: Refusal.BODY_HASH,
    whitelist_for_pkcs7: Refusal.UNSUPPORTED,
    login_page_for_whitelist: Refusal.MALFORMED,
    truncated_whitelist: Refusal.MALFORMED,
    certificate_not_listed: Refusal.CERTIFICATE_NOT_LISTED,
    nobody_listed: Refusal.CERTIFICATE_NOT_LISTED,
    only_a_comment_lists_it: Refusal.CERTIFICATE_NOT_LISTED,
    whitelist_of_the_time_before_a_change_of_keys: Refusal.CERTIFICATE_NOT_LISTED,
    manifest_of_the_time_before_a_change_of_keys: Refusal.CERTIFICATE_NOT_LISTED,
    certificate_is_a_text: Refusal.CERTIFICATE_MALFORMED,
    certificate_is_a_key: Refusal.CERTIFICATE_MALFORMED,
    signed_by_another_key: Refusal.SIGNATURE,
    manifest_with_a_broken_signature: Refusal.SIGNATURE,
    manifest_without_signature: Refusal.SIGNATURE,
    manifest_with_a_tail: Refusal.SIGNATURE,
    manifest_with_a_changed_body: Refusal.BODY_HASH,
    manifest_with_a_field_in_front: Refusal.BODY_HASH,
    truncated_manifest: Refusal.MALFORMED,
    empty_manifest: Refusal.MALFORMED,
    login_page_for_manifest: Refusal.MALFORMED,
}


def by_name(defect: Callable[[World], None]) -> str:
    return defect.__name__


@pytest.mark.parametrize("defect", SERVED, ids=by_name)
async def test_what_a_server_sends_is_refused_for_its_exact_reason(
    defect: Callable[[World], None], world: World
) -> None:
    defect(world)
    reason = SERVED[defect]
    with Nginx(world.repository.document_root) as bad, Nginx(world.good_root) as good:
        client = world.client(bad.url)
        with pytest.raises(TrustError) as refusal:
            async with opened(client):
                pass
        assert refusal.value.reason is reason
        check_failure(client.run("ls", FQRN), "ls", 4, reason.value)
        # Nothing was kept of it, and a second server helps in any order.
        await world.check_everything(client.changed([bad.url, good.url]))


@pytest.mark.parametrize("defect", SERVED, ids=by_name)
async def test_what_was_used_before_stays_with_a_warning(defect: Callable[[World], None], world: World) -> None:
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        defect(world)
        async with opened(client) as repository:
            assert len(repository.warnings) == 1
            assert SERVED[defect].value in repository.warnings[0]
            assert await read_whole(repository) == describe(world.tree, NEWEST)


async def test_a_server_that_invents_a_certificate_is_left_for_another_one(world: World) -> None:
    """Whoever can make up a manifest can name a certificate that nobody has; that is no reason to give up."""
    world.repository.resign_manifest(X="0123456789" * 4, repository_key=RepositoryKey.generate(slot=1))
    with Nginx(world.repository.document_root) as bad, Nginx(world.good_root) as good:
        client = world.client(bad.url)
        done = client.run("ls", FQRN)
        check_failure(done, "ls", 5, f"certificate of {FQRN} does not exist on any server")
        await world.check_everything(client.changed([bad.url, good.url]))


# What the computer itself is told: no other server helps.


@dataclass(frozen=True)
class Local:
    """Parameters that are not the repository's own, and why nothing works with them."""

    reason: Refusal
    parameters: Callable[[World], dict[str, str]]


def write(world: World, name: str, data: bytes) -> str:
    path = world.directory / name
    path.write_bytes(data)
    return str(path)


def blacklist(world: World, line: str) -> dict[str, str]:
    return {"BLACKLIST": write(world, "blacklist", f"# refused\n{line}\n".encode())}


def fingerprint(world: World) -> str:
    return world.repository.repository_key.fingerprint()


LOCAL = {
    "foreign key": Local(
        Refusal.FOREIGN_KEY, lambda world: {"PUBLIC_KEY": write(world, "k.pub", MasterKey.generate(1).public_pem)}
    ),
    "blacklisted certificate": Local(
        Refusal.CERTIFICATE_BLACKLISTED, lambda world: blacklist(world, fingerprint(world) + "  # stolen")
    ),
    "blacklisted revision": Local(Refusal.REVISION_BLACKLISTED, lambda world: blacklist(world, f"<{FQRN} 2")),
}


@pytest.mark.parametrize("name", LOCAL)
async def test_what_the_computer_is_told_counts_for_every_server_and_every_command(name: str, world: World) -> None:
    local = LOCAL[name]
    with Nginx(world.good_root) as first, Nginx(world.good_root) as second:
        client = world.client(first.url, second.url)
        await world.check_everything(client)  # also with a warm cache
        client = client.changed(**local.parameters(world))
        with pytest.raises(TrustError) as refusal:
            async with opened(client):
                pass
        assert refusal.value.reason is local.reason
        for command in ("ls", "info", "verify"):
            check_failure(client.run(command, FQRN), command, 4, local.reason.value)
        for command in ("cat", "stat"):
            check_failure(client.run(command, f"{FQRN}:/file"), command, 4, local.reason.value)
        check_failure(client.run("cp", "-r", FQRN, "copy"), "cp", 4, local.reason.value)
        assert not (client.directory / "copy").exists()
        check_failure(client.run("cache", "pin", FQRN), "cache", 4, local.reason.value)
        if local.reason is not Refusal.REVISION_BLACKLISTED:  # tags tell of all revisions
            check_failure(client.run("tags", FQRN), "tags", 4, local.reason.value)


def test_without_any_key_nothing_is_asked_for(world: World) -> None:
    with Nginx(world.good_root) as web:
        done = world.client(web.url, PUBLIC_KEY="", KEYS_DIR=str(world.directory)).run("ls", FQRN)
        check_failure(done, "ls", 2, "no master key for")
        web.kill()
        assert web.log == []


async def test_the_blacklisted_revision_is_the_property_of_the_root_catalog(world: World) -> None:
    """Not the number in the manifest, whichever way they differ."""
    repository = world.repository
    repository.publish(world.tree, revision=5)
    repository.resign_manifest(S="100")
    with Nginx(repository.document_root) as web:
        refused = world.client(web.url, **blacklist(world, f"<{FQRN} 6"))
        with pytest.raises(TrustError, match="revision 5 of ") as refusal:
            async with opened(refused):
                pass
        assert refusal.value.reason is Refusal.REVISION_BLACKLISTED
        repository.resign_manifest(S="3")
        for lines in (f"<{FQRN} 5", f"<{FQRN} 6 ", "<other.example.org 900"):
            await world.check_everything(world.client(web.url, name=lines[:5], **blacklist(world, lines)))


@pytest.mark.parametrize("option", [("--tag", "v1"), ("--date", "2024-01-01")])
def test_a_pinned_revision_is_blacklisted_as_well(option: tuple[str, str], world: World) -> None:
    world.repository.publish(world.tree, tag="v2", timestamp_s=1_800_000_000)
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url, **blacklist(world, f"<{FQRN} 2"))
        assert client.run("ls", FQRN).code == 0
        check_failure(client.run("ls", *option, FQRN), "ls", 4, Refusal.REVISION_BLACKLISTED.value)


def test_a_pinned_root_hash_of_a_blacklisted_revision_is_refused(world: World) -> None:
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url, **blacklist(world, f"<{FQRN} 2"))
        done = client.run("ls", "--root-hash", str(world.repository.head.root_hash), FQRN)
        check_failure(done, "ls", 4, Refusal.REVISION_BLACKLISTED.value)


# Back in time


def older_by_revision(world: World) -> None:
    world.repository.serve(world.repository.revisions[0])


def older_by_time(world: World) -> None:
    """A higher revision number does not help."""
    head = world.repository.head
    world.repository.resign_manifest(T=str(head.timestamp_s - 1), S=str(head.number + 5))


def older_by_revision_but_later(world: World) -> None:
    head = world.repository.head
    world.repository.resign_manifest(T=str(head.timestamp_s + 999), S=str(head.number - 1))


@pytest.mark.parametrize("defect", [older_by_revision, older_by_time, older_by_revision_but_later], ids=by_name)
async def test_nothing_older_than_what_was_seen_is_accepted(defect: Callable[[World], None], world: World) -> None:
    """Neither by time nor by revision: the newer root stays while it is in the cache, else the older one is refused."""
    repository = world.repository
    world.tree = Directory({"file": File(b"the second revision")})
    repository.publish(world.tree)
    with Nginx(repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        defect(world)
        repository.drop(repository.head.root_hash, Kind.CATALOG)  # the server has really gone back

        async with opened(client) as kept:
            assert len(kept.warnings) == 1
            assert Refusal.OUTDATED.value in kept.warnings[0]
            assert "using revision 2 of" in kept.warnings[0]
            assert await read_whole(kept) == describe(world.tree, NEWEST)
        done = client.run("cat", f"{FQRN}:/file")
        assert (done.code, done.output, len(done.error_lines)) == (0, b"the second revision", 1), done

        second = world.directory / "second"
        shutil.copytree(client.cache, second)  # knows what was seen, and has nothing of it any more
        shutil.rmtree(second / "objects")
        forgetful = client.changed(PY_CACHE_DIR=str(second))
        with pytest.raises(TrustError) as refusal:
            async with opened(forgetful):
                pass
        assert refusal.value.reason is Refusal.OUTDATED
        check_failure(forgetful.run("ls", FQRN), "ls", 4, Refusal.OUTDATED.value)


async def test_a_new_cache_has_seen_nothing_and_takes_what_is_signed(world: World) -> None:
    first = world.tree
    world.repository.publish(Directory({"file": File(b"the second revision")}))
    older_by_revision(world)
    with Nginx(world.repository.document_root) as web:
        async with opened(world.client(web.url)) as repository:
            assert await read_whole(repository) == describe(first, NEWEST)


async def test_of_two_servers_the_one_that_is_up_to_date_is_used(world: World) -> None:
    with Nginx(world.good_root) as stale, Nginx(world.repository.document_root) as web:
        world.tree = Directory({"file": File(b"the second revision")})
        world.repository.publish(world.tree)
        client = world.client(web.url)
        await world.check_everything(client)
        await world.check_everything(client.changed([stale.url, web.url]))


async def test_another_root_under_the_same_number_is_not_taken(world: World) -> None:
    """Whoever signs two different roots as one revision does not get the second one shown."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        world.repository.publish(Directory({"file": File(b"another truth")}), revision=1)
        await world.check_everything(client)


async def test_a_replayed_root_with_a_huge_number_does_not_block_updates(world: World) -> None:
    """An unsigned manifest that names the known root must not raise what counts as newest."""
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        await world.check_everything(client)
        forged = manifest_bytes(world).replace(b"\nS1\n", b"\nS99\n")
        world.repository.replace_manifest(forged)
        await world.check_everything(client, warnings=1)
        world.tree = Directory({"file": File(b"the second revision")})
        world.repository.publish(world.tree)
        await world.check_everything(client)
