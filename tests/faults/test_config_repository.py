"""The configuration repository, end to end: a machine's /etc/cvmfs names it, and it knows the rest.

Every command runs in a mount namespace with an /etc of its own, so that neither this machine's configuration counts nor
anything is left in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import PROGRAM, Finished, Running, in_mount_namespace
from tests.simulator.fault_server import FaultServer, Silence, answer, refused_port
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

CONFIG = "config.example.net"
DATA = "data.example.org"
OF_THE_MACHINE = ("group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "resolv.conf")


class Machine:
    """A machine with a configuration of its own, and one user."""

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        """`files` are below /etc/cvmfs; without any there is no such directory."""
        self.directory = directory
        self.etc = directory / "etc"
        self.etc.mkdir()
        for name in OF_THE_MACHINE:
            if os.path.exists(f"/etc/{name}"):
                shutil.copy(f"/etc/{name}", self.etc)
        for name, text in files.items():
            path = self.etc / "cvmfs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.home = directory / "home"
        self.home.mkdir()
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "CVMFS_CACHE_BASE": str(directory / "caches"),
        }
        self.cache = directory / "caches" / "cvmfs-py"

    def start(self, *arguments: str) -> Running:
        wrapper = in_mount_namespace(f"mount --bind {self.etc} /etc")
        return Running([*wrapper, *PROGRAM, *arguments], self.directory, self.environment, subprocess.PIPE)

    def run(self, *arguments: str) -> Finished:
        return self.start(*arguments).finish()

    def age(self, by_s: float) -> None:
        """As if the configuration repository had been asked so long ago."""
        stamp = self.cache / "config" / f"{CONFIG}.stamp"
        moment_s = stamp.stat().st_mtime - by_s
        os.utime(stamp, (moment_s, moment_s))

    def shift_memo(self, by_s: int) -> None:
        """As if the user had been told so much later, or earlier."""
        memo = self.cache / "config" / f"{CONFIG}.told"
        memo.write_text(f"{int(memo.read_text()) + by_s}\n")


class World:
    """Servers of a configuration repository and of the repository that it tells about."""

    def __init__(self, directory: Path) -> None:
        self.data = Repository.create(directory / "data", DATA)
        self.data.publish(Directory({"hello": File(b"Hello\n")}))
        self.config = Repository.create(directory / "config", CONFIG)
        self.extra: dict[str, File] = {}

    def publish(self, data_url: str, *, timeout_s: int = 3, blacklist: str = "") -> None:
        """Files as sites write them: they lean on each other and on what /etc/cvmfs has said."""
        config = "$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs"
        key = self.data.master_public_key.read_bytes()
        files = Directory(
            {
                "default.conf": File(f"CVMFS_TIMEOUT_DIRECT={timeout_s}\nCVMFS_MAX_RETRIES=0\n".encode()),
                "common.conf": File(f'SERVERS="{data_url}/cvmfs/@fqrn@"\n'.encode()),
                "domain.d": Directory(
                    {
                        "example.org.conf": File(
                            (
                                f'. {config}/common.conf\nCVMFS_SERVER_URL="$SERVERS"\n'
                                f"CVMFS_KEYS_DIR={config}/keys/example.org\n"
                                'if [ "$CVMFS_FQRN" = data.example.org ]; then CVMFS_HTTP_PROXY=DIRECT; fi\n'
                                "CVMFS_HTTP_PROXY=$CVMFS_HTTP_PROXY\n"
                            ).encode()
                        )
                    },
                    nested=True,
                ),
                "keys": Directory({"example.org": Directory({"example.org.pub": File(key)})}),
                "blacklist": File(blacklist.encode()),
            }
        )
        self.config.publish(Directory({"etc": Directory({"cvmfs": files}), "unrelated": File(b"x" * 100_000)}))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def data_server(world: World) -> Iterator[Nginx]:
    with Nginx(world.data.document_root) as server:
        world.publish(server.url)
        yield server


@pytest.fixture
def config_server(world: World, data_server: Nginx) -> Iterator[Nginx]:
    with Nginx(world.config.document_root) as server:
        yield server


def make_machine(tmp_path: Path, world: World, url: str, **more: str) -> Machine:
    """What a package of a site installs: where the configuration repository is, and its key."""
    key = tmp_path / "site" / "config.pub"
    key.parent.mkdir(exist_ok=True)
    shutil.copy(world.config.master_public_key, key)
    own = f"CVMFS_SERVER_URL={url}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY={key}\nCVMFS_TIMEOUT_DIRECT=1\n"
    files = {
        "default.conf": "CVMFS_MOUNT_DIR=/cvmfs\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_TIMEOUT_DIRECT=1\n",
        "default.d/50-site.conf": f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n",
        f"config.d/{CONFIG}.conf": own,
        **more,
    }
    return Machine(tmp_path, files)


def works(done: Finished, *warnings: str) -> None:
    """Asserts that the file was read, with these warnings and no others."""
    assert (done.code, done.output) == (0, b"Hello\n"), done
    assert len(done.error_lines) == len(warnings), done
    for line, warning in zip(done.error_lines, warnings, strict=True):
        assert warning in line


def hello(machine: Machine) -> Finished:
    return machine.run("cat", f"{DATA}:/hello")


def test_a_repository_that_only_the_configuration_repository_knows(
    tmp_path: Path, world: World, config_server: Nginx
) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    asked = len(config_server.log)
    works(hello(machine))
    assert len(config_server.log) == asked  # it was asked a moment ago
    shown = machine.run("config", "show", DATA).output.decode()
    tree = machine.cache / "config" / "current" / CONFIG / "etc" / "cvmfs"
    assert f"CVMFS_KEYS_DIR={tree}/keys/example.org" in shown
    assert "domain.d/example.org.conf" in shown
    assert "CVMFS_TIMEOUT_DIRECT=3" in shown
    assert not (tree.parents[1] / "unrelated").exists()  # only what is needed is copied
    # The configuration repository is a repository like others, configured without itself.
    assert "unrelated" in machine.run("ls", CONFIG).names


def test_its_server_is_dead(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    config_server.kill()
    works(hello(machine))  # nobody needed to ask
    machine.age(3601)
    told = f"cvmfs-py: the configuration repository {CONFIG} cannot be read (connection refused); its last copy serves"
    works(hello(machine), told)
    works(hello(machine))  # nobody asks again so soon
    machine.age(181)
    works(hello(machine))  # the user was told today
    machine.age(181)
    assert told.removeprefix("cvmfs-py: ") in machine.run("cat", "--debug", f"{DATA}:/hello").errors
    machine.age(181)
    assert f"Warning: {told.removeprefix('cvmfs-py: ')}" in machine.run("config", "check", DATA).output.decode()
    for by_s in (-86400, 1000, 10**6):  # a day later; and a clock that was set back
        machine.age(181)
        machine.shift_memo(by_s)
        works(hello(machine), told)
    with FaultServer(lambda _: Silence()) as silent:
        config = machine.etc / "cvmfs" / "config.d" / f"{CONFIG}.conf"
        config.write_text(config.read_text().replace(config_server.url, silent.url))
        (machine.cache / "state" / f"{CONFIG}.unanswered").unlink()
        machine.age(181)
        machine.shift_memo(-86400)
        done = hello(machine)
        works(done, f"the configuration repository {CONFIG} cannot be read (no answer")
        assert done.elapsed_s < 4


def test_its_server_was_never_reached(tmp_path: Path, world: World) -> None:
    machine = make_machine(tmp_path, world, f"http://127.0.0.1:{refused_port()}")
    for is_first in (True, False):
        done = hello(machine)
        assert (done.code, done.output) == (2, b""), done
        assert len(done.error_lines) == 1
        assert f"no server is known for {DATA}" in done.errors
        reason = "cannot be read, built-in knowledge serves: " if is_first else "could not be read a moment ago"
        assert f"the configuration repository {CONFIG} {reason}" in done.errors
        assert ("connection refused" in done.errors) is is_first
    machine.age(11)
    assert "connection refused" in hello(machine).errors  # without it nothing works, so that it is asked again soon
    machine.age(181)
    done = machine.run("config", "show", "sft.cern.ch")
    assert done.code == 0, done
    told = f"the configuration repository {CONFIG} cannot be read (connection refused); built-in knowledge serves"
    assert done.errors == f"cvmfs-py: {told}\n"
    assert machine.run("config", "show", "sft.cern.ch").errors == ""
    assert "CVMFS_SERVER_URL='http://" in done.output.decode()


def test_it_is_required(tmp_path: Path, world: World, config_server: Nginx) -> None:
    required = "CVMFS_MOUNT_DIR=/cvmfs\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_CONFIG_REPO_REQUIRED=yes\n"
    url = f"http://127.0.0.1:{refused_port()}"
    machine = make_machine(tmp_path, world, url, **{"default.conf": required})
    done = machine.run("config", "show", "sft.cern.ch")
    assert done.code == 2, done
    assert "required configuration repository" in done.errors
    assert "connection refused" in done.errors
    config = machine.etc / "cvmfs" / "config.d" / f"{CONFIG}.conf"
    config.write_text(config.read_text().replace(url, config_server.url))
    machine.age(181)
    works(hello(machine))


def test_a_new_revision(tmp_path: Path, world: World, data_server: Nginx, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    world.publish(data_server.url, timeout_s=17)
    assert "CVMFS_TIMEOUT_DIRECT=3" in machine.run("config", "show", DATA).output.decode()
    machine.age(3601)
    assert "CVMFS_TIMEOUT_DIRECT=17" in machine.run("config", "show", DATA).output.decode()
    copies = [path for path in (machine.cache / "config").iterdir() if path.is_dir() and not path.is_symlink()]
    assert [path.name for path in copies] == [str(world.config.head.root_hash)]
    # Not back to an older one, whatever the server says.
    world.config.serve(world.config.revisions[0])
    machine.age(3601)
    done = machine.run("config", "show", DATA)
    assert "CVMFS_TIMEOUT_DIRECT=17" in done.output.decode()
    world.config.serve(world.config.head)
    # A blacklist that comes with it counts.
    world.publish(data_server.url, blacklist=f"<{DATA} 2\n")
    machine.age(3601)
    done = hello(machine)
    assert (done.code, done.output) == (4, b""), done
    assert "blacklisted revision" in done.errors


def test_one_that_is_not_to_be_trusted(tmp_path: Path, world: World, data_server: Nginx, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    world.publish(f"http://127.0.0.1:{refused_port()}")
    world.config.write_whitelist(expires=datetime(2021, 1, 1, tzinfo=UTC))
    machine.age(3601)
    expired = f"the whitelist (.cvmfswhitelist) of {CONFIG} has expired"
    works(hello(machine), f"the configuration repository {CONFIG} cannot be read ({expired}); its last copy serves")
    # Where there is no copy of it, it does not count at all.
    shutil.rmtree(machine.cache)
    done = hello(machine)
    assert done.code == 2, done
    assert f"the configuration repository {CONFIG} cannot be read" in done.errors
    assert "expired" in done.errors


def test_it_holds_no_configuration(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    world.config.publish(Directory({"README": File(b"empty\n")}))
    done = hello(machine)
    assert done.code == 2, done
    assert "it holds no configuration" in done.errors


def test_many_first_starts_at_once(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    for running in [machine.start("cat", f"{DATA}:/hello") for _ in range(6)]:
        works(running.finish())
    assert sorted(path.name for path in (machine.cache / "config").iterdir()) == sorted(
        ["current", f"{CONFIG}.stamp", str(world.config.head.root_hash)]
    )


def test_many_that_miss_it_at_once(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    config_server.kill()
    machine.age(3601)
    done = [running.finish() for running in [machine.start("cat", f"{DATA}:/hello") for _ in range(6)]]
    assert [each.code for each in done] == [0] * 6
    assert sum(len(each.error_lines) for each in done) == 1, done


def own_files(place: Path, world: World, url: str) -> None:
    """Where the repository is, and what vouches for it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"CVMFS_SERVER_URL={url}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY={world.data.master_public_key}\n")


