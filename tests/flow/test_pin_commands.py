"""`cache pin`, `unpin` and `pins` as commands: several paths, lists, what does not fit, and what is not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from tests.simulator.command import Client, in_mount_namespace
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from pathlib import Path

FQRN = "test.example.org"
MIB = 1 << 20


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(tmp_path / "repository", FQRN)
    tree = {
        "a": Directory({"x": File(b"x"), "y": File(b"y")}),
        "b": Directory({"z": File(b"z")}, nested=True),
        b"caf\xff": File(b"c"),
        "large": Directory({f"f{number}": File(bytes([number]) * (MIB // 2)) for number in range(6)}),
    }
    repository.publish(Directory(tree), tag="v1")  # type: ignore[arg-type]
    return repository


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> Client:
    server = f"file://{repository.document_root}"
    return Client(tmp_path / "client", FQRN, [server], repository.master_public_key)


def pins_of(client: Client) -> dict[str, bool]:
    return {record["label"]: record["complete"] for record in json.loads(client.run("cache", "pins", "--json").output)}


def test_several_paths_and_a_list(client: Client) -> None:
    (client.directory / "list").write_bytes(
        b"# what the train needs\n\n%s:/b\r\n%s@v1:/a\n%s:/caf\xff\n" % ((FQRN.encode(),) * 3)
    )
    done = client.run("cache", "pin", f"{FQRN}:/a", "--from-file", "list")
    assert done.code == 0, done
    labels = {f"{FQRN}:/a", f"{FQRN}:/b", f"{FQRN}@v1:/a", f"{FQRN}:/caf\\xff"}
    assert {line.split(" ")[1] for line in done.error_lines} == {f"{label}:" for label in labels}
    assert pins_of(client) == dict.fromkeys(labels, True)
    assert client.run("cache", "pins").names == sorted(client.run("cache", "pins").names)
    done = client.run("cache", "unpin", f"{FQRN}:/a", "--from-file", "list")
    assert done.code == 0, done
    assert pins_of(client) == {}
    assert client.run("cache", "pins").errors == "nothing is pinned\n"


def test_those_that_are_right_are_pinned(client: Client, repository: Repository) -> None:
    ((lost, kind),) = repository.find_objects(b"/a/x")
    repository.drop(lost, kind)
    done = client.run("cache", "pin", f"{FQRN}:/a", f"{FQRN}:/absent", f"{FQRN}:/b")
    assert done.code == 5
    assert pins_of(client) == {f"{FQRN}:/a": False, f"{FQRN}:/b": True}
    pinned, absent, damaged, last = done.error_lines
    assert pinned.startswith(f"pinned {FQRN}:/b: ")
    assert absent == "cvmfs-py: /absent: there is no such file or directory in this snapshot"
    assert damaged.startswith("cvmfs-py: file /a/x does not exist on any server")
    assert last == "cvmfs-py cache: 2 failures; what is incomplete is tried again by the same command"
    done = client.run("cache", "unpin", f"{FQRN}:/b", f"{FQRN}:/none")
    assert (done.code, done.output) == (2, f"unpinned {FQRN}:/b\n".encode())
    assert done.error_lines == [
        f"cvmfs-py cache: nothing is pinned as {FQRN}:/none; `cvmfs-py cache pins` lists the pins"
    ]


def test_an_object_that_is_lost(client: Client, repository: Repository) -> None:
    ((lost, kind),) = repository.find_objects(b"/a/x")
    repository.drop(lost, kind)
    done = client.run("cache", "pin", f"{FQRN}:/a")
    (line,) = done.error_lines
    assert line.startswith("cvmfs-py cache: file /a/x does not exist on any server")
    assert line.endswith("; the pin is incomplete, and the same command tries the rest again")
    (line,) = client.run("cache", "pins").names
    assert line.startswith(f"{FQRN}:/a: incomplete, 2 of 3 objects, ")


def test_a_tree_that_cannot_be_listed(client: Client, repository: Repository) -> None:
    repository.drop(repository.head.catalog(b"/b").content_hash, Kind.CATALOG)
    assert client.run("cache", "pin", f"{FQRN}:/").code == 5
    (line,) = client.run("cache", "pins").names
    assert line == f"{FQRN}:/: incomplete, interrupted before it was listed; the same `cvmfs-py cache pin` goes on"


def test_what_was_removed_is_missed(client: Client, repository: Repository) -> None:
    client.run("cache", "pin", f"{FQRN}:/a")
    ((gone, _),) = repository.find_objects(b"/a/x")
    (client.cache / "objects" / str(gone)[:2] / str(gone)[2:]).unlink()
    assert pins_of(client) == {f"{FQRN}:/a": False}
    assert client.run("cache", "pin", f"{FQRN}:/a").code == 0
    assert pins_of(client) == {f"{FQRN}:/a": True}


def test_the_result_as_json(client: Client) -> None:
    done = client.run("cache", "pin", "--json", f"{FQRN}:/a")
    (record,) = json.loads(done.output)
    assert done.errors == ""
    assert (record["label"], record["complete"], record["objects"]) == (f"{FQRN}:/a", True, 3)


def test_more_than_the_limit_is_told_before(client: Client) -> None:
    small = client.changed(QUOTA_LIMIT="2")
    done = small.run("cache", "pin", f"{FQRN}:/large")
    assert done.code == 0
    warning, pinned = done.error_lines
    assert warning.startswith("cvmfs-py: 3.1 MiB are going to be pinned, and the limit of the cache is 2.0 MiB: ")
    assert warning.endswith("; raise CVMFS_QUOTA_LIMIT, or let go of a pin with `cvmfs-py cache unpin`")
    assert pinned.startswith("pinned ")
    done = small.run("cache", "pin", f"{FQRN}:/b")
    assert done.error_lines[0].startswith("cvmfs-py: 3.1 MiB are going to be pinned")


def test_a_disk_that_is_full_of_pins(client: Client) -> None:
    """All in one file system of its own, which is gone afterwards."""
    client.cache.mkdir(parents=True)
    steps = [
        ["cache", "pin", f"{FQRN}:/large"],
        ["cache", "pins"],
        ["cat", f"{FQRN}:/b/z"],
        ["mount", FQRN, str(client.directory / "mountpoint")],
    ]
    (client.directory / "mountpoint").mkdir()
    words = [client.command(*step) for step in steps]
    lines = [" ".join(f"'{word}'" for word in command) + ' || echo "code $?"' for command in words]
    filled = f"dd if=/dev/zero of={client.cache}/filler bs=4k status=none 2>/dev/null || :"
    lines.insert(2, filled)
    script = f"mount -t tmpfs -o size=2m tmpfs {client.cache}\n" + "\n".join(["exec 2>&1", *lines])
    done = client.start("cache", "status", wrapper=in_mount_namespace(script)).finish()
    lines = done.output.decode().splitlines()
    assert lines[0].startswith("cvmfs-py: 3.0 MiB are still to be fetched, and the disk of ")
    assert "code 5" in lines
    assert any(line.startswith(f"{FQRN}:/large: incomplete, ") for line in lines)
    for command in ("cache", "cat", "mount"):
        (failure,) = (line for line in lines if line.startswith(f"cvmfs-py {command}: "))
        assert "what is pinned there stays" in failure
        assert "`cvmfs-py cache unpin` lets go of it" in failure


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pin"], "pin what? Write REPO:PATH, for example sft.cern.ch@v1:/lcg/releases/ROOT, or give a list with"),
        (["unpin", "--from-file", "/dev/null"], "unpin what? Write REPO:PATH"),
        (["pin", "--from-file", "absent"], "cannot read the list absent: No such file or directory"),
        (["status", "a.b:/c"], "status is about the whole cache; leave out a.b:/c"),
        (["pins", "--from-file", "list"], "pins is about the whole cache; leave out --from-file"),
    ],
)
def test_wrong_usage(client: Client, arguments: list[str], words: str) -> None:
    client.cache.mkdir(parents=True, exist_ok=True)
    done = client.run("cache", *arguments)
    assert done.code == 2
    (line,) = done.error_lines
    assert line.startswith(f"cvmfs-py cache: {words}")
