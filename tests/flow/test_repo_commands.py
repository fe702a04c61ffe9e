"""The commands of who publishes: what they print, what they refuse, and that what they made is what was asked for."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cvmfs_py.cli.app import run
from cvmfs_py.cli.repo import ACTIONS
from tests.simulator.publisher import write_tree

if TYPE_CHECKING:
    from collections.abc import Callable

FQRN = "commands.test.org"
TREE = {"readme": b"hello\n", "app/v1/.cvmfscatalog": b"", "app/v1/tool": b"#!/bin/sh\n", "app/v2/tool": b"2"}


class Shell:
    """Runs commands in this process and keeps what they print."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.directory = directory
        self.storage = directory / "repository"
        self.key = directory / "repository.keys" / f"{FQRN}.pub"
        self._capture = capture

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        """What a command prints; it must end with this code, and say nothing else when that is 0."""
        output, errors = self.both(*words, code=code)
        assert errors == ""
        return output

    def both(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        self._capture.readouterr()
        try:
            found = run(["repo", *map(str, words)])
        except SystemExit as end:
            found = end.code  # type: ignore[assignment]
        output, errors = self._capture.readouterr()
        assert found == code, errors.decode()
        return output.decode(), errors.decode()

    def fails(self, *words: str | Path, code: int = 5) -> str:
        """The one line with which a command fails."""
        output, errors = self.both(*words, code=code)
        assert output == ""
        assert errors.count("\n") == 1
        return errors

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words, "--json"))

    def reads(self, *words: str) -> str:
        """What another command prints of the repository, served from its directory."""
        self._capture.readouterr()
        (self.directory / "none.conf").touch()
        options = [
            "-o",
            f"CVMFS_PUBLIC_KEY={self.key}",
            "-o",
            "CVMFS_HTTP_PROXY=DIRECT",
            "--config",
            str(self.directory / "none.conf"),
        ]
        options += ["--cache-dir", str(self.directory / "cache"), "-o", f"CVMFS_SERVER_URL=file://{self.storage}"]
        assert run([words[0], *options, *words[1:]]) == 0
        return self._capture.readouterr().out.decode()