def test_who_describes_a_repository_does_not_need_it(tmp_path: Path, world: World, data_server: Nginx) -> None:
    key, user_files = str(world.data.master_public_key), ".config/cvmfs-py"
    with FaultServer(lambda _: answer(500)) as config_server:
        machine = make_machine(tmp_path, world, config_server.url)
        works(machine.run("cat", f"{data_server.url}/cvmfs/{DATA}:/hello", "--key", key))
        works(machine.run("cat", f"{DATA}:/hello", "--server", data_server.url, "--key", key))
        for place in (
            machine.home / user_files / "default.conf",
            machine.home / user_files / "config.d" / f"{DATA}.conf",
            machine.etc / "cvmfs" / "config.d" / f"{DATA}.conf",
            machine.etc / "cvmfs" / "domain.d" / "example.org.local",
        ):
            own_files(place, world, data_server.url)
            works(hello(machine))
            place.unlink()
        machine.environment["CVMFS_SERVER_URL"] = f"{data_server.url}/cvmfs/@fqrn@"
        machine.environment["CVMFS_PUBLIC_KEY"] = key
        works(hello(machine))
        assert config_server.paths == []
        # What only adds to what others say is no description.
        own = machine.etc / "cvmfs" / "config.d" / f"{DATA}.conf"
        own.parent.mkdir(exist_ok=True)
        own.write_text(f'CVMFS_SERVER_URL="$CVMFS_SERVER_URL;http://x"\nCVMFS_PUBLIC_KEY={key}\n')
        del machine.environment["CVMFS_SERVER_URL"]
        assert "cannot be read" in hello(machine).errors
        assert config_server.paths


