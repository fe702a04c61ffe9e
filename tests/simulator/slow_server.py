"""A web server over a directory that takes its time for every answer, and remembers what was asked for.

    with SlowServer(repository.document_root, delay_s=0.02) as server:      # server.url, server.port
        server.counted()["/cvmfs/test.example.org/data/ab/cdef"]            # how often
        server.wait_for_requests(100)                                       # until so many have come

An answer is sent whole or, when the block ends or `stop` is called, not at all.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulator.fault_server import FaultServer, Pause, SeenRequest, Steps, answer

if TYPE_CHECKING:
    from collections.abc import Callable


class SlowServer(FaultServer):
    """Serves files for the length of the block."""

    def __init__(self, root: Path | str, *, delay_s: float = 0.0, port: int = 0) -> None:
        self.root = Path(root)
        self.delay_s = delay_s
        super().__init__(self._serve_file, port=port)

    def counted(self, since: int = 0) -> Counter[str]:
        """How often each path was asked for, from some request on."""
        return Counter(self.paths[since:])

    def wait_for_requests(self, count: int, is_alive: Callable[[], bool] = lambda: True, timeout_s: float = 30) -> None:
        """Returns when `count` requests have come in all, or who sends them is no more."""
        deadline = time.monotonic() + timeout_s
        while len(self.requests) < count and is_alive():
            assert time.monotonic() < deadline, f"{len(self.requests)} requests instead of {count} in {timeout_s} s"
            time.sleep(0.001)

    def _serve_file(self, request: SeenRequest) -> Steps:
        path = self.root / request.path.lstrip("/")
        body = answer(200, path.read_bytes()) if path.is_file() else answer(404)
        return [Pause(self.delay_s), body] if self.delay_s else body
