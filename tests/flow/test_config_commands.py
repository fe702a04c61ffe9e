"""`config add`, `get`, `set` and `unset`: what they write is in force, and what makes no sense is not written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import PROGRAM, Finished, Running, in_mount_namespace
from tests.simulator.repository import Repository
from tests.simulator.signing import MasterKey
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FQRN = "private.test.org"


class User:
    """Somebody with a home and a repository on the local disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = Repository.create(directory / "made", FQRN)
        self.repository.publish(Directory({"readme": File(b"hello")}))
        self.server = f"file://{self.repository.document_root}"
        self.files = directory / "home" / ".config" / "cvmfs-py"
        (directory / "home").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "LC_ALL": "C.UTF-8",
            "CVMFS_CONFIG_REPOSITORY": FQRN,  # which thus needs none
        }

    def run(self, *words: str, wrapper: Sequence[str] = ()) -> Finished:
        return Running([*wrapper, *PROGRAM, *words], self.directory, self.environment, -1).finish()

    def config(self, *words: str, wrapper: Sequence[str] = ()) -> str:
        done = self.run("config", *words, wrapper=wrapper)
        assert (done.code, done.errors) == (0, "")
        return done.output.decode()

    def fails(self, code: int, *words: str) -> str:
        done = self.run("config", *words)
        assert (done.code, done.output, len(done.error_lines)) == (code, b"", 1), done
        return done.errors

    def key(self) -> str:
        """A place that may go away, named in a way that depends on where one is."""
        return os.path.relpath(self.repository.master_public_key, self.directory)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_a_repository_is_added_once_and_known_from_then_on(user: User) -> None:
    words = ["add", FQRN, "--server", user.server, "--key", user.key(), "--proxy", "DIRECT", "-o", "CVMFS_TIMEOUT=3"]
    written = user.files / "config.d" / f"{FQRN}.conf"
    assert user.config(*words) == (
        f"{user.server}/cvmfs/{FQRN} has revision 1, and its signatures are right\n"
        f"wrote {written}, and a copy of the key beside it\n"
        f"use it by its name: cvmfs-py ls {FQRN}\n"
    )
    assert written.read_text().splitlines()[1:] == [
        f"CVMFS_SERVER_URL={user.server}/cvmfs/@fqrn@",
        f"CVMFS_PUBLIC_KEY={user.files}/config.d/{FQRN}.pub",
        "CVMFS_HTTP_PROXY=DIRECT",
        "CVMFS_TIMEOUT=3",
    ]
    user.repository.master_public_key.unlink()
    assert user.run("ls", FQRN).names == ["readme"]
    copy = str(written.with_suffix(".pub"))
    said = user.fails(2, "add", FQRN, "--server", user.server, "--key", copy)
    assert f"{FQRN} is configured already, in {written}: --force replaces that file" in said
    user.config("add", "--force", FQRN, "--server", user.server, "--key", copy)
    assert "TIMEOUT" not in written.read_text()
    assert user.run("ls", FQRN).names == ["readme"]


def test_what_the_server_has_must_be_signed_by_the_key(user: User) -> None:
    foreign = user.directory / "foreign.pub"
    foreign.write_bytes(MasterKey.generate(1).public_pem)
    said = user.fails(4, "add", FQRN, "--server", user.server, "--key", str(foreign))
    assert "is not signed by any of the configured master keys" in said
    other = ["add", "other.test.org", "--server", user.server, "--key", user.key()]
    (user.repository.document_root / "cvmfs" / "other.test.org").symlink_to(FQRN)
    assert "is for another repository" in user.fails(4, *other)
    said = user.fails(5, "add", FQRN, "--server", user.server, "--server", "http://localhost:1", "--key", user.key())
    assert said.endswith("; nothing was written, --no-check does it all the same\n")
    assert not user.files.exists()
    user.config("add", FQRN, "--server", "http://localhost:1", "--key", user.key(), "--no-check")
    assert (user.files / "config.d" / f"{FQRN}.pub").read_bytes() == user.repository.master_public_key.read_bytes()