@pytest.fixture
def shell(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(tmp_path, capsysbinary)


@pytest.fixture
def made(shell: Shell) -> Shell:
    shell("init", FQRN, "--storage", shell.storage)
    return shell


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", TREE)
    return tmp_path / "tree"


# --- init


def test_init_tells_what_comes_next(shell: Shell) -> None:
    lines = shell("init", FQRN, "--storage", shell.storage).splitlines()
    assert lines == [
        f"made {FQRN}; its private keys, of which you need a copy, are in {shell.storage}.keys",
        f"clients need  {shell.key}",
        f"publish with  cvmfs-py repo publish {shell.storage} --from TREE",
        f"serve it by   cvmfs-py serve {shell.storage}",
    ]
    assert shell.key.exists()


def test_init_takes_every_option(shell: Shell, tmp_path: Path) -> None:
    words = "--algorithm shake128 --compression zstd --ttl 60 --volatile --no-garbage-collectable"
    words += " --chunk-sizes 1M,2M,3.5M --auto-catalogs 1000 --alternative-paths --whitelist-days 7"
    told = shell.json("init", FQRN, "--storage", shell.storage, "--keys-dir", tmp_path / "k", *words.split())
    assert told == {
        "fqrn": FQRN,
        "storage": str(shell.storage),
        "keys": str(tmp_path / "k"),
        "public_key": str(tmp_path / "k" / f"{FQRN}.pub"),
    }
    assert json.loads((tmp_path / "k" / f"{FQRN}.conf").read_text()) == {
        "format": 1,
        "fqrn": FQRN,
        "algorithm": "shake128",
        "compression": "zstd",
        "ttl_s": 60,
        "is_volatile": True,
        "is_garbage_collectable": False,
        "chunk_min_bytes": 1 << 20,
        "chunk_average_bytes": 2 << 20,
        "chunk_max_bytes": 7 << 19,
        "auto_catalog_entries": 1000,
        "has_alternative_paths": True,
    }


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([FQRN], 2, "required: --storage"),
        (["nodot", "--storage", "x"], 2, "'nodot' has no domain: give the full name, for example nodot.example.org"),
        (["a/b.c", "--storage", "x"], 2, "invalid repository name"),
        ([FQRN, "--storage", "x", "--algorithm", "md5"], 2, "there is no hash algorithm 'md5': use sha1, rmd160"),
        ([FQRN, "--storage", "x", "--compression", "lz4"], 2, "there is no compression 'lz4': use zlib, none, zstd"),
        ([FQRN, "--storage", "x", "--chunk-sizes", "1M,2M"], 2, "write three sizes"),
        ([FQRN, "--storage", "x", "--chunk-sizes", "4M,2M,8M"], 2, "must rise"),
        ([FQRN, "--storage", "x", "--ttl", "0"], 2, "makes no sense"),
        ([FQRN, "--storage", "x", "--whitelist-days", "0"], 2, "cannot be valid for 0 days"),
        ([FQRN, "--storage", "x", "--keys-dir", "x/keys"], 2, "the keys must not be in"),
        ([FQRN, "--storage", "/proc/self/x"], 5, "cannot be made"),
    ],
)
def test_init_refuses(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in shell.fails("init", *words, code=code)
    assert list(tmp_path.iterdir()) == []


def test_everybody_can_read_what_is_published(shell: Shell, tree: Path) -> None:
    """Whatever the publisher's umask is, the web server is somebody else; keys stay private."""
    before = os.umask(0o077)
    try:
        shell("init", FQRN, "--storage", shell.storage)
        shell("publish", shell.storage, "--from", tree, "-q")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    for path in [shell.storage, *shell.storage.rglob("*")]:
        mode = path.stat().st_mode
        assert mode & 0o044 == 0o044, path
        assert path.is_file() or mode & 0o011 == 0o011, path
    keys = shell.key.parent
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(keys.joinpath(f"{FQRN}.{kind}").stat().st_mode) for kind in ("key", "masterkey")} == {0o600}


# --- publish


def test_publish_says_what_it_did(made: Shell, tree: Path) -> None:
    first, second = made("publish", made.storage, "--from", tree, "--tag", "v1", "-m", "the first").splitlines()
    assert first.startswith(f"published revision 2 of {FQRN} (v1), root ")
    assert second.startswith("8 entries read, 8 changed, 0 removed; 4 files with 17 B made 4 new objects of ")
    first, second = made("publish", made.storage, "--from", tree).splitlines()
    assert first == (
        f"nothing changed: revision 2 of {FQRN} stays, no new one was published (--force publishes all the same)"
    )
    assert second.startswith("8 entries read, 0 changed, 0 removed; 0 files with 0 B made 0 new objects of 0 B; ")
    assert "v1 " in made.reads("tags", FQRN)
    assert made.reads("cat", f"{FQRN}:/readme") == "hello\n"


def test_publish_as_json(made: Shell, tree: Path) -> None:
    before_s = int(time.time())
    told = made.json("publish", made.storage, "--from", tree, "--at", "deep/down")
    assert told.pop("elapsed_s") > 0
    assert before_s <= told.pop("timestamp") <= time.time()
    assert told.pop("tags")[0].startswith("generic-")
    assert told.pop("stored_bytes") > 0
    assert len(told.pop("root_hash")) == 40
    assert told.pop("root_catalog_size") % 512 == 0
    assert told.pop("date").endswith("Z")
    assert told == {
        "fqrn": FQRN,
        "published": True,
        "revision": 2,
        "entries": 8,
        "files": 4,
        "changed": 8,
        "removed": 0,
        "packed_files": 4,
        "packed_bytes": 17,
        "compared_files": 0,
        "compared_bytes": 0,
        "new_objects": 4,
    }
    told = made.json("publish", made.storage, "--from", tree, "--at", "deep/down")
    assert (told["published"], told["revision"], told["tags"]) == (False, 2, [])


