"""Catalogs that are correctly signed and nevertheless hostile: errors that say where, and nothing written elsewhere.

Every case goes through every command that could stumble over it, in this process, so that there may be many.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cache.address import Kind
from cvmfs_py.cli.app import run
from tests.faults.tampering_world import FQRN, World, check_failure
from tests.simulator.catalogs import hash_path
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, Symlink
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

HUGE = 1 << 62
DIRECTORY, REGULAR, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
COLUMNS = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name, symlink,"
    " uid, gid, xattr"
)
# Tables without keys take what real ones do not.
KEYLESS = (
    "CREATE TABLE other AS SELECT * FROM catalog",
    "DROP TABLE catalog",
    "ALTER TABLE other RENAME TO catalog",
)


def quoted(data: bytes) -> str:
    return f"CAST(x'{data.hex()}' AS TEXT)"


def row(path: bytes, name: bytes | None = None, *, mode: int = REGULAR, link: bytes = b"", parent: bytes = b"") -> str:
    """An entry stored under a path; name and parent may be others than the path's own."""
    own_parent, _, own_name = path.rpartition(b"/")
    keys = (*hash_path(path), *hash_path(parent or own_parent))
    flags = {DIRECTORY: 1, LINK: 12}.get(mode, 4)
    content = f"(SELECT hash FROM catalog WHERE name = {quoted(b'file')} LIMIT 1)" if mode == REGULAR else "NULL"
    size = "4" if mode == REGULAR else "0"
    shown = quoted(own_name if name is None else name)
    values = f"{keys[0]}, {keys[1]}, {keys[2]}, {keys[3]}, 1, {content}, {size}, {mode}, 1, NULL, {flags}, {shown}"
    return f"INSERT INTO catalog ({COLUMNS}) VALUES ({values}, {quoted(link)}, 0, 0, NULL)"


def change(path: bytes, **columns: object) -> str:
    first, second = hash_path(path)
    settings = ", ".join(f"{name} = {value}" for name, value in columns.items())
    return f"UPDATE catalog SET {settings} WHERE md5path_1 = {first} AND md5path_2 = {second}"


def set_property(key: str, value: object) -> str:
    return f"INSERT OR REPLACE INTO properties VALUES ('{key}', '{value}')"


def tree() -> Directory:
    bad = Directory(
        {
            "a": File(b"aaaa"),
            "dir": Directory({"planted": File(b"planted")}),
            "link": Symlink("a"),
            "chunked": File(b"0123456789", chunk_sizes=5),
        }
    )
    return Directory({"bad": bad, "good": Directory({"file": File(b"good")}), "nested": Directory({}, nested=True)})


def hostile_names(victim: str) -> dict[str, list[str]]:
    names = [b"..", b".", b"", b"a/b", b"../../escaped", b"/tmp/escaped", b"a\0b", b"../good/file"]
    cases = {f"a file named {name!r}": [row(b"/bad/" + name, name)] for name in names}
    cases |= {f"a directory named {name!r}": [row(b"/bad/" + name, name, mode=DIRECTORY)] for name in names[:6]}
    target = victim.encode()
    cases["a file under the key of another name"] = [row(b"/bad/x", b"y")]
    cases["two files of one name"] = [*KEYLESS, row(b"/bad/dup"), row(b"/bad/dup")]
    cases["a link and a directory of one name"] = [*KEYLESS, row(b"/bad/dir", mode=LINK, link=target)]
    cases["a directory and a link of one name"] = [
        *KEYLESS,
        row(b"/bad/x", mode=LINK, link=target),
        row(b"/bad/x", mode=DIRECTORY),
        row(b"/bad/x/planted"),
    ]
    cases["a link with entries below"] = [row(b"/bad/x", mode=LINK, link=target), row(b"/bad/x/planted")]
    cases["a link in the place of a directory"] = [change(b"/bad/dir", mode=LINK, flags=12, symlink=quoted(target))]
    cases["a directory that contains itself"] = [row(b"/bad/loop", mode=DIRECTORY, parent=b"/bad/loop")]
    cases["a directory in two places"] = [row(b"/bad/loop", b"dir", mode=DIRECTORY, parent=b"/bad")]
    cases["the root below itself"] = [*KEYLESS, row(b"", b"bad", mode=DIRECTORY, parent=b"/bad")]
    cases["a root without a directory"] = ["DELETE FROM catalog WHERE parent_1 = 0 AND parent_2 = 0"]
    return cases


