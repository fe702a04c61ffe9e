"""A real caching proxy (Squid) on a free port.

    with Squid() as proxy:              # proxy.url, proxy.port; takes a second or two to start
        proxy.kill()

It caches in memory only, forwards to servers at 127.0.0.1 alone, and leaves nothing behind. `deny` makes it refuse
everything (HTTP 403).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.simulator.web import free_port, wait_for_port

PROGRAM = shutil.which("squid", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

_CONFIGURATION = """
http_port 127.0.0.1:{port}
pid_filename {state}/squid.pid
access_log stdio:{state}/access.log
cache_log {state}/cache.log
cache_store_log none
coredump_dir {state}
cache_mem 16 MB
maximum_object_size_in_memory 8 MB
shutdown_lifetime 0 seconds
pinger_enable off
netdb_filename none
visible_hostname squid.test
{user}
acl local dst 127.0.0.0/8
http_access {verdict} local
http_access {verdict} CONNECT
http_access deny all
via on
connect_timeout 2 seconds
forward_max_tries 1
"""


class Squid:
    """One proxy for the length of the block."""

    def __init__(self, *, deny: bool = False, port: int | None = None) -> None:
        self.port = port or free_port()
        self._deny = deny
        self._process: subprocess.Popen[bytes] | None = None
        self._state = Path()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[str]:
        """Finished requests in Squid's own format."""
        return (self._state / "access.log").read_text(errors="replace").splitlines()

    def __enter__(self) -> Squid:
        if PROGRAM is None:
            raise FileNotFoundError("squid is not installed")
        self._state = Path(tempfile.mkdtemp(prefix="cvmfs-py-squid-"))
        self._state.chmod(0o777)  # Squid gives root's rights up
        configuration = self._state / "squid.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                port=self.port,
                state=self._state,
                user="cache_effective_user nobody" if os.geteuid() == 0 else "",
                verdict="deny" if self._deny else "allow",
            )
        )
        # in the foreground and without a supervising parent, so that the process is the proxy
        command = [PROGRAM, "-N", "-f", str(configuration)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_port(self.port, self._process)
        except OSError as error:
            log = self._state / "cache.log"
            text = log.read_text(errors="replace") if log.exists() else ""
            self.stop()
            raise OSError(f"squid does not start: {text[-2000:]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(20)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._state, ignore_errors=True)
