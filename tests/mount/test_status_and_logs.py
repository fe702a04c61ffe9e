"""What `status` and `logs` tell about real mounts: well, of every repository, offline, stopped, killed, and gone.

Everything happens in namespaces of its own, in which nothing of this machine's mounts and logs is seen, and which end
with all that was started in them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cvmfs_py.mount.log_files import LogFile
from cvmfs_py.vfs.magic_table import DESCRIPTIONS
from tests.simulator.command import PROGRAM, ROOT, Client
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from pathlib import Path

FQRN = "test.example.org"
needs_mounts = pytest.mark.needs("mounting")

FUNCTIONS = """
    mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/log
    for each in /tmp/cvmfs-py-[0-9]*; do ! [ -d "$each" ] || mount -t tmpfs -o mode=700 tmpfs "$each"; done
    mkdir one all
    tell() { code=0; "$@" >output 2>errors || code=$?; printf '%s\\0' "$code" "$(cat output)" "$(cat errors)"; }
    pid_of() { cvmfs status --json "$1" | sed -n 's/^    "pid": \\([0-9]*\\),$/\\1/p'; }
    wait_for() {
        for time in {1..600}; do
            ! grep -q "$1" "$2" || return 0
            read -t 0.05 nothing <>"$PWD/silence" || :
        done
        return 1
    }
    mkfifo silence
"""


class Told:
    """A command of the script that has ended."""

    def __init__(self, code: str, output: str, errors: str) -> None:
        self.code, self.output, self.errors = int(code), output, errors

    def json(self) -> Any:
        return json.loads(self.output)


def run_script(client: Client, script: str) -> list[Told]:
    """What the commands behind `tell` have told. `mount_it` has the client's configuration, `cvmfs` has none."""
    configured = client.command("mount")
    functions = f"""
        cvmfs() {{ {shlex.join(PROGRAM)} "$@"; }}
        mount_it() {{ {shlex.join(configured)} "$@" >/dev/null; }}
        cd {shlex.quote(str(client.directory))}
    """
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "-p",
            "-f",
            "--kill-child",
            "--mount-proc",
            "/bin/bash",
            "-ec",
            functions + FUNCTIONS + script,
        ],
        cwd=ROOT,
        env=client.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    parts = done.stdout.split("\0")[:-1]
    return [Told(*parts[place : place + 3]) for place in range(0, len(parts), 3)]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(tmp_path / "repository", FQRN)
    nested = Directory({"file": File(b"n")}, nested=True)
    repository.publish(Directory({"file": File(b"content"), "link": Symlink("file"), "nested": nested}), tag="v1")
    return repository


def client_of(repository: Repository, server: SlowServer) -> Client:
    return Client(repository.document_root.parent, FQRN, [server.url], repository.master_public_key)


@needs_mounts
def test_mounts_tell_how_they_are(repository: Repository) -> None:
    with SlowServer(repository.document_root) as server:
        client = client_of(repository, server)
        found = run_script(
            client,
            f"""
            tell cvmfs status
            tell cvmfs status {FQRN}
            mount_it {FQRN}@v1 one
            mount_it --all all
            tell cvmfs status all
            cat one/file all/{FQRN}/file >/dev/null
            tell cvmfs status
            tell cvmfs status --json {FQRN}@v1
            tell cvmfs status --json all/{FQRN}
            tell cvmfs logs one
            """,
        )
    nothing, unmounted, unused, text, pinned, live, log = found
    assert (nothing.code, nothing.output) == (0, "")
    assert nothing.errors == "cvmfs-py status: this user has mounted nothing"
    text_of_it = f"cvmfs-py status: {FQRN} is not mounted by cvmfs-py; see cvmfs-py list"
    assert (unmounted.code, unmounted.output, unmounted.errors) == (3, "", text_of_it)
    assert unused.code == 0
    assert f"none of them in use, at {client.directory}/all: well" in unused.output
    assert text.code == 0
    blocks = text.output.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        f"{FQRN} at {client.directory}/all/{FQRN}: well",
        f"{FQRN} at {client.directory}/one: well",
    ]
    assert f"  server      {server.url}/cvmfs/{FQRN}\n" in blocks[0]
    assert "  proxy       DIRECT\n" in blocks[0]
    assert "  revision    1, asks for a newer one in " in blocks[0]
    assert "  revision    1 (tag v1), stays at it\n" in blocks[1]
    assert " % of all requests needed no download\n" in blocks[1]
    assert "  I/O errors  0\n" in blocks[1]
    (value,) = pinned.json()
    assert (value["well"], value["trouble"], value["state"]) == (True, None, "mounted")
    assert value["attributes"]["tag"] == "v1"
    assert value["cache_limit_bytes"] == 4000 << 20
    assert value["log"].startswith("/var/log/cvmfs-py/")
    assert [each["mountpoint"] for each in live.json()] == [f"{client.directory}/all/{FQRN}"]
    assert (log.code, log.output) == (0, "")
    assert log.errors.startswith("cvmfs-py logs: nothing was logged")


