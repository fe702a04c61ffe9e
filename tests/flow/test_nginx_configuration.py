"""The web server configuration that is handed out: real nginx, the headers that clients and proxies rely on."""

from __future__ import annotations

import http.client
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulator.web import PROGRAM, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
ZOO = TOP / "tests" / "data" / "zoo"
NAME = "my.example.org"


@contextmanager
def served(tmp_path: Path) -> Iterator[int]:
    """nginx with the example, its port and directory replaced, and nothing else changed."""
    assert PROGRAM is not None, "nginx is not installed"
    port = free_port()
    text = (TOP / "conf" / "nginx.conf").read_text()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(f"/srv/{NAME}/", f"{ZOO}/server/")
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


def test_headers_are_those_of_the_reference_server(tmp_path: Path) -> None:
    storage = ZOO / "server"
    object_path = next((storage / "data").glob("*/*")).relative_to(storage)
    with served(tmp_path) as port:
        status, headers, body = ask(port, f"/cvmfs/{NAME}/.cvmfspublished")
        assert (status, body) == (200, (storage / ".cvmfspublished").read_bytes())
        assert (headers["cache-control"], headers["content-type"]) == ("max-age=61", "application/x-cvmfs")
        status, headers, body = ask(port, f"/cvmfs/{NAME}/{object_path}")
        assert (status, body) == (200, (storage / object_path).read_bytes())
        assert (headers["cache-control"], headers["content-type"]) == ("max-age=259200", "application/octet-stream")
        assert "content-encoding" not in headers


def test_nothing_else_is_served(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        for path in (f"/cvmfs/{NAME}.keys/", f"/cvmfs/{NAME}/../zoo.test.org.pub", f"/cvmfs/{NAME}/data/txn/x"):
            assert ask(port, path)[0] in (400, 403, 404), path