def hostile_values() -> dict[str, list[str]]:
    cases = {}
    values: dict[str, list[object]] = {
        "size": [HUGE, -1, "'many'", "x'00'", "NULL", 1e300],
        "mtime": [HUGE, -HUGE, "(1 << 63) - 1", "'never'", "NULL"],
        "mtimens": [HUGE, -1, "'x'"],
        "mode": [0, "'rw'", HUGE, stat.S_IFREG | 0o7777, stat.S_IFSOCK, 0o030000],
        "hardlinks": [HUGE, "(1 << 63) - 1", -1, 0, "NULL"],
        "flags": [HUGE, -1, 0, 4 | 7 << 8, 4 | 6 << 11, 64, 128, 2, 0x4000],
        "uid": [-1, 1 << 32, (1 << 32) - 1, "'root'"],
        "hash": ["NULL", "x''", "x'00'", "zeroblob(20)", "zeroblob(100000)", "'text'"],
        "name": ["NULL", "5", "zeroblob(10)"],
        "symlink": ["NULL", "zeroblob(100000)", "5"],
        "xattr": ["x'01ff'", "x'02'", "x'0101'", "'text'", "zeroblob(100000)", "x'0101050161622e6263ff'"],
    }
    for column, each in values.items():
        for value in each:
            cases[f"{column} of a file is {value}"] = [*KEYLESS, change(b"/bad/a", **{column: value})]
    for column in ("size", "mtime"):
        for path in (b"/bad", b"/bad/link", b""):
            cases[f"{column} of {path!r} is huge"] = [change(path, **{column: HUGE})]
    for size in (HUGE, -1, -HUGE):
        cases[f"a device number is {size}"] = [change(b"/bad/a", mode=stat.S_IFCHR | 0o600, flags=20, size=size)]
    cases["a link to nothing"] = [change(b"/bad/link", symlink="''")]
    cases["a link of a megabyte"] = [change(b"/bad/link", symlink="printf('%.1000000c', 'x')")]
    cases["a link with a hundred variables"] = [change(b"/bad/link", symlink=quoted(b"$(A:-b)" * 100))]
    cases["a link with open variables"] = [change(b"/bad/link", symlink=quoted(b"$(" * 1000))]
    return cases


def hostile_tables() -> dict[str, list[str]]:
    first, second = hash_path(b"/bad/chunked")
    mine = f"WHERE md5path_1 = {first} AND md5path_2 = {second}"
    cases = {
        "no chunks": [f"DELETE FROM chunks {mine}"],
        "a gap between chunks": [f"UPDATE chunks SET offset = offset + 1 {mine} AND offset > 0"],
        "huge chunks": [f"UPDATE chunks SET size = {HUGE} {mine}"],
        "a huge chunked file": [
            change(b"/bad/chunked", size=HUGE),
            f"UPDATE chunks SET size = {HUGE - 5} {mine} AND offset > 0",
        ],
        "negative chunks": [f"UPDATE chunks SET offset = -5 {mine} AND offset > 0"],
        "chunks of text": [f"UPDATE chunks SET hash = 'hash' {mine}"],
        "no chunk table": ["DROP TABLE chunks"],
        "no statistics": ["DROP TABLE statistics"],
        "false statistics": ["UPDATE statistics SET value = -1"],
        "huge statistics": [f"UPDATE statistics SET value = {HUGE}"],
        "statistics of text": ["UPDATE statistics SET value = 'many'"],
        "no catalog table": ["DROP TABLE catalog"],
        "a view for a catalog": ["ALTER TABLE catalog RENAME TO x", "CREATE VIEW catalog AS SELECT * FROM x"],
        "no properties": ["DROP TABLE properties"],
        "an unknown schema": [set_property("schema", "9.9")],
        "a schema that is no number": [set_property("schema", "new")],
        "the root of something else": [set_property("root_prefix", "/elsewhere")],
        "a root prefix with dots": [set_property("root_prefix", "/../..")],
        "no nested table": ["DROP TABLE nested_catalogs"],
    }
    for key in ("revision", "TTL", "last_modified", "schema_revision"):
        for value in (HUGE, 1 << 70, -1, "text", ""):
            cases[f"property {key} is {value!r}"] = [set_property(key, value)]
    nested: dict[str, tuple[str, object]] = {
        "with a hash of text": ("sha1", "'hash'"),
        "without a hash": ("sha1", "''"),
        "with a missing catalog": ("sha1", f"'{'01' * 20}'"),
        "with a path of dots": ("path", "'/nested/../bad'"),
        "with a relative path": ("path", "'nested'"),
        "at the root": ("path", "''"),
        "at a file": ("path", "'/good/file'"),
        "at a link": ("path", "'/bad/link'"),
        "of a huge size": ("size", HUGE),
        "of a negative size": ("size", -1),
        "with a path of text that is none": ("path", "zeroblob(10)"),
    }
    for name, (column, value) in nested.items():
        cases[f"nested {name}"] = [f"UPDATE nested_catalogs SET {column} = {value}"]
    cases["nested twice"] = ["INSERT INTO bind_mountpoints SELECT * FROM nested_catalogs"]
    cases["nested that is nowhere"] = ["INSERT INTO nested_catalogs SELECT '/none', sha1, size FROM nested_catalogs"]
    return cases