def test_publish_at_a_path_leaves_the_rest(made: Shell, tree: Path) -> None:
    made("publish", made.storage, "--from", tree, "-q")
    write_tree(made.directory / "v3", {"tool": b"3", "lib/a": b"a"})
    made("publish", made.storage, "--from", made.directory / "v3", "--at", "/app/v3", "--delete", "/app/v1", "-q")
    listed = made.reads("ls", "-R", "-a", "--json", f"{FQRN}:/").splitlines()
    paths = sorted(json.loads(line)["path"] for line in listed)
    assert paths == [
        "",
        "app",
        "app/v2",
        "app/v2/tool",
        "app/v3",
        "app/v3/lib",
        "app/v3/lib/a",
        "app/v3/tool",
        "readme",
    ]


def test_publish_by_checksum_sees_what_times_hide(made: Shell, tree: Path) -> None:
    made("publish", made.storage, "--from", tree, "-q")
    status = (tree / "readme").stat()
    (tree / "readme").write_bytes(b"HELLO\n")
    os.utime(tree / "readme", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert made("publish", made.storage, "--from", tree).startswith("nothing changed")
    assert made("publish", made.storage, "--from", tree, "--checksum").startswith("published revision 3")
    assert made.reads("cat", f"{FQRN}:/readme") == "HELLO\n"


def test_publish_leaves_alone_what_is_excluded(made: Shell, tree: Path) -> None:
    made("publish", made.storage, "--from", tree, "--exclude", "v2", "--exclude", "readme", "-q")
    listed = made.reads("ls", "-R", "-a", f"{FQRN}:/")
    assert "readme" not in listed
    assert "v2" not in listed
    assert "v1" in listed


def test_publish_without_storing(made: Shell, tree: Path) -> None:
    """External files: clients get them from other servers, as they are there."""
    objects = set((made.storage / "data").rglob("*"))
    told = made.json("publish", made.storage, "--from", tree, "--external")
    assert told["stored_bytes"] == 0
    new = {path.name[-1] for path in set((made.storage / "data").rglob("*")) - objects if path.is_file()}
    assert new == {"C", "H"}
    external = json.loads(made.reads("stat", "--json", f"{FQRN}:/readme"))
    assert "external" in json.dumps(external)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "what is to be published? Give --from TREE or --delete PATH"),
        (["--from", "nowhere"], 5, "nowhere cannot be read: No such file"),
        (["--delete", "/nowhere"], 5, "there is no /nowhere to delete: nothing was published"),
        (["--delete", "/"], 5, "the root directory cannot be removed"),
        (["--from", "tree", "--at", "/a/../b"], 2, "leave out '..'"),
        (["--from", "tree", "-m", "text"], 2, "--message describes a tag"),
        (["--from", "tree", "--tag", "a b"], 2, "'a b' cannot name a tag"),
        (["--from", "tree", "--tag", "trunk"], 2, "choose another name"),
        (["--from", "tree", "--tag", "taken"], 5, "there is a tag taken already"),
        (["--from", "tree", "--jobs", "0"], 2, "0 processes cannot compress"),
        (["--from", "tree", "--compression", "lz4"], 2, "there is no compression 'lz4'"),
    ],
)
def test_publish_refuses(
    made: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    made("tag", "add", made.storage, "taken")
    monkeypatch.chdir(tree.parent)
    before = (made.storage / ".cvmfspublished").read_bytes()
    assert message in made.fails("publish", made.storage, *words, code=code)
    assert (made.storage / ".cvmfspublished").read_bytes() == before
    assert list((made.storage / "data" / "txn").iterdir()) == []


# --- ingest


def archive_of(tree: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_ingest_from_a_file_and_a_pipe(made: Shell, tmp_path: Path) -> None:
    (tmp_path / "first.tar.gz").write_bytes(archive_of({"bin/tool": b"tool", "etc/conf": b"conf"}))
    said = made("ingest", made.storage, "--tar", tmp_path / "first.tar.gz", "--at", "/image", "--tag", "v1")
    assert said.startswith(f"published revision 2 of {FQRN} (v1)")
    layer = archive_of({"bin/.wh.tool": b"", "bin/other": b"other"})
    command = [sys.executable, "-m", "cvmfs_py", "repo", "ingest", str(made.storage), "--tar", "-", "--at", "image"]
    top = Path(__file__).parents[2]
    done = subprocess.run([*command, "--oci-layer", "--json"], cwd=top, input=layer, capture_output=True, check=True)
    assert done.stderr == b""
    assert json.loads(done.stdout)["revision"] == 3
    assert made.reads("ls", f"{FQRN}:/image/bin").split() == ["other"]
    assert made.reads("cat", f"{FQRN}:/image/etc/conf") == "conf"
    assert made.reads("ls", f"{FQRN}@v1:/image/bin").split() == ["tool"]


def test_ingest_refuses_what_is_no_archive(made: Shell, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no archive. " * 100)
    before = (made.storage / ".cvmfspublished").read_bytes()
    assert "is no complete tar archive" in made.fails("ingest", made.storage, "--tar", tmp_path / "text", "--at", "/x")
    assert "No such file" in made.fails("ingest", made.storage, "--tar", tmp_path / "nothing", "--at", "/x")
    made.fails("ingest", made.storage, "--tar", tmp_path / "text", code=2)
    assert (made.storage / ".cvmfspublished").read_bytes() == before


# --- tags, roll-back, whitelist, description


def test_tag(made: Shell, tree: Path) -> None:
    made("publish", made.storage, "--from", tree, "--tag", "v1", "-q")
    made("publish", made.storage, "--delete", "/readme", "-q")
    said = made("tag", "add", made.storage, "old", "-m", "as it was", "--of", "v1")
    assert said.startswith(f"old is revision 2 of {FQRN}, root ")
    assert made("tag", "add", made.storage, "new").startswith(f"new is revision 3 of {FQRN}")
    assert made("tag", "remove", made.storage, "v1", "new") == f"removed 2 tags from {FQRN}\n"
    tags = {tag["name"]: tag for tag in made.json("tag", "list", made.storage)}
    assert (tags["old"]["revision"], tags["old"]["description"]) == (2, "as it was")
    assert not {"v1", "new"} & tags.keys()
    assert made("tag", "list", made.storage) == made.reads("tags", FQRN)
    added = made.json("tag", "add", made.storage, "again", "--of", "old")
    assert (added["fqrn"], added["added"]["name"], added["added"]["revision"]) == (FQRN, "again", 2)
    assert made.json("tag", "remove", made.storage, "again", "old") == {"fqrn": FQRN, "removed": ["again", "old"]}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["add"], 2, "which tag? Give its name"),
        (["remove"], 2, "which tag? Give its name"),
        (["add", "a", "b"], 2, "one name at a time"),
        (["list", "a"], 2, "leave out the names"),
        (["remove", "a"], 5, "there is no tag a"),
        (["remove", "trunk"], 2, "is moved by every publication"),
        (["add", "a", "--of", "b"], 5, "there is no tag b"),
        (["show"], 2, "'show'"),
    ],
)
def test_tag_refuses(made: Shell, words: list[str], code: int, message: str) -> None:
    action, *names = words
    assert message in made.fails("tag", action, made.storage, *names, code=code)


