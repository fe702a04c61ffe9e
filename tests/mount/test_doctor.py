"""`cvmfs-py doctor` where a mount works and where not: real namespaces, rights, servers, disks and clocks."""

from __future__ import annotations

import email.utils
import json
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rights import require
from tests.simulator.command import Client, as_nobody, in_mount_namespace
from tests.simulator.fault_server import FaultServer, SeenRequest, answer, refused_port
from tests.simulator.repository import Repository
from tests.simulator.signing import MasterKey
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FQRN = "test.example.org"
NAMES = [
    "device",
    "mount rights",
    "fusermount3",
    "other users",
    "user namespace",
    "restrictions",
    "ways to mount",
    "mounts",
    "configuration",
    "keys",
    "network",
    "signatures",
    "clock",
    "cache",
    "open files",
]
# Root without the right to mount, as in an ordinary container.
WEAK = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
needs_root = pytest.mark.needs("other users")
# Without a way to mount it answers otherwise.
pytestmark = pytest.mark.needs("fuse", "user namespaces")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    repository.publish(Directory({"file": File(b"x")}), tag="v1")
    return repository


def client_of(repository: Repository, directory: Path, server: str | None = None, **parameters: str) -> Client:
    servers = [server or f"file://{repository.document_root}"]
    return Client(directory, FQRN, servers, repository.master_public_key, **parameters)