@dataclass
class Machine:
    """A directory to run commands in, and one beside it in which nothing may happen."""

    here: Path
    victim: Path
    repository: Repository
    capture: pytest.CaptureFixture[bytes]

    def tell(self, *arguments: str) -> tuple[int, bytes, list[str]]:
        repository = self.repository
        options = [f"--key={repository.master_public_key}", f"--server=file://{repository.document_root}"]
        options += ["--config", "", "-oCVMFS_HTTP_PROXY=DIRECT", f"--cache-dir={self.here.parents[1] / 'cache'}"]
        self.capture.readouterr()
        code = run([*arguments[:1], *options, *arguments[1:]])
        output, errors = self.capture.readouterr()
        return code, output, errors.decode().splitlines()

    def check(self, *arguments: str, codes: tuple[int, ...] = (0, 5)) -> tuple[int, bytes]:
        """Whatever happens: it is told in one line, and it is not a defect of the program."""
        code, output, lines = self.tell(*arguments)
        assert code in codes, lines
        warnings = lines[:-1] if code else lines
        assert all(line.startswith("cvmfs-py: ") for line in warnings), lines
        if code:
            assert lines[-1].startswith(f"cvmfs-py {arguments[0]}: "), lines
        assert not [line for line in lines if "internal error" in line or "Traceback" in line], lines
        assert all(len(line) < 5000 for line in lines), lines
        return code, output

    def check_every_command(self) -> None:
        before = snapshot(self.victim)
        around = set(os.listdir(self.here.parent))
        for options in (("-R", "-l"), ("-R", "-a", "--json")):
            self.check("ls", *options, FQRN)
        for path in ("/bad/a", "/bad/link", "/nested"):
            self.check("stat", "-L", f"{FQRN}:{path}")
        for path in ("/bad/a", "/bad/chunked"):
            self.check(
                "cat", f"{FQRN}:{path}", codes=(0, 2, 5)
            )  # 2: it is said to be external, of which nothing is set
        self.check("info", FQRN)
        self.check("verify", "--data", "-q", FQRN)
        self.check("cp", "-a", "-q", "-j", "2", FQRN, "copy")
        assert set(os.listdir(self.here)) <= {"copy", ".copy.cvmfs-py-copy"}
        check_inside(self.here / "copy")
        assert set(os.listdir(self.here.parent)) == around
        assert snapshot(self.victim) == before


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def check_inside(copy: Path) -> None:
    """Nothing in a copy but what belongs there, and no content that came through a link."""
    known = {
        "bad",
        "good",
        "nested",
        "a",
        "dir",
        "link",
        "chunked",
        "planted",
        "file",
        "x",
        "y",
        "dup",
        ".cvmfscatalog",
    }
    for _, directories, files in os.walk(copy):
        assert {*directories, *files} <= known


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Machine]:
    here, victim = tmp_path / "around" / "here", tmp_path / "around" / "victim"
    here.mkdir(parents=True)
    victim.mkdir()
    (victim / "precious").write_bytes(b"mine")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield Machine(here, victim, Repository.create(tmp_path / "repository", FQRN), capsysbinary)
    root.handlers[:], root.level = before
    for name in ("cvmfs_py", "cache", "catalog", "cvmfs_py.network"):
        logging.getLogger(name).setLevel(logging.NOTSET)


NAMES = hostile_names("VICTIM")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_links_lead_nowhere_else(name: str, machine: Machine) -> None:
    machine.repository.publish(tree(), catalog_sql={b"": hostile_names(str(machine.victim))[name]})
    machine.check_every_command()


VALUES = hostile_values()


