"""The fixture repository through `cvmfs-py` equals what the reference client showed of it, online and offline.

Listings are compared with everything that the reference told of a path, copies with what it was like below its mount.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.compat.zoo_goldens import (
    FQRN,
    GOLDENS,
    KEY,
    ROOT_HASHES,
    ZOO,
    Golden,
    differences_of_copy,
    differences_of_listing,
    make_document_root,
    put_manifest,
)
from tests.rights import why_not
from tests.simulator.command import Client, Finished
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")
as_root = pytest.mark.needs("device files")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(make_document_root(tmp_path / "www")) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, web: Nginx) -> Client:
    return make_client(tmp_path, web)


def make_client(directory: Path, web: Nginx) -> Client:
    client = Client(directory, FQRN, [web.url], KEY, EXTERNAL_URL=web.url)
    client.environment["ZOO_SET"] = "zoo-value"
    return client


def requested(web: Nginx) -> list[str]:
    """Every path that was asked for. The server has to end before, so that no line is still on its way."""
    web.kill()
    return [line.split(" ")[2] for line in web.log]


def pin(name: str) -> tuple[str, ...]:
    return () if name == "head-r7" else ("--tag", name)


def check_listing(client: Client, golden: Golden, *options: str, warnings: int = 0) -> Finished:
    done = client.run("ls", "-R", "--json", *options, FQRN)
    assert (done.code, len(done.error_lines)) == (0, warnings), done
    assert not differences_of_listing(done.output, golden)
    return done


def check_copy(client: Client, golden: Golden, destination: str, *options: str, warnings: int = 0) -> None:
    if why_not("device files"):
        return
    done = client.run("cp", "-a", "-q", *options, FQRN, destination)
    assert (done.code, len(done.error_lines)) == (0, warnings), done
    assert not differences_of_copy(client.directory / destination, golden)


@pytest.mark.parametrize("name", GOLDENS)
def test_a_revision_is_what_the_reference_shows_from_an_empty_cache_and_offline_from_a_full_one(
    name: str, client: Client, web: Nginx
) -> None:
    golden = Golden(name)
    check_listing(client, golden, *pin(name))
    check_copy(client, golden, "cold", *pin(name))
    web.kill()
    offline = check_listing(client, golden, *pin(name), warnings=1)
    assert "using revision 7 of zoo.test.org" in offline.errors
    assert "no server offers a better one" in offline.errors
    if name in ("head-r7", "v4-external"):
        check_copy(client, golden, "offline", *pin(name), warnings=1)


@as_root
def test_a_copy_fetches_from_an_empty_cache_what_it_needs(client: Client, web: Nginx) -> None:
    """Without a listing before, which would have fetched the catalogs."""
    check_copy(client, Golden("head-r7"), "copy")
    paths = requested(web)
    assert len(paths) == len(set(paths)) + count_of_ranges(paths)


def count_of_ranges(paths: list[str]) -> int:
    """Chunks of an external file are parts of one path."""
    external = [path for path in paths if path.startswith("/external/")]
    return len(external) - len(set(external))


@pytest.mark.parametrize("name", GOLDENS)
def test_a_root_hash_needs_no_signed_files(name: str, client: Client, web: Nginx) -> None:
    golden = Golden(name)
    options = ("--root-hash", ROOT_HASHES[name])
    check_listing(client, golden, *options)
    if name == "v1":
        check_copy(client, golden, "cold", *options)
    paths = requested(web)
    prefix = f"/cvmfs/{FQRN}/data/"
    assert {path for path in paths if path.startswith("/cvmfs")} == {path for path in paths if path.startswith(prefix)}
    assert f"{prefix}{ROOT_HASHES[name][:2]}/{ROOT_HASHES[name][2:]}C" in paths
    assert not any(path.endswith(("X", "H")) for path in paths)
    check_listing(client, golden, *options)  # the server is gone, and nobody needs to be warned
    if name == "v1":
        check_copy(client, golden, "offline", *options)


def test_a_root_hash_needs_no_keys(client: Client) -> None:
    without_key = client.changed(PUBLIC_KEY="/nonexistent/key.pub")
    check_listing(without_key, Golden("v2"), "--root-hash", ROOT_HASHES["v2"])


DATES = [
    ("2026-11-20T17:43:52Z", "v1"),  # to the second
    ("2026-11-20T17:43:53Z", "v1"),
    ("2026-11-20T17:43:54Z", "v2"),
    ("2026-11-20T17:43:56Z", "v3-plain"),
    ("2026-11-20T17:43:58Z", "v4-external"),
]


@pytest.mark.parametrize(("date", "name"), DATES)
def test_a_date_is_the_newest_tag_that_is_not_younger(date: str, name: str, client: Client, web: Nginx) -> None:
    golden = Golden(name)
    check_listing(client, golden, "--date", date)
    web.kill()
    check_listing(client, golden, "--date", date, warnings=1)


def test_a_date_after_all_tags_is_the_last_of_them(client: Client) -> None:
    """The head has no tag: it is one revision further, with hard links."""
    done = client.run("info", "--json", "--date", "2030-01-01", FQRN)
    assert done.code == 0, done
    assert json.loads(done.output)["root_hash"] == ROOT_HASHES["r6"]


def test_a_date_before_all_tags_is_refused(client: Client) -> None:
    done = client.run("ls", "--date", "2020-01-01", FQRN)
    assert (done.code, done.output) == (2, b"")
    assert len(done.error_lines) == 1
    assert done.errors.startswith("cvmfs-py ls: zoo.test.org has no tagged snapshot as early as 2020-01-01 00:00 UTC")


NAMES = {2: "v1", 3: "v2", 4: "v3-plain", 5: "v4-external", 6: "r6", 7: "head-r7"}


def golden_of(number: int) -> Golden:
    if number != 6:
        return Golden(NAMES[number])
    # Not recorded, but known: the head is this revision and the hard links.
    golden = Golden("head-r7")
    golden.hardlinks = []
    golden.records = {path: record for path, record in golden.records.items() if is_of_both(path)}
    for record in golden.records.values():
        asked = record.get("asked", {})
        asked.pop("user.catalog_counters", None)
    return golden


def is_of_both(path: str) -> bool:
    return path != "" and path != "hard" and not path.startswith("hard/")


def test_every_manifest_in_place_gives_its_revision_to_one_client(client: Client, web: Nginx, tmp_path: Path) -> None:
    """One after the other to the same client, as time goes by; what is older again is not taken any more."""
    for number, name in NAMES.items():
        put_manifest(tmp_path / "www", manifest_of(number))
        done = client.run("ls", "-R", "--json", FQRN)
        assert (done.code, done.errors) == (0, ""), done
        lines = [line for line in done.output.splitlines() if number != 6 or is_of_both(json.loads(line)["path"])]
        assert not differences_of_listing(b"\n".join(lines), golden_of(number)), name
        check_revision(client, number)
    put_manifest(tmp_path / "www", manifest_of(6))
    check_listing(client, Golden("head-r7"), warnings=1)


@pytest.mark.parametrize("number", NAMES)
def test_every_manifest_in_place_gives_its_revision_to_a_new_client(number: int, web: Nginx, tmp_path: Path) -> None:
    put_manifest(tmp_path / "www", manifest_of(number))
    client = make_client(tmp_path / "new", web)
    check_revision(client, number)
    if number != 6:
        check_listing(client, golden_of(number))


def check_revision(client: Client, number: int) -> None:
    done = client.run("info", "--json", FQRN)
    assert (done.code, done.errors) == (0, ""), done
    shown = json.loads(done.output)
    assert (shown["revision"], shown["root_hash"]) == (number, ROOT_HASHES[NAMES[number]])
    if number != 6:
        assert shown["counters"] == golden_of(number).counters


def manifest_of(number: int) -> Path:
    return ZOO / "manifests" / f"r{number}.cvmfspublished"


def test_everything_can_be_verified(client: Client, web: Nginx) -> None:
    """Every row, counter and object: of the head, and of the oldest tag."""
    for options in ((), ("--tag", "v1")):
        done = client.run("verify", "--data", "--json", *options, FQRN)
        assert (done.code, done.errors) == (0, ""), done
        report = json.loads(done.output)
        assert (report["signed"], report["problems"]) == (True, [])
        assert report["objects"] > 100
