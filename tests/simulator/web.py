"""A real web server (nginx) on a free port, over a directory.

    with Nginx(root) as web:            # web.url, web.port
        web.kill()                      # dies at once; connections are cut, new ones are refused

Options: `limit_rate_bytes_s` slows every connection down, `statuses` maps path prefixes to statuses that are returned
instead of files, `log` tells where requests are logged, `tls` (certificate file, key file) makes it an https server.
Everything that it writes is in a directory of its own that goes away with the block.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

_CONFIGURATION = """
daemon off;
{user}
pid {state}/nginx.pid;
error_log {state}/error.log warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    log_format plain '$status $request_method $request_uri $http_user_agent';
    access_log {state}/access.log plain;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    keepalive_requests 100000;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port}{ssl};
        {certificate}
        root {root};
        {locations}
        location / {{ {rate} }}
    }}
}}
"""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 20) -> None:
    """Returns when somebody listens at the port; raises when the process ends before."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class Nginx:
    """One server for the length of the block."""

    def __init__(
        self,
        root: Path | str,
        *,
        limit_rate_bytes_s: int = 0,
        statuses: Mapping[str, int] | None = None,
        tls: tuple[Path, Path] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self._scheme = "https" if tls else "http"
        self._root = Path(root).absolute()
        self._limit_rate_bytes_s = limit_rate_bytes_s
        self._statuses = dict(statuses or {})
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._state = Path()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[str]:
        """Finished requests, a line each: status, method, URI, user agent."""
        return (self._state / "access.log").read_text(errors="replace").splitlines()

    def __enter__(self) -> Nginx:
        if PROGRAM is None:
            raise FileNotFoundError("nginx is not installed")
        self._state = Path(tempfile.mkdtemp(prefix="cvmfs-py-nginx-"))
        configuration = self._state / "nginx.conf"
        configuration.write_text(self._configuration())
        command = [PROGRAM, "-c", str(configuration), "-p", str(self._state), "-e", str(self._state / "error.log")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for_port(self.port, self._process)
        except OSError as error:
            text = (self._state / "error.log").read_text(errors="replace")
            self.stop()
            raise OSError(f"nginx does not start: {text}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Dies, as far as clients can tell, at once."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()  # the fast way of nginx: connections are closed, workers end
            process.wait(20)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def _configuration(self) -> str:
        certificate = f"ssl_certificate {self._tls[0]}; ssl_certificate_key {self._tls[1]};" if self._tls else ""
        return _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",  # workers must be able to read private directories
            state=self._state,
            port=self.port,
            root=self._root,
            ssl=" ssl" if self._tls else "",
            certificate=certificate,
            rate=f"limit_rate {self._limit_rate_bytes_s};" if self._limit_rate_bytes_s else "",
            locations=" ".join(f"location {path} {{ return {code}; }}" for path, code in self._statuses.items()),
        )