def test_rollback(made: Shell, tree: Path) -> None:
    made("publish", made.storage, "--from", tree, "--tag", "v1", "-q")
    made("publish", made.storage, "--delete", "/readme", "--tag", "v2", "-q")
    said = made("rollback", made.storage)
    assert said.startswith(f"published revision 4 of {FQRN} (generic-")
    assert said.endswith(": the contents of trunk-previous\n")
    assert made.reads("cat", f"{FQRN}:/readme") == "hello\n"
    told = made.json("rollback", made.storage, "--tag", "v2", "--drop-later", "--no-auto-tag")
    assert (told["revision"], told["contents_of"], told["tags"], told["published"]) == (5, "v2", [], True)
    assert "readme" not in made.reads("ls", f"{FQRN}:/")
    assert "there is no tag v7" in made.fails("rollback", made.storage, "--tag", "v7")


def test_resign(made: Shell) -> None:
    said = made("resign", made.storage)
    assert said.startswith(f"the whitelist of {FQRN} is valid until ")
    told = made.json("resign", made.storage, "--days", "2")
    assert 86400 < told["expires"] - time.time() <= 2 * 86400
    assert len(told["fingerprints"]) == 1
    output, errors = made.both("rollback", made.storage, "--tag", "trunk", code=5)
    assert output == ""
    assert "is what is published now" in errors
    _, errors = made.both("tag", "add", made.storage, "x")
    assert errors.startswith(f"cvmfs-py: the whitelist of {FQRN} expires soon")
    made.fails("resign", made.storage, "--days", "0", code=2)


