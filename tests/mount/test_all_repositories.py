"""Every repository in one mount: each appears when it is asked for, and none is in the way of another."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import Mounted
from tests.simulator.command import Client
from tests.simulator.fault_server import FaultServer, Silence, answer
from tests.simulator.publisher import OwnRepository, write_tree
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.simulator.fault_server import SeenRequest, Steps

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
NAMES = ("one.test.org", "two.test.org")


class MountedAll(Mounted):
    """A mount of every repository."""

    def words(self) -> tuple[str, ...]:
        return ("mount", "-f", *self._options, "--all", str(self.mountpoint))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Client, dict[str, OwnRepository], Nginx]]:
    """Two repositories behind one server, and a client that knows the keys of both."""
    repositories = {}
    served = tmp_path / "www" / "cvmfs"
    served.mkdir(parents=True)
    for name in NAMES:
        (tmp_path / name).mkdir()
        repositories[name] = OwnRepository(tmp_path / name, name, ttl_s=1)
        write_tree(tmp_path / name / "tree", {"name": name.encode(), "dir/file": b"x" * 5000})
        repositories[name].publish_directory(tmp_path / name / "tree")
        (served / name).symlink_to(repositories[name].storage)
    keys = ":".join(str(path) for name in NAMES for path in (tmp_path / name).rglob("*.pub"))
    with Nginx(tmp_path / "www") as web:
        client = Client(tmp_path / "client", "", [], PUBLIC_KEY=keys, SERVER_URL=f"{web.url}/cvmfs/@fqrn@")
        yield client, repositories, web


def error_of(path: Path) -> int | None:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno
    return None


def names_in(place: Path, expected: set[str]) -> set[str]:
    """The listing, which the kernel may know for a moment longer than it is true."""
    end_s = time.monotonic() + 30
    while (found := set(os.listdir(place))) != expected and time.monotonic() < end_s:
        time.sleep(0.02)
    return found


def test_repositories_appear_when_they_are_asked_for(
    tmp_path: Path, world: tuple[Client, dict[str, OwnRepository], Nginx]
) -> None:
    client, _, _ = world
    with MountedAll(client, tmp_path / "mnt") as top:
        assert os.listdir(top) == []
        assert (top / "one.test.org" / "name").read_text() == "one.test.org"
        assert names_in(top, {"one.test.org"}) == {"one.test.org"}
        assert (top / "two.test.org" / "dir" / "file").read_bytes() == b"x" * 5000
        assert names_in(top, set(NAMES)) == set(NAMES)
        found = subprocess.run(["find", "."], cwd=top, capture_output=True, text=True, check=True).stdout.split()
        below = ("", "/name", "/dir", "/dir/file")
        assert sorted(found) == sorted([".", *(f"./{name}{path}" for name in NAMES for path in below)])
        assert os.stat(top / "one.test.org").st_ino != os.stat(top / "two.test.org").st_ino
        assert os.path.realpath(top / "one.test.org" / "dir" / ".." / "..") == str(top)
        assert os.getxattr(top / "two.test.org" / "dir", "user.fqrn") == b"two.test.org"


def test_what_is_no_repository_is_not_there(
    tmp_path: Path, world: tuple[Client, dict[str, OwnRepository], Nginx]
) -> None:
    client, _, web = world
    with MountedAll(client, tmp_path / "mnt") as top:
        for name in (".git", "README", "..x", "a b.org", "x" * 255, "missing.test.org"):
            assert error_of(top / name) == errno.ENOENT, name
        asked = [line for line in web.log if "missing.test.org" in line]
        assert error_of(top / "missing.test.org") == errno.ENOENT
        assert [line for line in web.log if "missing.test.org" in line] == asked != []
        assert error_of(top / ("x" * 256)) == errno.ENAMETOOLONG
        with pytest.raises(OSError, match="Read-only"):
            (top / "new").mkdir()
        assert os.listdir(top) == []


def test_names_can_be_listed_before(tmp_path: Path, world: tuple[Client, dict[str, OwnRepository], Nginx]) -> None:
    client, _, web = world
    with MountedAll(client, tmp_path / "mnt", "--repositories", "one.test.org,other.test.org") as top:
        assert sorted(os.listdir(top)) == ["one.test.org", "other.test.org"]
        assert web.log == []
        assert error_of(top / "other.test.org") == errno.ENOENT
        assert (top / "one.test.org" / "name").exists()


def test_a_sick_repository_holds_up_nobody(
    tmp_path: Path, world: tuple[Client, dict[str, OwnRepository], Nginx]
) -> None:
    client, _, _ = world

    def script(request: SeenRequest) -> Steps:
        """Says nothing about one repository."""
        if "sick.test.org" in request.path:
            return Silence()
        file = tmp_path / "www" / request.path.lstrip("/")
        return answer(200, file.read_bytes()) if file.is_file() else answer(404, b"")

    with FaultServer(script) as server:
        patient = client.changed(SERVER_URL=f"{server.url}/cvmfs/@fqrn@", TIMEOUT_DIRECT="60")
        with MountedAll(patient, tmp_path / "mnt") as top:
            waiting = subprocess.Popen(["cat", str(top / "sick.test.org" / "file")], stderr=subprocess.DEVNULL)
            try:
                while not any("sick" in request.path for request in server.requests):
                    assert waiting.poll() is None
                    time.sleep(0.02)
                assert (top / "one.test.org" / "name").read_text() == "one.test.org"
                assert error_of(top / "missing.test.org") == errno.ENOENT
                assert waiting.poll() is None
            finally:
                waiting.kill()  # whoever waits can be killed at once
                assert waiting.wait(20) == -signal.SIGKILL
            assert (top / "two.test.org" / "name").read_text() == "two.test.org"


def test_each_follows_its_own_revisions(tmp_path: Path, world: tuple[Client, dict[str, OwnRepository], Nginx]) -> None:
    client, repositories, _ = world
    with MountedAll(client, tmp_path / "mnt") as top:
        kept = os.stat(top / "two.test.org" / "name").st_ino
        assert (top / "one.test.org" / "name").read_text() == "one.test.org"
        assert error_of(top / "one.test.org" / "new") == errno.ENOENT
        tree = tmp_path / "one.test.org" / "tree"
        write_tree(tree, {"name": b"changed", "new": b"new", "dir/file": b"x" * 5000})
        repositories["one.test.org"].publish_directory(tree)
        end_s = time.monotonic() + 60
        while error_of(top / "one.test.org" / "new") is not None and time.monotonic() < end_s:
            time.sleep(0.05)
        assert (top / "one.test.org" / "name").read_text() == "changed"
        assert os.stat(top / "two.test.org" / "name").st_ino == kept
