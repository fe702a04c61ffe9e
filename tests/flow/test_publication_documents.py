"""What is signed beside the contents: whitelists that expire, and the description of a repository."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.errors import ConfigError, PublishError, TrustError, UsageError
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.whitelisting import resign
from tests.simulator.publisher import FQRN, OwnRepository, seen_on_disk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    return OwnRepository(tmp_path)


# --- whitelists


async def test_an_expired_whitelist_stops_clients_and_not_the_publisher(own: OwnRepository) -> None:
    own.publish({"f": b"before"})
    own.sign_whitelist(expires_s=int(time.time()) - 86400)
    with own.open() as publication:
        (warning,) = publication.warnings
        assert "has expired" in warning
        assert "repo resign" in warning
    own.publish({"f": b"after"})
    with pytest.raises(TrustError, match="expired"):
        await own.verify()
    whitelist = resign(own.storage, 5)
    assert 4 * 86400 < whitelist.expires_s - time.time() <= 5 * 86400
    assert await own.see() == seen_on_disk(own.directory / "source")
    with own.open() as publication:
        (warning,) = publication.warnings
        assert "expires soon" in warning


@pytest.mark.parametrize("damaged", [b"", b"no whitelist", None])
async def test_a_lost_whitelist_is_signed_anew(own: OwnRepository, damaged: bytes | None) -> None:
    own.publish({"f": b"x"})
    file = own.storage / ".cvmfswhitelist"
    if damaged is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    with pytest.raises((TrustError, PublishError), match=r"whitelist"):
        own.open()
    resign(own.storage)
    assert await own.verify() == 2


async def test_without_the_master_key_the_whitelist_stays(own: OwnRepository) -> None:
    before = own.documents()
    (own.place.keys_directory / f"{FQRN}.masterkey").rename(own.directory / "safe")
    with pytest.raises(ConfigError, match="the master key"):
        resign(own.storage)
    with pytest.raises(UsageError, match="0 days"):
        resign(own.storage, 0)
    assert own.documents() == before
    own.publish({"f": b"goes on"})
    assert await own.verify() == 2


async def test_a_new_repository_key_takes_over_with_the_next_publication(own: OwnRepository) -> None:
    own.publish({"f": b"old key"})
    new = PublisherKeys.create(own.directory / "new", FQRN)
    for name in (f"{FQRN}.key", f"{FQRN}.crt"):
        (new.directory / name).replace(own.place.keys_directory / name)
    with pytest.raises(PublishError, match=r"is not on the whitelist.*repo resign"):
        own.open()
    assert len(resign(own.storage).fingerprints) == 2
    assert await own.verify() == 2  # signed with the old key, which the whitelist still has
    own.publish({"f": b"new key"})
    assert len(resign(own.storage).fingerprints) == 1
    assert await own.verify() == 3
    async with own.client() as repository:
        trusted = repository.root.trusted
        assert trusted is not None
        assert trusted.certificate == new.certificate


# --- the description


async def metainfo_of(own: OwnRepository) -> bytes:
    async with own.client() as repository:
        trusted = repository.root.trusted
        assert trusted is not None
        ref = trusted.manifest.metainfo_ref
        assert ref is not None
        (pin,) = await repository.pin((ref,))
        with pin:
            return pin.read()


async def test_the_description_stays_over_publications(own: OwnRepository) -> None:
    text = json.dumps({"administrator": "Ärger", "custom": {"a": [1, 2]}}).encode()
    with own.open() as publication:
        publication.set_metainfo(text)
    assert await metainfo_of(own) == text
    own.publish({"f": b"x"}, tag="v1")
    own.publish({"f": b"y"})
    with own.open() as publication:
        publication.roll_back()
        publication.add_tag("v2")
    assert await metainfo_of(own) == text
    other = b'{"email": "me@example.org"}'
    with own.open() as publication:
        publication.set_metainfo(other)
    assert await metainfo_of(own) == other
    assert await own.verify() == 4


def test_the_same_description_changes_nothing(own: OwnRepository) -> None:
    for _ in range(2):
        with own.open() as publication:
            publication.set_metainfo(b"{}")
        documents, objects = own.documents(), own.objects()
    with own.open() as publication:
        publication.set_metainfo(b"{}")
    assert (own.documents(), own.objects()) == (documents, objects)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b'{"a": "\xff"}', "no JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "clients read at most"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_description_is_refused(own: OwnRepository, content: bytes, message: str) -> None:
    before = own.documents(), own.objects()
    with own.open() as publication, pytest.raises(PublishError, match=message):
        publication.set_metainfo(content)
    assert (own.documents(), own.objects()) == before


def test_a_long_description_is_told(own: OwnRepository) -> None:
    with own.open() as publication:
        hash_of_it = publication.set_metainfo(b'{"a": "' + b"x" * 70000 + b'"}')
        assert "only the first 65536 bytes" in publication.warnings[0]
        assert publication.storage.has(hash_of_it, Kind.METAINFO)