def test_metainfo(made: Shell, tmp_path: Path) -> None:
    (tmp_path / "description.json").write_text('{"email": "me@example.org"}')
    said = made("metainfo", made.storage, tmp_path / "description.json")
    assert said.startswith(f"the description of {FQRN} is ")
    told = made.json("metainfo", made.storage, tmp_path / "description.json")
    assert told == {"fqrn": FQRN, "metainfo": said.split()[-1]}
    (tmp_path / "description.json").write_text("email: me")
    assert "is no JSON text" in made.fails("metainfo", made.storage, tmp_path / "description.json")
    assert "No such file" in made.fails("metainfo", made.storage, tmp_path / "nothing")


# --- all of them


@pytest.mark.parametrize("action", [action for action in ACTIONS if action not in ("init", "check", "gc", "diff")])
def test_what_is_no_repository_is_told(shell: Shell, tmp_path: Path, action: str) -> None:
    arguments: dict[str, Callable[[Path], list[str]]] = {
        "publish": lambda place: [str(place), "--delete", "/x"],
        "ingest": lambda place: [str(place), "--tar", "-", "--at", "/"],
        "tag": lambda place: ["list", str(place)],
        "metainfo": lambda place: [str(place), "/dev/null"],
    }
    words = arguments.get(action, lambda place: [str(place)])(tmp_path)
    said = shell.fails(action, *words)
    assert said.startswith(f"cvmfs-py repo {action}: {tmp_path} holds no repository: its .cvmfspublished is missing")


def test_garbage_is_told_in_one_line(made: Shell, tmp_path: Path) -> None:
    assert "/dev/zero: not a regular file" in made.fails("check", made.storage, "--key", "/dev/zero", code=2)
    assert "the master key /none does not exist" in made.fails("check", made.storage, "--key", "/none", code=2)
    assert "its .cvmfspublished is missing" in made.fails("check", made.key)
    manifest = made.storage / ".cvmfspublished"
    manifest.write_bytes(os.urandom(3000).replace(b"\n", b" "))
    for action in ("check", "gc", "resign", "adopt"):
        assert "holds no repository: its .cvmfspublished names none" in made.fails(action, made.storage)
    manifest.write_bytes(f"C12\nN{FQRN}\n--\n".encode())
    assert "is malformed" in made.fails("check", made.storage, code=4)


def test_actions_are_told_and_guessed(shell: Shell) -> None:
    help_text = shell("--help")
    for name, action in ACTIONS.items():
        assert f"  {name:<8}  {action.summary}\n" in help_text
    assert "there is no action 'pubish'; did you mean publish?" in shell.fails("pubish", code=2)
    assert "there is no action 'xyz'; see" in shell.fails("xyz", code=2)
    assert "required: ACTION" in shell.fails(code=2)
    assert "unrecognized arguments: --xyz" in shell.fails("--xyz", "publish", code=2)