def test_a_required_one_is_asked_all_the_same(tmp_path: Path, world: World, data_server: Nginx) -> None:
    required = "CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CONFIG_REPO_REQUIRED=yes\n"
    machine = make_machine(tmp_path, world, f"http://127.0.0.1:{refused_port()}", **{"default.conf": required})
    key = str(world.data.master_public_key)
    done = machine.run("cat", f"{DATA}:/hello", "--server", data_server.url, "--key", key)
    assert done.code == 2, done
    assert "required configuration repository" in done.errors


def test_an_empty_name_means_none(tmp_path: Path, world: World) -> None:
    with FaultServer(lambda _: answer(500)) as config_server:
        machine = make_machine(tmp_path, world, config_server.url)
        user_file = machine.home / ".config" / "cvmfs-py" / "default.conf"
        user_file.parent.mkdir(parents=True)

        def asked_for(*options: str) -> int:
            done = machine.run("config", "show", *options, "sft.cern.ch")
            assert (done.code, done.errors) == (0, ""), done
            return len(config_server.paths)

        assert asked_for("-o", "CVMFS_CONFIG_REPOSITORY=") == 0
        user_file.write_text("CVMFS_CONFIG_REPOSITORY=\n")
        assert asked_for() == 0
        user_file.unlink()
        machine.environment["CVMFS_CONFIG_REPOSITORY"] = ""
        assert asked_for() == 0
        del machine.environment["CVMFS_CONFIG_REPOSITORY"]
        (machine.etc / "cvmfs" / "default.d" / "60-none.conf").write_text("CVMFS_CONFIG_REPOSITORY=\n")
        assert asked_for() == 0
        shutil.rmtree(machine.etc / "cvmfs")
        assert asked_for("-o", "CVMFS_CONFIG_REPOSITORY=") == 0  # nor what is built in
        assert not (machine.cache / "config").exists()