def diagnose(client: Client, *arguments: str, code: int = 0, wrapper: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    done = client.run("doctor", "--json", *arguments, wrapper=wrapper)
    assert done.code == code, (done.output, done.errors)
    assert len(done.error_lines) == (1 if code else 0)
    told = json.loads(done.output)
    assert told["can_mount"] is (code == 0)
    for check in told["checks"]:
        if check["outcome"] == "failed":
            assert check["cure"], check
    return {check["name"]: check for check in told["checks"]}


def outcome_of(checks: dict[str, dict[str, Any]], name: str) -> str:
    return str(checks[name]["outcome"])


def test_the_table(repository: Repository, tmp_path: Path) -> None:
    done = client_of(repository, tmp_path).run("doctor", FQRN)
    assert (done.code, done.errors) == (0, "")
    assert [line[12:26].strip() for line in done.names if not line.startswith(" ")] == NAMES
    assert f"ok          network         file://{repository.document_root}" in done.output.decode()


def test_without_a_repository(tmp_path: Path) -> None:
    checks = diagnose(Client(tmp_path, FQRN, []))
    assert list(checks) == NAMES
    assert {outcome_of(checks, name) for name in ("keys", "network", "signatures", "clock")} == {"not needed"}


@pytest.mark.parametrize("pin", [[], ["--tag", "v1"], ["--root-hash"]])
def test_a_server(repository: Repository, tmp_path: Path, pin: list[str]) -> None:
    if pin == ["--root-hash"]:
        pin = [*pin, str(repository.head.root_hash)]
    with Nginx(repository.document_root) as web:
        checks = diagnose(client_of(repository, tmp_path, web.url), FQRN, *pin)
    assert outcome_of(checks, "network") == "ok"
    assert outcome_of(checks, "clock") == "ok"
    assert "agrees with http://127.0.0.1" in checks["clock"]["found"]
    assert outcome_of(checks, "signatures") == ("not needed" if "--root-hash" in pin else "ok")


def test_no_server_and_nothing_in_the_cache(repository: Repository, tmp_path: Path) -> None:
    client = client_of(repository, tmp_path, f"http://127.0.0.1:{refused_port()}")
    checks = diagnose(client, FQRN, code=3)
    assert outcome_of(checks, "network") == "failed"
    assert "connection refused" in checks["network"]["found"]
    assert not client.cache.exists()


def test_no_server_but_a_cache(repository: Repository, tmp_path: Path) -> None:
    client = client_of(repository, tmp_path)
    assert client.run("ls", FQRN).code == 0
    offline = client.changed([f"http://127.0.0.1:{refused_port()}"])
    checks = diagnose(offline, FQRN)
    assert outcome_of(checks, "network") == "warning"
    assert "what is in the cache can be used" in checks["network"]["found"]


def test_what_is_not_configured(repository: Repository, tmp_path: Path) -> None:
    checks = diagnose(Client(tmp_path, FQRN, []), FQRN, code=3)
    assert outcome_of(checks, "configuration") == "failed"
    no_key = Client(tmp_path, FQRN, [f"file://{repository.document_root}"], KEYS_DIR=str(tmp_path / "none"))
    checks = diagnose(no_key, FQRN, code=3)
    assert outcome_of(checks, "keys") == "failed" or outcome_of(checks, "configuration") == "failed"
    assert outcome_of(checks, "network") == "not needed"


def test_foreign_keys(repository: Repository, tmp_path: Path) -> None:
    key = tmp_path / "other.pub"
    key.write_bytes(MasterKey.generate(1).public_pem)
    client = Client(tmp_path, FQRN, [f"file://{repository.document_root}"], key)
    checks = diagnose(client, FQRN, code=3)
    assert outcome_of(checks, "network") == "ok"
    assert outcome_of(checks, "signatures") == "failed"
    assert "--key" in checks["signatures"]["cure"]


def serve_at(repository: Repository, time_s: float) -> FaultServer:
    """A server with a clock of its own."""

    def script(request: SeenRequest) -> bytes:
        path = repository.document_root / request.path.lstrip("/")
        date = {"Date": email.utils.formatdate(time_s, usegmt=True)}
        return answer(200, path.read_bytes(), date) if path.is_file() else answer(404, b"", date)

    return FaultServer(script)


def test_a_clock_that_is_wrong(repository: Repository, tmp_path: Path) -> None:
    with serve_at(repository, time.time() - 7200) as server:
        checks = diagnose(client_of(repository, tmp_path, server.url), FQRN)
    assert outcome_of(checks, "clock") == "warning"
    assert checks["clock"]["found"].startswith("2 hours ahead of the one of http://127.0.0.1")
    assert "set the clock" in checks["clock"]["cure"]


def test_a_clock_that_makes_signatures_expire(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repository", FQRN)
    repository.publish(Directory({}))
    repository.write_whitelist(expires=datetime.now(UTC) - timedelta(days=1))
    with serve_at(repository, time.time() - 40 * 86400) as server:
        checks = diagnose(client_of(repository, tmp_path, server.url), FQRN, code=3)
    assert checks["signatures"]["cure"] == "set the clock"
    assert outcome_of(checks, "clock") == "failed"
    with Nginx(repository.document_root) as web:
        checks = diagnose(client_of(repository, tmp_path, web.url), FQRN, code=3)
    assert outcome_of(checks, "clock") == "ok"
    assert "owner" in checks["signatures"]["cure"]


def test_a_cache_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client = client_of(repository, tmp_path, PY_CACHE_DIR=str(tmp_path / "file" / "cache"))
    checks = diagnose(client, FQRN, code=3)
    assert outcome_of(checks, "cache") == "failed"
    assert "--cache-dir" in checks["cache"]["cure"]


def test_a_cache_on_a_small_disk(repository: Repository, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    client = client_of(repository, tmp_path, PY_CACHE_DIR=str(place / "cache"))
    small = in_mount_namespace(f"mount -t tmpfs -o size=64m tmpfs {place}")
    assert outcome_of(diagnose(client, code=3, wrapper=small), "cache") == "failed"
    larger = in_mount_namespace(f"mount -t tmpfs -o size=512m tmpfs {place}")
    checks = diagnose(client, wrapper=larger)
    assert outcome_of(checks, "cache") == "warning"
    assert "on tmpfs" in checks["cache"]["found"]
    assert "CVMFS_QUOTA_LIMIT" in checks["cache"]["cure"]


def test_few_open_files(tmp_path: Path) -> None:
    few = ["/bin/sh", "-c", 'ulimit -n 200; exec "$@"', "sh"]
    assert outcome_of(diagnose(Client(tmp_path, FQRN, []), wrapper=few), "open files") == "warning"


# the machine


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every account can enter."""
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-public-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_an_ordinary_user(public_directory: Path) -> None:
    client = Client(public_directory, FQRN, [], PY_CACHE_DIR="/tmp/cvmfs-py-unused/cache")
    checks = diagnose(client, wrapper=as_nobody(public_directory / "namespace"))
    assert outcome_of(checks, "mount rights") == "not needed"
    assert outcome_of(checks, "fusermount3") == "ok"
    assert "by fusermount3" in checks["ways to mount"]["found"]


@needs_root
def test_an_ordinary_user_where_nobody_may_mount(public_directory: Path) -> None:
    """As in a container: fusermount3 is setuid, and root has not the right either."""
    client = Client(public_directory, FQRN, [], PY_CACHE_DIR="/tmp/cvmfs-py-unused/cache")
    nobody = [*as_nobody(public_directory / "namespace"), "--bounding-set=-sys_admin"]
    checks = diagnose(client, wrapper=nobody)
    assert outcome_of(checks, "fusermount3") == "warning"
    assert "cannot get CAP_SYS_ADMIN" in checks["fusermount3"]["found"]
    assert checks["ways to mount"]["found"] == "in a user namespace"


def test_no_device(tmp_path: Path) -> None:
    client = Client(tmp_path, FQRN, [])
    checks = diagnose(client, code=3, wrapper=in_mount_namespace("mount --bind /dev/null /dev/fuse"))
    assert "is not the device" in checks["device"]["found"]
    script = "mount -t tmpfs tmpfs /dev && touch /dev/null /dev/urandom"
    checks = diagnose(client, code=3, wrapper=in_mount_namespace(script))
    assert checks["device"]["found"] == "there is no /dev/fuse"
    assert outcome_of(checks, "ways to mount") == "failed"


@needs_root
def test_a_device_for_root_only(public_directory: Path) -> None:
    require("device files")
    script = f"mknod -m 600 {public_directory}/fuse c 10 229 && mount --bind {public_directory}/fuse /dev/fuse"
    wrapper = [*in_mount_namespace(script), *as_nobody(public_directory / "namespace")]
    client = Client(public_directory, FQRN, [], PY_CACHE_DIR="/tmp/cvmfs-py-unused/cache")
    checks = diagnose(client, code=3, wrapper=wrapper)
    assert checks["device"]["found"] == "/dev/fuse cannot be opened: Permission denied (crw-------)"
    assert checks["device"]["cure"] == "as root: chmod 666 /dev/fuse"


@needs_root
def test_root_without_the_right_to_mount(tmp_path: Path) -> None:
    client = Client(tmp_path, FQRN, [])
    checks = diagnose(client, wrapper=WEAK)
    assert checks["mount rights"]["found"] == "root without CAP_SYS_ADMIN"
    assert checks["ways to mount"]["found"] == "in a user namespace"


@pytest.mark.needs("mounting", "other users")
def test_no_way_at_all(tmp_path: Path) -> None:
    """No rights, no privileges to be had, and no more user namespaces."""
    client = Client(tmp_path, FQRN, [])
    nested = ["unshare", "-U", "-r", "/bin/sh", "-ec", 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"', "sh"]
    checks = diagnose(client, code=3, wrapper=[*nested, *WEAK, "--no-new-privs"])
    assert outcome_of(checks, "device") == "ok"
    assert outcome_of(checks, "mount rights") == "failed"
    assert "user.max_user_namespaces" in checks["user namespace"]["cure"]
    assert "no_new_privs" in checks["restrictions"]["found"]
    assert outcome_of(checks, "ways to mount") == "failed"


def test_nothing_is_left(tmp_path: Path) -> None:
    """What was tried in a process of its own is seen by nobody else."""
    client = Client(tmp_path, FQRN, [])
    with open("/proc/self/mountinfo") as stream:
        before = stream.read()
    diagnose(client)
    with open("/proc/self/mountinfo") as stream:
        assert stream.read() == before


@pytest.mark.parametrize("words", [["a.b:/path"], ["a b"]])
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    done = Client(tmp_path, FQRN, []).run("doctor", *words)
    assert done.code == 2
    assert len(done.error_lines) == 1