def test_what_is_missing_or_wrong_is_told(user: User) -> None:
    assert "--server URL" in user.fails(2, "add", FQRN, "--key", user.key())
    assert "--key FILE, its master public key" in user.fails(2, "add", FQRN, "--server", user.server)
    assert "add what?" in user.fails(2, "add")
    server = ("--server", user.server)
    assert "does not exist" in user.fails(2, "add", FQRN, *server, "--key", "nowhere")
    assert "leave out what follows its name" in user.fails(2, "add", f"{FQRN}@v1", *server, "--key", user.key())
    assert "CVMFS_TIMEOUT: 'x' is not a number" in user.fails(
        2, "add", FQRN, *server, "--key", user.key(), "-o", "CVMFS_TIMEOUT=x"
    )
    assert not user.files.exists()


def test_values_are_set_read_and_taken_back(user: User) -> None:
    user.files.mkdir(parents=True)
    (user.files / "default.conf").write_text("# mine\nCVMFS_TIMEOUT=3 # short\n")
    default = user.files / "default.conf"
    assert user.config("get", "CVMFS_TIMEOUT") == "3\n"
    said = user.config("set", "CVMFS_TIMEOUT=7", "CVMFS_HTTP_PROXY=http://a:1;DIRECT")
    assert said == f"set CVMFS_TIMEOUT=7 in {default}\nset CVMFS_HTTP_PROXY=http://a:1;DIRECT in {default}\n"
    assert default.read_text() == "# mine\nCVMFS_TIMEOUT=7  # short\nCVMFS_HTTP_PROXY='http://a:1;DIRECT'\n"
    user.config("set", "CVMFS_TIMEOUT=9", FQRN)
    assert user.config("get", "CVMFS_TIMEOUT", FQRN) == "9\n"
    assert user.config("get", "CVMFS_TIMEOUT") == "7\n"
    assert user.config("get", "CVMFS_EXTERNAL_TIMEOUT", FQRN) == "9\n"  # which follows the other
    assert user.config("get", "CVMFS_MAX_RETRIES") == "1\n"
    user.config("unset", "CVMFS_TIMEOUT", FQRN)
    assert user.config("get", "CVMFS_TIMEOUT", FQRN) == "7\n"
    assert f"{default} does not set CVMFS_TIMEOUTS" in user.fails(2, "unset", "CVMFS_TIMEOUTS")
    assert "CVMFS_TIMEOUT: 'x' is not a number of seconds" in user.fails(2, "set", "CVMFS_TIMEOUT=x")
    assert "is CVMFS_TIMEOUT meant?" in user.fails(2, "get", "CVMFS_TIMEOT")
    assert "set what? Write set NAME=VALUE ... [FQRN]" in user.fails(2, "set", FQRN)
    user.environment["CVMFS_TIMEOUT"] = "1"
    done = user.run("config", "set", "CVMFS_TIMEOUT=8")
    assert done.code == 0
    assert done.error_lines == ["cvmfs-py: CVMFS_TIMEOUT has another value in the environment ('1'), which wins there"]


def test_an_administrator_writes_for_all(user: User) -> None:
    """In a place of its own: what is below /etc/cvmfs would be that of the machine."""
    kept = user.directory / "etc"
    kept.mkdir()
    wrapper = in_mount_namespace(f"mount -t tmpfs tmpfs /etc && mkdir /etc/cvmfs && mount --bind {kept} /etc/cvmfs")
    user.config("add", "--system", FQRN, "--server", user.server, "--key", user.key(), wrapper=wrapper)
    user.config("set", "--system", "CVMFS_HTTP_PROXY=DIRECT", wrapper=wrapper)
    user.config("set", "--system", "CVMFS_TIMEOUT=4", FQRN, wrapper=wrapper)
    found = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert found == [f"config.d/{FQRN}.conf", f"config.d/{FQRN}.local", f"config.d/{FQRN}.pub", "default.local"]
    assert not user.files.exists()
    assert user.config("get", "CVMFS_TIMEOUT", FQRN, wrapper=wrapper) == "4\n"
    assert user.run("ls", FQRN, wrapper=wrapper).names == ["readme"]
