"""The client when no server answers: what is here works, with one warning and without long waits; the rest says so."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import Client, Finished
from tests.simulator.fault_server import FaultServer, SeenRequest, Silence, answer, refused_port
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx")

FQRN = "test.example.org"
START_S = 4.0  # what the start of a program may take on a busy machine
DEAD = f"http://127.0.0.1:{refused_port()}"
UNKNOWN = "http://no-such-host.invalid"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    deep = Directory({"far": File(b"far away\n")}, nested=True)
    repository.publish(Directory({"hello": File(b"Hello\n"), "deep": deep, "new": File(b"new\n")}), tag="v1")
    return repository


@pytest.fixture(scope="module")
def web(repository: Repository) -> Iterator[Nginx]:
    with Nginx(repository.document_root) as server:
        yield server


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, repository: Repository, web: Nginx) -> Path:
    """A cache that has everything but one file."""
    client = Client(tmp_path_factory.mktemp("filled"), FQRN, [web.url], repository.master_public_key)
    for command in ("tags", "info", "verify"):
        assert client.run(command, FQRN).code == 0
    assert client.run("cat", f"{FQRN}:/hello", f"{FQRN}:/deep/far").output == b"Hello\nfar away\n"
    return client.cache


@pytest.fixture
def client(tmp_path: Path, filled: Path, repository: Repository, web: Nginx) -> Client:
    shutil.copytree(filled, tmp_path / "cache")
    return Client(tmp_path, FQRN, [web.url], repository.master_public_key)


def worked_offline(done: Finished, limit_s: float, *words: str) -> None:
    assert done.code == 0, done
    assert done.elapsed_s < limit_s + START_S, done
    warnings = [line for line in done.error_lines if line.startswith("cvmfs-py: ")]
    assert len(warnings) == 1, done
    assert f"using revision 1 of {FQRN}, published on 2023-11-14 22:13 UTC, from the cache" in warnings[0]
    for word in words:
        assert word in warnings[0]


@pytest.mark.parametrize(
    ("servers", "parameters", "reason"),
    [
        ([DEAD, UNKNOWN], {}, f"{DEAD}/cvmfs/{FQRN}: connection refused; {UNKNOWN}/cvmfs/{FQRN}: name not resolved"),
        ([DEAD], {"HTTP_PROXY": f"{DEAD};{UNKNOWN}:3128"}, f"via {DEAD}: connection refused"),
        # What is repeated, and waited for, when there is nothing else: none of it here.
        ([DEAD], {"MAX_RETRIES": "5", "BACKOFF_INIT": "1000", "BACKOFF_MAX": "1000"}, "connection refused"),
        ([DEAD], {"FAILOVER_INDEFINITELY": "yes", "HTTP_PROXY": DEAD, "BACKOFF_MAX": "1000"}, "connection refused"),
        ([UNKNOWN, UNKNOWN + "."], {"USE_GEOAPI": "yes"}, "name not resolved"),
    ],
    ids=["dead hosts", "dead proxies", "many repetitions", "endless fail-over", "geographical order"],
)
def test_everything_that_is_here_works(
    client: Client, servers: list[str], parameters: dict[str, str], reason: str
) -> None:
    offline = client.changed(servers, **parameters)
    done = offline.run("ls", "-R", FQRN)
    worked_offline(done, 0, reason)
    assert "far" in done.names
    done = offline.run("cat", f"{FQRN}:/deep/far")
    worked_offline(done, 0, reason)
    assert done.output == b"far away\n"
    worked_offline(offline.run("cp", "-r", f"{FQRN}:/deep", "copy"), 0, reason)
    assert (client.directory / "copy" / "far").read_bytes() == b"far away\n"


def test_other_commands(client: Client) -> None:
    offline = client.changed([DEAD])
    done = offline.run("tags", "--json", FQRN)
    worked_offline(done, 0)
    assert {tag["name"] for tag in json.loads(done.output)} == {"trunk", "v1"}
    done = offline.run("info", "--json", FQRN)
    worked_offline(done, 0)
    assert (json.loads(done.output)["revision"], json.loads(done.output)["server"]) == (1, None)
    worked_offline(offline.run("stat", f"{FQRN}:/deep/far"), 0)
    worked_offline(offline.run("verify", FQRN), 0)
    worked_offline(offline.run("ls", f"{FQRN}@v1"), 0)


def test_silent_servers_cost_as_much_time_as_one_of_them_may_take(client: Client) -> None:
    with FaultServer(lambda _: Silence()) as silent:
        servers = [f"{silent.url}/{number}" for number in range(6)]
        offline = client.changed(servers, TIMEOUT="3", TIMEOUT_DIRECT="3", MAX_RETRIES="3", USE_GEOAPI="yes")
        done = offline.run("cat", f"{FQRN}:/hello")
        worked_offline(done, 3, "no answer")
        assert done.elapsed_s > 2.5
        # Those that were silent a moment ago are not waited for so long again.
        patient = offline.changed(TIMEOUT="100", TIMEOUT_DIRECT="100")
        worked_offline(patient.run("ls", FQRN), 2, "no answer")
        assert (client.cache / "state" / f"{FQRN}.unanswered").exists()


def test_a_silent_server_does_not_hide_one_that_answers(client: Client, web: Nginx) -> None:
    with FaultServer(lambda _: Silence()) as silent:
        for parameters in ({"TIMEOUT_DIRECT": "2"}, {"HTTP_PROXY": f"{silent.url};DIRECT", "TIMEOUT": "2"}):
            servers = [web.url] if "HTTP_PROXY" in parameters else [silent.url, web.url]
            online = client.changed(servers, **parameters)
            for is_remembered in (False, True):
                if is_remembered:
                    (client.cache / "state" / f"{FQRN}.unanswered").write_text(str(int(time.time())))
                done = online.run("info", "--json", FQRN)
                assert (done.code, done.errors) == (0, "")
                assert json.loads(done.output)["server"] == f"{web.url}/cvmfs/{FQRN}"
                assert done.elapsed_s < 2 + START_S
                assert not (client.cache / "state" / f"{FQRN}.unanswered").exists()


def test_a_memory_of_silence_that_is_nonsense_does_no_harm(client: Client) -> None:
    hint = client.cache / "state" / f"{FQRN}.unanswered"
    for text in ("nonsense", "99999999999999999999", "-5", "1", "\x00\xff"):
        hint.write_text(text)
        worked_offline(client.changed([DEAD]).run("ls", FQRN), 0)


def test_what_is_not_here_is_an_error_that_names_the_reason(client: Client) -> None:
    offline = client.changed([DEAD, UNKNOWN])
    done = offline.run("cat", f"{FQRN}:/new")
    assert done.code == 5, done
    assert done.output == b""
    assert len(done.error_lines) == 2, done
    assert "from the cache" in done.error_lines[0]
    assert f"{DEAD}/cvmfs/{FQRN}: connection refused" in done.error_lines[1]
    assert f"{UNKNOWN}/cvmfs/{FQRN}: name not resolved" in done.error_lines[1]
    done = offline.run("cp", "-r", f"{FQRN}:/", "copy")
    assert done.code == 5, done
    assert "/new cannot be copied: cannot fetch" in done.errors
    assert f"{DEAD}/cvmfs/{FQRN}: connection refused" in done.errors
    assert (client.directory / "copy" / "deep" / "far").read_bytes() == b"far away\n"
    done = client.run("cp", "-r", f"{FQRN}:/", "copy")
    assert done.code == 0, done
    assert (client.directory / "copy" / "new").read_bytes() == b"new\n"


def test_only_the_documents_answer(client: Client, repository: Repository, web: Nginx) -> None:
    """A new revision is announced, but its catalog cannot be had: the last one that is whole serves."""
    tree = Directory({"hello": File(b"Hello again\n")})
    other = Repository.create(
        client.directory / "other", FQRN, master=repository.master, repository_key=repository.repository_key
    )
    other.publish(tree, revision=7, timestamp_s=repository.head.timestamp_s + 60)

    def documents(request: SeenRequest) -> bytes:
        path = other.document_root / request.path.lstrip("/")
        return answer(200, path.read_bytes()) if path.name.startswith(".cvmfs") else answer(404)

    with FaultServer(documents) as server:
        done = client.changed([server.url]).run("cat", f"{FQRN}:/hello")
        worked_offline(done, 1, "does not exist on any server")
        assert done.output == b"Hello\n"
    with Nginx(other.document_root) as server:
        assert client.changed([server.url]).run("cat", f"{FQRN}:/hello").output == b"Hello again\n"


def test_the_network_is_back(client: Client, web: Nginx) -> None:
    worked_offline(client.changed([DEAD]).run("ls", FQRN), 0)
    done = client.run("cat", f"{FQRN}:/new")
    assert (done.code, done.output, done.errors) == (0, b"new\n", "")


def test_a_root_hash_asks_nobody(client: Client, repository: Repository) -> None:
    with FaultServer(lambda _: Silence()) as silent:
        offline = client.changed([silent.url])
        done = offline.run("ls", "-R", "--root-hash", str(repository.head.root_hash), FQRN)
        assert (done.code, done.errors) == (0, "")
        assert done.elapsed_s < START_S
        assert silent.requests == []
