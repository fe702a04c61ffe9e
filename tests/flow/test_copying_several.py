"""`cp` of several sources and of patterns, as cp in a shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from pathlib import Path

FQRN, OTHER = "test.example.org", "other.example.org"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    lib = {
        "a.so": File(b"a"),
        "b.so": File(b"b"),
        ".hidden.so": File(b"h"),
        "c.so.1": File(b"c"),
        b"caf\xc3\xa9.so": File(b"utf-8"),
        b"bad\xff.so": File(b"bytes"),
        "link.so": Symlink("a.so"),
        "[x].so": File(b"brackets"),
    }
    tree = {
        "lib": Directory(lib, nested=True),
        "one": Directory({"bin": Directory({"run": File(b"1")}), "same": File(b"first")}),
        "two": Directory({"bin": Directory({"run": File(b"2")}), "same": File(b"second")}),
        "link": Symlink("lib"),
    }
    repository.publish(Directory(tree), tag="v1")  # type: ignore[arg-type]
    return repository


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> Client:
    (tmp_path / "out").mkdir()
    return Client(tmp_path, FQRN, [f"file://{repository.document_root}"], repository.master_public_key)


def copied(client: Client) -> list[bytes]:
    return sorted(os.listdir(os.fsencode(client.directory / "out")))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("/lib/*.so", [b"[x].so", b"a.so", b"b.so", b"bad\xff.so", b"caf\xc3\xa9.so", b"link.so"]),
        ("/lib/?.so", [b"a.so", b"b.so"]),
        ("/lib/caf?.so", [b"caf\xc3\xa9.so"]),
        (os.fsdecode(b"/lib/b*\xff.so"), [b"bad\xff.so"]),
        ("/lib/[ab].so", [b"a.so", b"b.so"]),
        ("/lib/[^a].so", [b"b.so"]),
        ("/lib/[x].so", [b"[x].so"]),  # what exists is meant itself
        ("/lib/.*.so", [b".hidden.so"]),
        ("/on[e]/s*", [b"same"]),
        ("/l?nk/a.so", [b"a.so"]),
        ("/o*/../two/s*", [b"same"]),
    ],
)
def test_patterns(client: Client, pattern: str, names: list[bytes]) -> None:
    client.directory.joinpath("out", "c.so.1").write_bytes(b"older")
    done = client.run("cp", f"{FQRN}:/lib/c.so.1", f"{FQRN}:{pattern}", "out")
    assert done.code == 0, done
    assert copied(client) == sorted({*names, b"c.so.1"})
    assert client.directory.joinpath("out", "c.so.1").read_bytes() == b"c"


def test_several_files_and_trees_of_snapshots(client: Client) -> None:
    done = client.run("cp", "-r", f"{FQRN}:/lib/a.so", f"{FQRN}@v1:/one/bin", f"{FQRN}:/link", "out")
    assert done.code == 0, done
    assert copied(client) == [b"a.so", b"bin", b"link"]
    assert (client.directory / "out" / "bin" / "run").read_bytes() == b"1"
    assert (client.directory / "out" / "link" / "c.so.1").read_bytes() == b"c"
    (summary,) = done.error_lines
    assert summary.startswith("10 files, 2 directories, 1 link, ")
    assert not [name for name in os.listdir(client.directory / "out") if name.endswith("-copy")]


def test_one_match_may_be_a_file_by_another_name(client: Client) -> None:
    done = client.run("cp", f"{FQRN}:/one/s?me", "renamed")
    assert done.code == 0, done
    assert (client.directory / "renamed").read_bytes() == b"first"


@pytest.mark.parametrize(
    ("targets", "code", "words"),
    [
        (["/lib/a.so", "/lib/b.so"], 2, "nowhere is no directory, and 2 copies need one: make it first"),
        (["/lib/?.so"], 2, "nowhere is no directory, and 2 copies need one: make it first"),
        (["/nix/*"], 5, "nothing in test.example.org matches /nix/*"),
        (["/lib/a.so/*"], 5, "nothing in test.example.org matches /lib/a.so/*"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(client: Client, targets: list[str], code: int, words: str) -> None:
    done = client.run("cp", *(f"{FQRN}:{target}" for target in targets), "nowhere")
    assert (done.code, done.error_lines) == (code, [f"cvmfs-py cp: {words}"])
    assert not (client.directory / "nowhere").exists()


def test_the_others_are_copied_where_one_is_wrong(client: Client) -> None:
    targets = ["/none/*", "/one/bin", "/absent", "/one/same", "/two/same", "/lib/a.so"]
    done = client.run("cp", *(f"{FQRN}:{target}" for target in targets), "out")
    assert done.code == 5
    assert copied(client) == [b"a.so", b"same"]
    assert (client.directory / "out" / "same").read_bytes() == b"first"
    *lines, last = done.error_lines
    assert set(lines) == {
        "cvmfs-py: /absent: there is no such file or directory in this snapshot",
        "cvmfs-py: /one/bin is a directory; add -r to copy it with all below",
        f"cvmfs-py: {FQRN}:/two/same would take the place of the copy of {FQRN}:/one/same: copy it to another"
        " directory",
        "cvmfs-py: nothing in test.example.org matches /none/*",
    }
    assert last.startswith("cvmfs-py cp: 4 entries could not be copied, 2 files could")


def test_repositories_of_which_one_is_out_of_reach(client: Client, repository: Repository) -> None:
    done = client.run(
        "cp", f"file:///nowhere/{OTHER}:/x", f"file://{repository.document_root}/cvmfs/{FQRN}:/lib/a.so", "out"
    )
    assert done.code == 5
    assert copied(client) == [b"a.so"]
    assert done.error_lines[0].startswith("cvmfs-py cp: ")
