"""The whole client against sick servers and proxies: it goes on with a healthy one, or says what is wrong with each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.simulator.command import Client, Finished
from tests.simulator.fault_server import (
    Close,
    Drip,
    FaultServer,
    Reset,
    Script,
    SeenRequest,
    Silence,
    Steps,
    answer,
    refused_port,
)
from tests.simulator.repository import Repository
from tests.simulator.slow_server import SlowServer
from tests.simulator.squid import Squid
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx", "squid")

FQRN = "test.example.org"
FILES = {f"file{number:02d}": bytes(range(256)) * number for number in range(20)}
EXTERNAL = b"kept elsewhere\n" * 1000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("repository"), FQRN)
    files = {name: File(content) for name, content in FILES.items()}
    nested = Directory({"far": File(EXTERNAL, external=True)}, nested=True)
    repository.publish(Directory({"files": Directory(files), "external": nested, "hello": File(b"Hello\n")}))
    return repository


@pytest.fixture(scope="module")
def web(repository: Repository) -> Iterator[Nginx]:
    with Nginx(repository.document_root) as server:
        yield server


@pytest.fixture(scope="module")
def proxy() -> Iterator[Squid]:
    with Squid() as server:
        yield server


def make_client(tmp_path: Path, repository: Repository, *servers: str, **parameters: str) -> Client:
    return Client(tmp_path, FQRN, servers, repository.master_public_key, **parameters)


def copied(client: Client, done: Finished) -> None:
    """Asserts that the files were copied, quietly."""
    assert done.code == 0, done
    assert len(done.error_lines) == 1, done  # the summary
    for name, content in FILES.items():
        assert (client.directory / "copy" / name).read_bytes() == content


def copy(client: Client) -> None:
    copied(client, client.run("cp", "-r", f"{FQRN}:/files", "copy"))


def refuse(done: Finished, *words: str) -> str:
    """Asserts that a command failed with one line that has these words."""
    assert done.code == 5, done
    assert done.output == b""
    assert len(done.error_lines) == 1, done
    for word in words:
        assert word in done.errors
    return done.errors


class Cut:
    """Sends half of every file, then closes the connection."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, request: SeenRequest) -> Steps:
        body = (self.root / request.path.lstrip("/")).read_bytes()
        return [answer(200, body[: len(body) // 2], length=len(body)), Close()]


class Dripping:
    """Sends every file at 200 bytes a second."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, request: SeenRequest) -> Steps:
        body = (self.root / request.path.lstrip("/")).read_bytes()
        return Drip(answer(200, body), 20, 0.1)


SICK: dict[str, tuple[Script | type[Cut] | type[Dripping], str]] = {
    "silent": (lambda _: Silence(), "no answer in 1 s"),
    "empty": (lambda _: Close(), "connection closed without an answer"),
    "rude": (lambda _: Reset(), "connection reset"),
    "without anything": (lambda _: answer(404, b"no such file"), "HTTP 404"),
    "confused": (lambda _: answer(400), "HTTP 400"),
    "broken": (lambda _: answer(500, b"oops"), "HTTP 500"),
    "overloaded": (lambda _: answer(503), "HTTP 503"),
    "forbidding": (lambda _: answer(403), "HTTP 403"),
    "asking for less": (lambda _: answer(429), "HTTP 429"),
    "redirecting": (lambda _: answer(302, headers={"Location": "/login"}), "HTTP 302, and redirects are not followed"),
    "talking something else": (lambda _: b"220 mail.example.org ESMTP\r\n\r\n" * 3, "the answer is not HTTP"),
    "cutting everything short": (Cut, "connection closed in the middle of the answer"),
    "dripping": (Dripping, "slower than 1024 B/s for 1 s"),
}


def sick_server(what: str, repository: Repository) -> FaultServer:
    script = SICK[what][0]
    return FaultServer(script(repository.document_root) if isinstance(script, type) else script)


@pytest.mark.parametrize("what", SICK)
def test_a_host_that_is(what: str, tmp_path: Path, repository: Repository, web: Nginx) -> None:
    with sick_server(what, repository) as sick:
        client = make_client(tmp_path, repository, sick.url, web.url)
        done = client.run("cp", "-r", f"{FQRN}:/files", "copy")
        copied(client, done)
        assert done.elapsed_s < 5
        assert 2 <= len(sick.requests) < 10  # manifest and whitelist; later requests have learned from them
        alone = make_client(tmp_path / "alone", repository, sick.url)
        refuse(alone.run("ls", FQRN), f"{sick.url}/cvmfs/{FQRN}: {SICK[what][1]}", FQRN)


@pytest.mark.parametrize("what", [*SICK, "dead"])
def test_a_proxy_that_is(what: str, tmp_path: Path, repository: Repository, web: Nginx, proxy: Squid) -> None:
    if what == "dead":
        check_proxy(f"http://127.0.0.1:{refused_port()}", "connection refused", tmp_path, repository, web, proxy)
        return
    with sick_server(what, repository) as sick:
        # An answer that may well be the server's own is blamed on the server, so that other proxies do not help.
        is_believed = what in ("without anything", "confused", "broken", "overloaded", "asking for less", "redirecting")
        check_proxy(sick.url, SICK[what][1], tmp_path, repository, web, None if is_believed else proxy)


def check_proxy(
    sick: str, reason: str, tmp_path: Path, repository: Repository, web: Nginx, proxy: Squid | None
) -> None:
    alone = make_client(tmp_path / "alone", repository, web.url, HTTP_PROXY=sick)
    refuse(alone.run("ls", FQRN), f"{web.url}/cvmfs/{FQRN} via {sick}: {reason}")
    if proxy is not None:
        client = make_client(tmp_path, repository, web.url, HTTP_PROXY=f"{sick};{proxy.url}")
        copy(client)


def test_groups_of_proxies(tmp_path: Path, repository: Repository, web: Nginx, proxy: Squid) -> None:
    dead = [f"http://127.0.0.1:{refused_port()}" for _ in range(3)]
    with Squid(deny=True) as denying, Squid() as fallback:
        lists = {
            "the next group": {"HTTP_PROXY": f"{dead[0]}|{dead[1]};{denying.url}|{dead[2]};{proxy.url}"},
            "the next member": {"HTTP_PROXY": f"{dead[0]}|{proxy.url}|{denying.url}"},
            "no proxy": {"HTTP_PROXY": f"{dead[0]}|{denying.url};DIRECT"},
            "a fallback proxy": {"HTTP_PROXY": f"{dead[0]};{denying.url}", "FALLBACK_PROXY": fallback.url},
        }
        for number, (which, parameters) in enumerate(lists.items()):
            seen = len(proxy.log), len(fallback.log)
            copy(make_client(tmp_path / str(number), repository, web.url, **parameters))
            if which == "a fallback proxy":
                assert len(fallback.log) >= seen[1] + len(FILES)
            elif which != "no proxy":
                assert len(proxy.log) >= seen[0] + len(FILES)
        client = make_client(tmp_path / "none", repository, web.url, HTTP_PROXY=f"{dead[0]}|{dead[1]};{denying.url}")
        message = refuse(client.run("ls", FQRN), "check the network, the servers and the proxies")
        assert f"{web.url}/cvmfs/{FQRN} via 2 proxies: connection refused" in message
        in_full = client.run("ls", "--debug", FQRN).errors
        for url in dead[:2]:
            assert f"{web.url}/cvmfs/{FQRN} via {url}: connection refused" in in_full
        assert f"via {denying.url}: HTTP 403 (ERR_ACCESS_DENIED" in message


def test_names_that_nobody_knows(tmp_path: Path, repository: Repository, web: Nginx) -> None:
    unknown = "http://no-such-host.invalid"
    dead = f"http://127.0.0.1:{refused_port()}"
    copy(make_client(tmp_path / "host", repository, unknown, dead, web.url))
    copy(make_client(tmp_path / "proxy", repository, web.url, HTTP_PROXY=f"{unknown}:3128;DIRECT"))
    alone = make_client(tmp_path / "alone", repository, unknown)
    refuse(alone.run("ls", FQRN), f"{unknown}/cvmfs/{FQRN}: name not resolved")
    alone = alone.changed([web.url], HTTP_PROXY=f"{unknown}:3128")
    refuse(alone.run("ls", FQRN), f"{web.url}/cvmfs/{FQRN} via {unknown}:3128: proxy name not resolved")


def test_with_nothing_to_go_on_with_every_host_and_proxy_is_named(tmp_path: Path, repository: Repository) -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    with FaultServer(lambda _: Silence()) as silent, FaultServer(lambda _: answer(500)) as broken:
        client = make_client(tmp_path, repository, dead, broken.url, "http://no-such-host.invalid", silent.url)
        done = client.run("cat", f"{FQRN}:/hello")
        message = refuse(done, "cannot fetch .cvmfs", f"of {FQRN}: check the network, the servers and the proxies")
        for reason in (
            f"{dead}/cvmfs/{FQRN}: connection refused",
            f"{broken.url}/cvmfs/{FQRN}: HTTP 500",
            f"http://no-such-host.invalid/cvmfs/{FQRN}: name not resolved",
            f"{silent.url}/cvmfs/{FQRN}: no answer in 1 s",
        ):
            assert reason in message
        assert done.elapsed_s < 4
    assert not (tmp_path / "cache" / "state" / f"{FQRN}.trust").exists()


def test_a_server_that_dies_in_the_middle_of_a_copy(tmp_path: Path, repository: Repository) -> None:
    with SlowServer(repository.document_root, delay_s=0.05) as server:
        client = make_client(tmp_path, repository, server.url)
        # Few at a time, so that something is there and something is missing.
        running = client.start("cp", "-r", "-j", "4", f"{FQRN}:/files", "copy")
        server.wait_for_requests(12, running.is_alive)
        server.stop()
        done = running.finish()
        assert done.code == 5, done
        assert f"{server.url}/cvmfs/{FQRN}: " in done.errors
        assert "Traceback" not in done.errors
        port = server.port
    committed = {path.parent.name + path.name for path in (tmp_path / "cache" / "objects").rglob("??/*")}
    there = {path.name for path in (tmp_path / "copy").iterdir() if not path.name.startswith(".")}
    assert 0 < len(there) < len(FILES)
    with SlowServer(repository.document_root, port=port) as server:
        done = client.run("cp", "-r", f"{FQRN}:/files", "copy")
        copied(client, done)
        assert f"{len(there)} were there already" in done.errors
        asked = server.counted()
    assert all(count == 1 for count in asked.values())
    assert not [text for text in committed if f"/cvmfs/{FQRN}/data/{text[:2]}/{text[2:]}" in asked]
    assert not list(tmp_path.rglob(".cvmfs-py-part*"))
    assert not (tmp_path / ".copy.cvmfs-py-copy").exists()


def test_the_proxy_of_the_environment(tmp_path: Path, repository: Repository, web: Nginx, proxy: Squid) -> None:
    client = make_client(tmp_path / "direct", repository, web.url)
    client.environment.update(http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9", all_proxy="socks5://x")
    copy(client)
    seen = len(proxy.log)
    auto = make_client(tmp_path / "auto", repository, web.url, HTTP_PROXY="auto")
    auto.environment["http_proxy"] = proxy.url
    copy(auto)
    assert len(proxy.log) >= seen + len(FILES)
    lost = make_client(tmp_path / "lost", repository, web.url, HTTP_PROXY="auto")
    done = lost.run("ls", FQRN)
    assert done.code == 2, done
    assert "no proxies were found for CVMFS_HTTP_PROXY=auto; set http_proxy" in done.errors
    lost = lost.changed(HTTP_PROXY="auto;DIRECT")
    assert lost.run("ls", FQRN).code == 0


def test_servers_of_external_data(tmp_path: Path, repository: Repository, web: Nginx) -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    client = make_client(tmp_path, repository, web.url)
    done = client.run("cat", f"{FQRN}:/external/far")
    assert done.code == 2, done
    assert "set CVMFS_EXTERNAL_URL" in done.errors
    refuse(client.changed(EXTERNAL_URL=dead).run("cat", f"{FQRN}:/external/far"), f"{dead}: connection refused")
    # What is in the repository itself is copied all the same.
    done = client.changed(EXTERNAL_URL=dead).run("cp", "-r", f"{FQRN}:/", "copy")
    assert done.code == 5, done
    assert len(done.error_lines) == 2, done
    assert f"{dead}: connection refused" in done.error_lines[0]
    assert "1 entr" in done.error_lines[1]
    for name, content in FILES.items():
        assert (tmp_path / "copy" / "files" / name).read_bytes() == content
    with Nginx(repository.external_root) as external:
        both = client.changed(EXTERNAL_URL=f"{dead};{external.url}")
        assert both.run("cat", f"{FQRN}:/external/far").output == EXTERNAL
        done = both.run("cp", "-r", f"{FQRN}:/", "copy")
        assert done.code == 0, done
        assert "1 file, 3 directories, 0 links, 14.6 KiB" in done.errors
        assert (tmp_path / "copy" / "external" / "far").read_bytes() == EXTERNAL
    assert os.listdir(tmp_path / "cache" / "txn") == []