@pytest.mark.parametrize("name", VALUES)
def test_values_that_cannot_be_are_errors_of_their_entry(name: str, machine: Machine) -> None:
    machine.repository.publish(tree(), catalog_sql={b"": VALUES[name]})
    machine.check_every_command()
    code, output = machine.check("cat", f"{FQRN}:/good/file")  # what is beside it can be read
    assert (code, output) == (0, b"good")


TABLES = hostile_tables()


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_cannot_be_are_errors_of_their_catalog(name: str, machine: Machine) -> None:
    machine.repository.publish(tree(), catalog_sql={b"": TABLES[name]})
    machine.check_every_command()


FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a text": lambda data: b"this is not a database\n" * 100,
    "truncated": lambda data: data[: len(data) // 2],
    "only a header": lambda data: data[:100],
    "of another encoding": lambda data: data[:56] + b"\0\0\0\2" + data[60:],
    "with a journal": lambda data: data[:18] + b"\2\2" + data[20:],
    "of zeros behind": lambda data: data[:4096] + bytes(len(data) - 4096),
    "shuffled": lambda data: data[:4096] + data[:3:-1][: len(data) - 4096],
}


@pytest.mark.parametrize("at", [b"", b"/nested"])
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_catalogs(name: str, at: bytes, machine: Machine) -> None:
    machine.repository.publish(tree(), catalog_bytes={at: FILES[name]})
    machine.check_every_command()
    if at:
        code, output = machine.check("cat", f"{FQRN}:/good/file")
        assert (code, output) == (0, b"good")
    elif name != "with a journal":  # which is not looked at
        assert machine.check("ls", FQRN)[0] == 5


def test_a_nested_catalog_that_is_another_one(machine: Machine) -> None:
    """A root catalog, which would begin the tree again below; its own hash it cannot know."""
    first = machine.repository.publish(tree())
    machine.repository.publish(tree(), catalog_sql={b"": [f"UPDATE nested_catalogs SET sha1 = '{first.root_hash}'"]})
    machine.check_every_command()
    code, _, lines = machine.tell("ls", f"{FQRN}:/nested")
    assert code == 5
    assert "was made for /" in lines[0]


def test_a_nested_catalog_that_is_a_file(machine: Machine) -> None:
    stored = machine.repository.objects.put(b"just a text\n", Kind.CATALOG).content_hash
    machine.repository.publish(tree(), catalog_sql={b"": [f"UPDATE nested_catalogs SET sha1 = '{stored}'"]})
    machine.check_every_command()
    assert machine.check("ls", f"{FQRN}:/nested")[0] == 5


def test_5000_levels(tmp_path: Path) -> None:
    """Deeper than any path that a program could use: it is told as far as the kernel can follow."""
    world = World(tmp_path / "world")
    deep = Directory({"end": File(b"the end")})
    statements = [row(b"/d" * level, mode=DIRECTORY) for level in range(1, 5001)]
    world.repository.publish(Directory({"file": File(b"good"), "e": deep}), catalog_sql={b"": statements})
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        listed = client.run("ls", "-R", FQRN)
        assert (listed.code, listed.errors) == (0, ""), listed.errors
        assert listed.output.count(b":\n") == 5002
        assert client.run("ls", "-d", f"{FQRN}:{'/d' * 5000}").code == 0
        verified = client.run("verify", FQRN)
        check_failure(verified, "verify", 5, warnings=1)
        assert "counts 2 as dir, but has 5002" in verified.errors
        try:
            copied = client.run("cp", "-r", "-q", FQRN, "copy", wrapper=["sh", "-c", 'ulimit -n 500; exec "$@"', "sh"])
            check_failure(copied, "cp", 5, os.strerror(errno.EMFILE))
        finally:
            remove_deep(client.directory / "copy")


def remove_deep(top: Path) -> None:
    """Python's own way is recursive."""
    subprocess.run(["rm", "-rf", top], check=True)


def test_catalogs_nested_in_each_other_without_end(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    deep = Directory({"end": File(b"the end")})
    for _ in range(300):
        deep = Directory({"d": deep}, nested=True, marker=False)
    world.repository.publish(Directory({"file": File(b"good"), "d": deep}))
    with Nginx(world.repository.document_root) as web:
        client = world.client(web.url)
        done = client.run("ls", f"{FQRN}:{'/d' * 301}")
        check_failure(done, "ls", 5, "is nested more than 256 levels deep")
        listed = client.run("ls", "-R", FQRN)
        check_failure(listed, "ls", 5, warnings=1)
        assert "is nested more than 256 levels deep" in listed.errors
        assert client.run("cat", f"{FQRN}:/file").output == b"good"