def test_it_is_killed_in_the_middle(tmp_path: Path, world: World, data_server: Nginx) -> None:
    with SlowServer(world.config.document_root, delay_s=0.03) as server:
        machine = make_machine(tmp_path, world, server.url)
        for count in (1, 3, 5, 7, 9):
            seen = len(server.requests)
            running = machine.start("cat", f"{DATA}:/hello")
            server.wait_for_requests(seen + count, running.is_alive)
            running.kill()
        works(hello(machine))
        (machine.cache / "config" / "partial.4000000").mkdir()  # of a process long gone
        machine.age(3601)
        world.publish(data_server.url)  # the next revision cleans up
        works(hello(machine))
        left = [path.name for path in (machine.cache / "config").iterdir()]
        assert sorted(left) == sorted(["current", f"{CONFIG}.stamp", str(world.config.head.root_hash)])


def test_the_copy_is_removed(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    shutil.rmtree(machine.cache / "config" / str(world.config.head.root_hash))
    works(hello(machine))


def test_a_machine_without_any_configuration(tmp_path: Path, world: World, data_server: Nginx) -> None:
    """A laptop or a container: the public configuration repository is known, here served by somebody else."""
    public = Repository.create(tmp_path / "public", "cvmfs-config.cern.ch")
    world.config = public
    world.publish(data_server.url)
    machine = Machine(tmp_path, {})
    own = machine.home / ".config" / "cvmfs-py" / "config.d" / "cvmfs-config.cern.ch.conf"
    own.parent.mkdir(parents=True)
    with Nginx(public.document_root) as server:
        key = f"CVMFS_PUBLIC_KEY={public.master_public_key}\n"
        own.write_text(f"CVMFS_SERVER_URL={server.url}/cvmfs/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n{key}")
        works(hello(machine))
        asked = len(server.log)
        # Whoever says where a repository is does not need it.
        shutil.rmtree(machine.cache)
        key_of_data = str(world.data.master_public_key)
        done = machine.run("cat", f"{data_server.url}/cvmfs/{DATA}:/hello", "--key", key_of_data)
        works(done)
        assert len(server.log) == asked


def test_a_cache_directory_that_is_not_one(tmp_path: Path, world: World, config_server: Nginx) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    machine.cache.mkdir(parents=True)
    (machine.cache / "thesis.tex").write_text("precious")
    done = hello(machine)
    assert done.code in (2, 5), done
    assert f"{machine.cache} contains files but is no cache directory" in done.errors
    assert os.listdir(machine.cache) == ["thesis.tex"]


@pytest.mark.parametrize(
    "how", ["writable", "a link", pytest.param("of another account", marks=pytest.mark.needs("other users"))]
)
def test_a_copy_that_others_can_change_is_not_obeyed(
    tmp_path: Path, world: World, data_server: Nginx, config_server: Nginx, how: str
) -> None:
    machine = make_machine(tmp_path, world, config_server.url)
    works(hello(machine))
    copies, trap = machine.cache / "config", tmp_path / "trap"
    default = copies / "current" / CONFIG / "etc" / "cvmfs" / "default.conf"
    default.chmod(0o644)
    default.write_text(f"touch {trap}\nCVMFS_TIMEOUT=7\n")
    if how == "of another account":
        os.chown(copies, 12345, 12345)
    elif how == "writable":
        copies.chmod(0o777)
    else:
        copies.rename(tmp_path / "elsewhere")
        copies.symlink_to(tmp_path / "elsewhere")
    done = hello(machine)
    assert done.code == 2, done
    assert not trap.exists()
    assert len(done.error_lines) == 1
    assert f"no copy of the configuration repository {CONFIG} is used: {copies} " in done.errors