@needs_mounts
def test_one_that_does_not_answer_holds_up_nobody(repository: Repository) -> None:
    with SlowServer(repository.document_root) as server:
        client = client_of(repository, server)
        stopped, followed, killed, log, gone, last = run_script(
            client,
            f"""
            mount_it {FQRN} one
            mount_it --all all
            pid=$(pid_of one)
            kill -STOP $pid
            tell cvmfs status
            kill -CONT $pid
            rm -r www/cvmfs/{FQRN}/data
            ! cat one/nested/file 2>/dev/null
            cvmfs logs -f one >followed 2>ended & follower=$!
            wait_for EIO followed
            kill -9 $pid
            wait $follower
            tell cat followed ended
            tell cvmfs status one
            tell cvmfs logs -n 1 one
            umount one
            tell cvmfs logs one
            cvmfs umount all
            tell cvmfs logs
            """,
        )
    assert stopped.code == 5
    assert f"{FQRN} at {client.directory}/one: trouble\n" in stopped.output
    assert "  trouble     it has not answered within 5 s\n" in stopped.output
    assert "none of them in use" in stopped.output
    assert "EIO at " in followed.output
    assert followed.output.endswith("-one.log has ended")
    assert killed.code == 5
    assert "its daemon has ended, and every access fails" in killed.output
    assert len(log.output.splitlines()) == 1
    assert gone.code == last.code == 0
    assert "EIO at " in gone.output


@needs_mounts
def test_offline_is_not_well(repository: Repository) -> None:
    with SlowServer(repository.document_root) as server:
        client = client_of(repository, server)
        assert client.run("ls", FQRN).code == 0
    (told,) = run_script(client, f"mount_it {FQRN} one 2>/dev/null; tell cvmfs status --json one")
    (value,) = told.json()
    assert told.code == 5
    assert "no server vouches for a newer one" in value["trouble"]
    assert any("from the cache" in line for line in value["attributes"]["logbuffer"])


@needs_mounts
def test_every_attribute_in_the_table_is_there(repository: Repository) -> None:
    """But those that only some repositories have."""
    names = sorted(set(DESCRIPTIONS) - {"user.authz", "user.external_url"})
    script = """
import os, sys
places = sys.argv[1].split(":")
for name in sys.argv[2:]:
    for place in places:
        try:
            os.getxattr(place, name, follow_symlinks=False)
            break
        except OSError as error:
            pass
    else:
        print(name)
"""
    with SlowServer(repository.document_root) as server:
        client = client_of(repository, server)
        (told,) = run_script(
            client,
            f"""
            mount_it {FQRN} one
            mount_it --all all
            tell {shlex.join([PROGRAM[0], "-I", "-c", script, "one/file:one/link:one:all", *names])}
            """,
        )
    assert (told.code, told.output, told.errors) == (0, "user.rawlink", "")  # the kernel has no user.* on links


# --- log files


def write(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_the_last_lines_go_back_behind_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write(path, "three\nfour\n")
    write(tmp_path / "x.log.1", "one\ntwo\n")
    for count, expected in ((0, []), (1, [b"four"]), (3, [b"two", b"three", b"four"]), (9, [b"one", b"two"])):
        with LogFile(os.fsencode(path)) as log:
            assert log.last_lines(count)[:3] == (expected if count < 9 else [b"one", b"two", b"three"])


def test_what_is_added_is_seen_once_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write(path, "one\n")
    with LogFile(os.fsencode(path)) as log:
        assert log.last_lines(10) == [b"one"]
        assert log.new_lines() == []
        write(path, "two\nthr")
        assert log.new_lines() == [b"two"]
        write(path, "ee\nfour\n")
        path.rename(tmp_path / "x.log.1")
        assert log.new_lines() == [b"three", b"four"]  # while there is no new file
        write(tmp_path / "x.log.1", "five\n")
        write(path, "six\n")
        assert log.new_lines() == [b"five", b"six"]
        write(path, "seven\n")
        assert log.new_lines() == [b"seven"]


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("pipe", "link", "nothing"):
        with pytest.raises(OSError, match=r".+"):
            LogFile(os.fsencode(tmp_path / name))
