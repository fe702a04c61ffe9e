"""Real mounts for tests, as a user makes them: `cvmfs-py mount -f` as a process of its own, over a served repository.

    with Mounted(client, tmp_path / "mnt") as top:      # the mountpoint, when the mount answers
        ...

Whatever happens, nothing stays mounted, and nobody waits for ever: a daemon that is there after `LIMIT_S` is killed,
which ends every wait for it with an error. The engine is a parameter: every test of this folder that uses `engine` runs
once with each.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse import syscalls
from cvmfs_py.mount.engines import ENGINES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from tests.simulator.command import Client, Running

READY_S = 60.0
END_S = 30.0
LIMIT_S = 150.0
every_engine = pytest.mark.parametrize("engine", ENGINES)


class Mounted:
    """A mount for the length of a block. `process` is the daemon, `errors` what it has said when it has ended."""

    def __init__(
        self, client: Client, mountpoint: Path, *options: str, engine: str = "channel", wrapper: Sequence[str] = ()
    ) -> None:
        self.client = client
        self.mountpoint = mountpoint
        self.wrapper = wrapper
        self.errors = ""
        self._options = (*options, "--engine", engine)
        self._running: Running | None = None
        self._watchdog: threading.Timer | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._running is not None
        return self._running.process

    def __enter__(self) -> Path:
        self.mountpoint.mkdir(exist_ok=True)
        self._running = self.start()
        self._watchdog = threading.Timer(LIMIT_S, self._running.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], READY_S)
        line = stream.readline() if ready else b""
        if not line:
            self._unmount()
            done = self._running.kill()
            raise AssertionError(f"not mounted: {line!r} {done}")
        return self.mountpoint

    def start(self) -> Running:
        return self.client.start(*self.words(), wrapper=self.wrapper)

    def words(self) -> tuple[str, ...]:
        """The command."""
        return ("mount", "-f", *self._options, self.client.fqrn, str(self.mountpoint))

    def __exit__(self, *_: object) -> None:
        self._unmount()
        try:
            if self._running is not None:
                self.errors = self._running.finish(END_S).errors
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()

    def end(self) -> int:
        """Unmounts as a user would; the daemon's exit code."""
        assert self._running is not None
        syscalls.unmount(str(self.mountpoint), lazily=False)
        done = self._running.finish(END_S)
        self.errors, self._running = done.errors, None
        return done.code

    def _unmount(self) -> None:
        for _ in range(4):
            try:
                syscalls.unmount(str(self.mountpoint), lazily=True)
            except OSError:
                return
