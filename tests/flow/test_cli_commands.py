"""Commands as users run them, where repositories are strange, incomplete or out of reach."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind, hash_bytes
from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import BindMountpoint, Directory, File, Special, Symlink

if TYPE_CHECKING:
    from pathlib import Path

FQRN = "test.example.org"
BIG = bytes(range(251)) * 5000


def strange() -> Directory:
    return Directory(
        {
            "big": File(BIG, chunk_sizes=40_000),
            "ancient": File(b"a", mtime_ns=-(2**63) * 10**9),
            "future": File(b"f", mtime_ns=(2**63 - 1) * 10**9 + 999_999_999),
            "device": Special("block", -1),
            "attributes": File(b"", xattrs={b"user.caf\xe9": b"\xff\n"}),
            b"caf\xe9": Symlink(b"\xff"),
            "lost": Directory({"x": File(b"x"), "deeper": Directory({}, nested=True)}, nested=True),
            "still": Directory({"here": File(b"h")}, nested=True),
            "hidden": Directory({"inside": Directory({"y": File(b"y")})}, hidden=True),
        }
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    head = repository.publish(strange(), tag="v1")
    repository.drop(head.catalog(b"/lost").content_hash, Kind.CATALOG)
    return repository


def client_of(repository: Repository, directory: Path, **parameters: str) -> Client:
    server = f"file://{repository.document_root}"
    return Client(directory, FQRN, [server], repository.master_public_key, **parameters)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Client:
    return client_of(repository, tmp_path_factory.mktemp("client"))


def test_a_listing_goes_on_behind_what_is_lost(client: Client) -> None:
    done = client.run("ls", "-R", FQRN)
    assert done.code == 5
    assert b"/still:\n.cvmfscatalog\nhere\n" in done.output
    assert b"/lost:" in done.output
    first, last = done.error_lines
    assert first.startswith("cvmfs-py: /lost cannot be listed: catalog of /lost does not exist on any server")
    assert last == "cvmfs-py ls: the listing is incomplete: 1 directory left out"
    paths = [json.loads(line)["path"] for line in client.run("ls", "-R", "--json", FQRN).output.splitlines()]
    assert "lost" in paths
    assert "still/here" in paths
    assert not any(path.startswith("lost/") for path in paths)


def test_a_listing_ends_when_the_network_is_lost(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repository", FQRN)
    repository.publish(Directory({f"n{number}": Directory({}, nested=True) for number in range(50)}))
    client = client_of(repository, tmp_path)
    assert client.run("ls", FQRN).code == 0
    with SlowServer(repository.document_root) as server:
        dead = [server.url]
    done = client.changed(dead).run("ls", "-R", FQRN)
    assert done.code == 5
    assert done.elapsed_s < 20
    assert len(done.error_lines) <= 6
    assert "connection refused" in done.error_lines[-1]


def test_hidden_entries_are_listed_when_asked_for(client: Client) -> None:
    paths = [json.loads(line)["path"] for line in client.run("ls", "-R", "-a", "--json", FQRN).output.splitlines()]
    assert {"hidden", "hidden/inside", "hidden/inside/y"} <= set(paths)
    paths = [json.loads(line)["path"] for line in client.run("ls", "-R", "--json", FQRN).output.splitlines()]
    assert not any(path.startswith("hidden") for path in paths)


def test_times_and_devices_that_nobody_has(client: Client) -> None:
    done = client.run("ls", "-l", FQRN)
    assert done.code == 0, done
    lines = {line.split()[-1]: line for line in done.output.decode("latin-1").splitlines()}
    assert f"second {-(2**63)}" in lines["ancient"]
    assert f"second {2**63 - 1}" in lines["future"]
    assert "4294967295, 4294967295" in lines["device"]
    done = client.run("stat", f"{FQRN}:/ancient", f"{FQRN}:/future", f"{FQRN}:/device")
    assert done.code == 0, done
    assert f"modified:      second {2**63 - 1}.999999999 UTC" in done.output.decode()
    assert "device:        4294967295:4294967295" in done.output.decode()
    (record,) = (json.loads(line) for line in client.run("ls", "-d", "--json", f"{FQRN}:/future").output.splitlines())
    assert record["mtime_ns"] == (2**63 - 1) * 10**9 + 999_999_999


def test_what_is_printed_is_what_is_stored(client: Client) -> None:
    done = client.run("stat", f"{FQRN}:/attributes")
    assert b"xattr user.caf\xe9: \xff\n\n" in done.output
    assert b"caf\xe9\n" in client.run("ls", FQRN).output
    assert b"caf\xe9 -> \xff\n" in client.run("ls", "-l", FQRN).output


def test_a_large_file_comes_whole_and_in_order(client: Client) -> None:
    done = client.run("cat", f"{FQRN}:/big", f"{FQRN}:/still/here")
    assert (done.code, done.errors) == (0, "")
    assert done.output == BIG + b"h"


def test_a_copy_that_is_not_complete_says_so(client: Client) -> None:
    done = client.run("cp", "-r", "-q", FQRN, "copy")
    assert done.code == 5
    assert any("/lost cannot be copied" in line for line in done.error_lines)
    assert done.error_lines[-1].startswith("cvmfs-py cp: ")
    assert (client.directory / "copy" / "big").read_bytes() == BIG
    shutil.rmtree(client.directory / "copy")
    done = client.run("cp", f"{FQRN}:/big", "new/")
    assert done.code == 5
    assert done.errors == "cvmfs-py cp: new/ is no directory\n"


def test_what_describes_a_repository_is_no_reason_to_fail(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repository", FQRN)
    repository.publish(Directory({}))
    text = repository.options.metainfo
    assert text is not None
    repository.drop(
        hash_bytes(repository.options.algorithm, zlib.compress(text, repository.options.level)), Kind.METAINFO
    )
    done = client_of(repository, tmp_path).run("info", "--json", FQRN)
    assert done.code == 0, done
    assert json.loads(done.output)["metainfo"] is None
    assert done.errors.startswith(f"cvmfs-py: the description of {FQRN} is left out: ")
    assert len(done.error_lines) == 1


def test_tags_are_verified_by_keys_whatever_root_is_configured(client: Client, repository: Repository) -> None:
    pinned = client.changed(ROOT_HASH=str(repository.head.root_hash))
    done = pinned.run("tags", "--json", FQRN)
    assert done.code == 0, done
    assert {tag["name"] for tag in json.loads(done.output)} == {"trunk", "v1"}
    assert pinned.run("info", FQRN).output.count(b"pinned by root hash") == 2


def test_pins_go_by_every_name_they_have(tmp_path: Path, repository: Repository) -> None:
    client = client_of(repository, tmp_path, DEFAULT_DOMAIN="example.org")
    names = [
        (f"{FQRN}:/still", [], f"{FQRN}:/still"),
        (f"{FQRN}@v1:/still", [], f"{FQRN}@v1:/still"),
        (f"{FQRN}:/still", ["--tag", "v1"], f"{FQRN}@v1:/still"),
        (
            f"{FQRN}:/still",
            ["--root-hash", str(repository.head.root_hash)],
            f"{FQRN}@{repository.head.root_hash}:/still",
        ),
    ]
    for target, options, _ in names:
        assert client.run("cache", "pin", "-q", target, *options).code == 0
    shown = client.run("cache", "status").output.decode()
    assert [shown.count(f"pin         {label}: ") for _, _, label in names] == [1, 1, 1, 1]
    for target, options, label in (names[0], names[2], names[3]):  # the second is called as the third
        assert client.run("cache", "unpin", target, *options).output.decode() == f"unpinned {label}\n"
        done = client.run("cache", "unpin", label)
        assert (done.code, done.output) == (2, b"")
        assert f"nothing is pinned as {label}" in done.errors
    assert client.run("cache", "pin", "-q", f"{FQRN}:/still").code == 0
    assert client.run("cache", "unpin", "test:still").output.decode() == f"unpinned {FQRN}:/still\n"


def test_a_snapshot_inside_a_repository_is_not_walked_into(tmp_path: Path) -> None:
    """It may hold itself, and never end."""
    repository = Repository.create(tmp_path / "repository", FQRN)
    first = repository.publish(Directory({"old": Directory({})}))
    repository.publish(Directory({"bound": BindMountpoint(first.root_hash, first.root_size_bytes)}))
    client = client_of(repository, tmp_path)
    for command in (["ls", "-R", FQRN], ["cp", "-r", "-q", FQRN, "copy"], ["verify", "-q", FQRN]):
        assert client.run(*command).code == 0
    assert os.listdir(tmp_path / "copy") == []
    assert client.run("ls", f"{FQRN}:/bound").output == b"old\n"
