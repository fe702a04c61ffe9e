"""find, du and diff as users run them: what they print, and how little they fetch for it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.cli.app import run
from tests.simulator.command import PROGRAM, Client, Finished
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File, Node, Symlink, hard_links

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FQRN = "test.example.org"
DAY_NS = 86_400 * 10**9
NESTED = 20


def tree(release: str, changed: bytes = b"") -> Directory:
    """Twenty releases with a catalog each, in which two more are nested."""

    def one(number: int) -> Directory:
        parts = {
            part: Directory({"data": File(changed if number == 7 and part == "lib" else b"d" * 100)}, nested=True)
            for part in ("bin", "lib")
        }
        return Directory({**parts, "readme": File(b"r" * 10)}, nested=True)

    lcg: dict[str, Node] = {f"r{number:02}": one(number) for number in range(NESTED)}
    same = Directory(hard_links(File(b"x" * 5000), "first", "second"))
    return Directory(
        {
            "lcg": Directory(lcg),
            "odd": Directory(
                {
                    "Tab\tand\nline.TXT": File(b"1"),
                    b"caf\xe9": File(b"", mtime_ns=10**18),
                    "caf\u00e9.txt": File(b"22"),
                    "star*": File(b"*"),
                    "link": Symlink("star*"),
                    "same": same,
                    "empty": Directory({}),
                }
            ),
            "release": File(release.encode()),
        }
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    repository.publish(tree("1", b"d" * 100), tag="v1")
    repository.publish(tree("22", b"e" * 50), tag="v2")
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[SlowServer]:
    with SlowServer(repository.document_root) as server:
        yield server


class InProcess:
    """Runs commands of a client in this process, which is faster than twenty times to start one."""

    def __init__(self, client: Client, capture: pytest.CaptureFixture[bytes]) -> None:
        self.client = client
        self._capture = capture

    def run(self, *words: str) -> Finished:
        self._capture.readouterr()
        try:
            code: object = run(self.client.command(*words)[len(PROGRAM) :])
        except SystemExit as end:
            code = end.code
        output, errors = self._capture.readouterr()
        assert isinstance(code, int)
        return Finished(code, output, errors.decode(), 0.0)


@pytest.fixture
def client(
    tmp_path: Path, repository: Repository, server: SlowServer, capsysbinary: pytest.CaptureFixture[bytes]
) -> InProcess:
    return InProcess(Client(tmp_path, FQRN, [server.url], repository.master_public_key), capsysbinary)


@pytest.fixture
def warm(warm_client: Client, capsysbinary: pytest.CaptureFixture[bytes]) -> InProcess:
    return InProcess(warm_client, capsysbinary)


@pytest.fixture(scope="module")
def warm_client(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Client:
    """With everything in its cache, and no server any more."""
    place = tmp_path_factory.mktemp("warm")
    with SlowServer(repository.document_root) as server:
        client = Client(place, FQRN, [server.url], repository.master_public_key)
        for tag in ("v1", "v2"):
            assert client.run("find", f"{FQRN}@{tag}").code == 0
        assert client.run("find", FQRN).code == 0
    return client


def catalogs(server: SlowServer) -> int:
    assert not [path for path in server.counted() if "/data/" in path and path[-1] not in "CXHM"], "a file was fetched"
    return sum(path.endswith("C") for path in server.counted())


def printed(client: InProcess, *words: str) -> list[bytes]:
    done = client.run(*words)
    assert done.code == 0, done
    return done.output.split(b"\n")[:-1]


# --- find


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((":/odd", "-name", "caf*"), {b"/odd/caf\xe9", "/odd/caf\u00e9.txt".encode()}),
        ((":/odd", "-name", "caf?.txt"), {"/odd/caf\u00e9.txt".encode()}),
        ((":/odd", "-iname", "*.txt", "-type", "f", "-size", "1c"), {b"/odd/Tab\tand", b"line.TXT"}),
        ((":/odd", "--name=star\\*"), {b"/odd/star*"}),
        ((":/odd", "-name", "link", "-name", "[^a-rt-z]*r\\*"), {b"/odd/link", b"/odd/star*"}),
        ((":/odd", "-type", "l"), {b"/odd/link"}),
        ((":/odd", "-type", "d,l", "-maxdepth", "1"), {b"/odd", b"/odd/link", b"/odd/same", b"/odd/empty"}),
        ((":/odd", "-mindepth", "2"), {b"/odd/same/first", b"/odd/same/second"}),
        ((":/odd", "-size", "+1k", "-size", "-6k", "-type", "f"), {b"/odd/same/first", b"/odd/same/second"}),
        ((":/odd", "-size", "-1", "-type", "f"), {b"/odd/caf\xe9"}),
        ((":/odd", "-type", "f", "-mtime", "+1", "-newermt", "2021-01-01"), set()),
        ((":/odd", "-path", "*same/f*"), {b"/odd/same/first"}),
        ((":/odd/link",), {b"/odd/star*"}),
        (("", "-maxdepth", "0"), {b"/"}),
        (("", "-name", "data", "-path", "/odd"), {b"/odd"} | {
            b"/lcg/r%02d/%s/data" % (number, part) for number in range(NESTED) for part in (b"bin", b"lib")
        }),
    ],
)  # fmt: skip
def test_find_knows_the_words_of_find(warm: InProcess, words: tuple[str, ...], found: set[bytes]) -> None:
    target, *rest = words
    assert set(printed(warm, "find", f"{FQRN}@v1{target}", *rest)) == found


def test_find_prints_for_programs(warm: InProcess) -> None:
    done = warm.run("find", f"{FQRN}@v1:/odd", "-iname", "*.TXT", "-print0")
    assert done.output == b"/odd/Tab\tand\nline.TXT\0" + "/odd/caf\u00e9.txt".encode() + b"\0"
    (line,) = printed(warm, "find", "--json", f"{FQRN}@v1", "-name", "first")
    assert json.loads(line)["path"] == "odd/same/first"
    assert json.loads(line)["size"] == 5000


def test_find_compares_times_with_a_file_here(warm: InProcess) -> None:
    place = warm.client.directory / "stamp"
    place.touch()
    os.utime(place, ns=(10**18, 1_599_999_999 * 10**9))
    assert b"/odd/star*" in printed(warm, "find", f"{FQRN}@v1:/odd", "-newer", str(place))
    assert b"/odd/caf\xe9" not in printed(warm, "find", f"{FQRN}@v1:/odd", "-newer", str(place))


@pytest.mark.parametrize(
    "words",
    [
        ("-size", "big"),
        ("-size",),
        ("-type", "x"),
        ("-mtime", "soon"),
        ("-maxdepth", "-1"),
        ("-newer", "nowhere"),
        ("-newermt", "yesterday"),
    ],
)
def test_what_find_does_not_understand(warm: InProcess, words: tuple[str, ...]) -> None:
    done = warm.run("find", FQRN, *words)
    assert (done.code, done.output, len(done.error_lines)) == (2, b"", 1)
    assert words[0] in done.errors


def test_find_goes_no_deeper_than_it_was_told(client: InProcess, server: SlowServer) -> None:
    assert len(printed(client, "find", FQRN, "-maxdepth", "2", "-type", "d")) == 5 + NESTED
    assert catalogs(server) == 1
    printed(client, "find", FQRN, "-maxdepth", "3")
    assert catalogs(server) == 1 + NESTED
    printed(client, "find", f"{FQRN}@v2:/lcg/r07")
    assert catalogs(server) == 1 + NESTED + 2


def test_a_reader_that_has_seen_enough_ends_it(warm: InProcess) -> None:
    client = warm.client
    words = client.command("find", f"{FQRN}@v1")
    with subprocess.Popen(words, cwd=client.directory, env=client.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0


def test_find_and_du_go_on_behind_what_is_lost(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repository", FQRN)
    lost = Directory({"x": File(b"x")}, nested=True)
    head = repository.publish(Directory({"lost": lost, "still": Directory({"here": File(b"12345")})}))
    repository.drop(head.catalog(b"/lost").content_hash, Kind.CATALOG)
    client = Client(tmp_path, FQRN, [f"file://{repository.document_root}"], repository.master_public_key)
    done = client.run("find", FQRN)
    assert (done.code, done.output) == (5, b"/\n/lost\n/still\n/still/here\n")
    assert done.error_lines[-1] == "cvmfs-py find: the search is incomplete: 1 directory left out"
    done = client.run("du", "-b", FQRN)
    assert (done.code, done.output) == (5, b"0\t/lost\n5\t/still\n5\t/\n")
    assert done.error_lines[-1] == "cvmfs-py du: the sizes are incomplete: 1 directory left out"


# --- du


def test_du_counts_a_file_with_several_names_once(warm: InProcess) -> None:
    assert printed(warm, "du", "-b", f"{FQRN}@v1:/odd") == [b"0\t/odd/empty", b"5000\t/odd/same", b"5004\t/odd"]
    assert printed(warm, "du", f"{FQRN}@v1:/odd") == [b"0\t/odd/empty", b"5\t/odd/same", b"5\t/odd"]
    assert printed(warm, "du", "-ah", f"{FQRN}@v1:/odd/same") == [
        b"4.9K\t/odd/same/first",
        b"0\t/odd/same/second",
        b"4.9K\t/odd/same",
    ]
    assert printed(warm, "du", "-b", f"{FQRN}@v1:/odd/star*", f"{FQRN}@v2:/release") == [
        b"1\t/odd/star*",
        b"2\t/release",
    ]


def test_du_believes_what_catalogs_count(client: InProcess, server: SlowServer) -> None:
    everything = NESTED * 210 + 10_000 + 4 + 1
    assert printed(client, "du", "-sb", f"{FQRN}@v1") == [b"%d\t/" % everything]
    assert catalogs(server) == 1
    lines = printed(client, "du", "-b", "--max-depth=2", f"{FQRN}@v1:/lcg")
    assert lines[-1] == b"%d\t/lcg" % (NESTED * 210)
    assert len(lines) == 1 + NESTED * 3
    assert catalogs(server) == 1 + NESTED * 3


def test_du_fetches_only_what_it_shows(client: InProcess, server: SlowServer) -> None:
    lines = printed(client, "du", "-b", "-d", "1", f"{FQRN}@v1:/lcg")
    assert lines == [b"210\t/lcg/r%02d" % number for number in range(NESTED)] + [b"%d\t/lcg" % (NESTED * 210)]
    assert catalogs(server) == 1 + NESTED
    assert printed(client, "du", "-sb", f"{FQRN}@v1:/lcg/r03/bin") == [b"100\t/lcg/r03/bin"]
    assert catalogs(server) == 1 + NESTED + 1


def test_du_tells_what_it_has_counted(warm: InProcess) -> None:
    believed, counted = (
        json.loads(printed(warm, "du", "--json", "-s", *more, f"{FQRN}@v1")[0]) for more in ((), ("--exact",))
    )
    markers = NESTED * 3
    assert counted == {
        "path": "",
        "size_bytes": NESTED * 210 + 5000 + 4 + 1,
        "files": NESTED * 3 + 6 + 1 + markers,
        "directories": 5 + NESTED * 3,
        "links": 1,
        "exact": True,
    }
    assert believed == counted | {"size_bytes": counted["size_bytes"] + 5000, "exact": False}


# --- diff


def test_diff_tells_what_changed(warm: InProcess) -> None:
    words = [f"{FQRN}@v1", f"{FQRN}@v2"]
    assert printed(warm, "diff", *words) == [b"M /release", b"M /lcg/r07/lib/data"]
    assert printed(warm, "diff", *words, ":/lcg") == [b"M /lcg/r07/lib/data"]
    assert printed(warm, "diff", f"{FQRN}@v2", f"{FQRN}@v1:/lcg/r07/lib/data") == [b"M /lcg/r07/lib/data"]
    assert printed(warm, "diff", *words, ":/odd") == []
    assert printed(warm, "diff", *words, "--stat") == [
        b"0 added, 0 deleted, 2 modified, 0 entries with other attributes; 52 B came, 101 B went"
    ]
    assert [json.loads(line) for line in printed(warm, "diff", "--json", *words)] == [
        {"change": "M", "path": "release"},
        {"change": "M", "path": "lcg/r07/lib/data"},
    ]
    assert json.loads(warm.run("diff", "--json", "--stat", *words).output)["removed_bytes"] == 101


def test_diff_fetches_only_what_differs(client: InProcess, server: SlowServer) -> None:
    assert printed(client, "diff", f"{FQRN}@v1", f"{FQRN}@v2") == [b"M /release", b"M /lcg/r07/lib/data"]
    assert catalogs(server) == 2 * 3  # the two roots, those of the release, those of its part


def test_diff_from_a_snapshot_to_the_newest(warm: InProcess, repository: Repository) -> None:
    root_hash = str(repository.revisions[0].root_hash)
    expected = [b"M /release", b"M /lcg/r07/lib/data"]
    for words in (
        (f"{FQRN}@v1",),
        (f"{FQRN}@v1", FQRN),
        (f"{FQRN}@v1", f"{FQRN}@HEAD"),
        (f"{FQRN}@{root_hash}", f"{FQRN}@v2"),
        ("--tag", "v1", FQRN),
        ("--root-hash", root_hash, FQRN),
    ):
        assert set(warm.run("diff", *words).output.split(b"\n")[:-1]) == set(expected), words


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((FQRN,), 2, "the two snapshots are the same"),
        ((f"{FQRN}@v1", f"{FQRN}@v1"), 2, "the two snapshots are the same"),
        ((f"{FQRN}@v1:/a", f"{FQRN}@v2:/b"), 2, "the path must be the same"),
        ((f"{FQRN}@v1", f"{FQRN}@v2", "/lcg"), 2, "write a path in the repository as :/PATH"),
        ((f"{FQRN}@v1", "--tag", "v2"), 2, "exclude one another"),
        ((f"{FQRN}@v1", f"{FQRN}@none"), 2, "none"),
        ((f"{FQRN}@v1", f"{FQRN}@v2", ":/nowhere"), 5, "/nowhere is in neither of the two snapshots"),
    ],
)
def test_what_diff_does_not_understand(warm: InProcess, words: tuple[str, ...], code: int, text: str) -> None:
    done = warm.run("diff", *words)
    assert (done.code, done.output) == (code, b"")
    assert text in done.error_lines[-1]


def test_diff_of_directories_that_came_and_went(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    repository = Repository.create(tmp_path / "repository", FQRN)
    some: dict[str, Node] = {"a": File(b"a"), "sub": Directory({"b": File(b"b")}, nested=True)}
    repository.publish(
        Directory({"gone": Directory(some, nested=True), "turns": Directory(some), "z": File(b"")}), "v1"
    )
    repository.publish(Directory({"come": Directory(some, nested=True), "turns": File(b"t"), "z": File(b"")}), "v2")
    client = Client(tmp_path, FQRN, [f"file://{repository.document_root}"], repository.master_public_key)
    told = printed(InProcess(client, capsysbinary), "diff", f"{FQRN}@v1", f"{FQRN}@v2")
    below = [b"", b"/.cvmfscatalog", b"/a", b"/sub", b"/sub/.cvmfscatalog", b"/sub/b"]
    assert set(told) == {
        *(b"D /gone" + each for each in below),
        *(b"A /come" + each for each in below),
        b"M /turns",
        b"D /turns/a",
        b"D /turns/sub",
        b"D /turns/sub/.cvmfscatalog",
        b"D /turns/sub/b",
    }
    paths = [line[2:] for line in told]
    assert all(path.rpartition(b"/")[0] in (b"", *paths[:place]) for place, path in enumerate(paths))
