"""The web server configuration that is handed out: real nginx, the headers that clients and proxies rely on."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulator.web import PROGRAM, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
ZOO = TOP / "tests" / "data" / "zoo"
NAME = "my.example.org"


def in_readme() -> str:
    """The location that the README shows, in the server of the example."""
    location = (TOP / "README.md").read_text().partition("```nginx\n")[2].partition("```")[0]
    return f"server {{ listen 80;\n{location}\n}}"


CONFIGURATIONS = {"conf": (TOP / "conf" / "nginx.conf").read_text(), "README": in_readme()}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A repository with an object that is being written, and keys beside it."""
    made = tmp_path / "srv" / NAME
    shutil.copytree(ZOO / "server", made)
    (made / "data" / "txn").mkdir(exist_ok=True)
    (made / "data" / "txn" / "4711-0").write_bytes(b"half")
    keys = made.with_name(f"{NAME}.keys")
    keys.mkdir()
    (keys / f"{NAME}.masterkey").write_bytes(b"secret")
    return made


@contextmanager
def served(tmp_path: Path, storage: Path, text: str) -> Iterator[int]:
    """nginx with a configuration, its port and directory replaced, and nothing else changed."""
    assert PROGRAM is not None, "nginx is not installed"
    port = free_port()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(f"/srv/{NAME}/", f"{storage}/")
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; {user} pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{ }}\n"
        f"http {{ access_log off; {paths}\n{text}\n}}\n"
    )
    process = subprocess.Popen([PROGRAM, "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_headers_are_those_of_the_reference_server(tmp_path: Path, storage: Path, configuration: str) -> None:
    object_path = next((storage / "data").glob("[0-9a-f][0-9a-f]/*")).relative_to(storage)
    with served(tmp_path, storage, CONFIGURATIONS[configuration]) as port:
        status, headers, body = ask(port, f"/cvmfs/{NAME}/.cvmfspublished")
        assert (status, body) == (200, (storage / ".cvmfspublished").read_bytes())
        assert (headers["cache-control"], headers["content-type"]) == ("max-age=61", "application/x-cvmfs")
        status, headers, body = ask(port, f"/cvmfs/{NAME}/{object_path}")
        assert (status, body) == (200, (storage / object_path).read_bytes())
        assert (headers["cache-control"], headers["content-type"]) == ("max-age=259200", "application/octet-stream")
        assert "content-encoding" not in headers


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_other_signed_files_and_names(tmp_path: Path, storage: Path, configuration: str) -> None:
    (storage / ".cvmfs_status.json").write_text("{}")
    alternative = f".cvmfsalt-{'0' * 40}C"
    (storage / alternative).write_bytes(b"catalog")
    with served(tmp_path, storage, CONFIGURATIONS[configuration]) as port:
        found = {}
        for name in (".cvmfswhitelist", ".cvmfsreflog", ".cvmfs_master_replica", ".cvmfs_status.json", alternative):
            status, headers, _ = ask(port, f"/cvmfs/{NAME}/{name}")
            found[name] = (status, headers["content-type"], headers["cache-control"])
    soon = (200, "application/x-cvmfs", "max-age=61")
    assert found == {
        ".cvmfswhitelist": soon,
        ".cvmfsreflog": soon,
        ".cvmfs_master_replica": soon,
        ".cvmfs_status.json": (200, "application/json", "max-age=61"),
        alternative: (200, "application/octet-stream", "max-age=259200"),
    }


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_nothing_else_is_served(tmp_path: Path, storage: Path, configuration: str) -> None:
    with served(tmp_path, storage, CONFIGURATIONS[configuration]) as port:
        for path in (
            f"/cvmfs/{NAME}.keys/{NAME}.masterkey",
            f"/cvmfs/{NAME}/../{NAME}.keys/{NAME}.masterkey",
            f"/cvmfs/{NAME}/%2e%2e/{NAME}.keys/{NAME}.masterkey",
            f"/cvmfs/{NAME}/data/txn/4711-0",
            f"/cvmfs/{NAME}/",
        ):
            assert ask(port, path)[0] in (400, 403, 404), path
