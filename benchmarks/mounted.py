"""A mount that is measured: `cvmfs-py mount -f` as a process of its own, and what it, its server and the kernel did.

Messages of the kernel are counted by the daemon, which tells them on SIGUSR1; CPU time and memory are the kernel's
word about the daemon's process; requests are counted by the server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import cvmfs_py, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.serving import DelayedServer
    from benchmarks.workbench import Workbench

READY_S = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Work:
    """What was done between two moments."""

    messages: Counter[str] = field(default_factory=Counter)  # by operation
    http_requests: int = 0
    daemon_cpu_s: float = 0.0
    peak_rss_bytes: int = 0

    def words(self) -> str:
        most = ", ".join(f"{name} {count:,}" for name, count in self.messages.most_common(4))
        return (
            f"FUSE {self.messages.total():,}{f' ({most})' if most else ''}, HTTP {self.http_requests:,},"
            f" CPU {self.daemon_cpu_s:.2f} s, RSS {self.peak_rss_bytes >> 20} MiB"
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "messages": dict(sorted(self.messages.items())),
            "http_requests": self.http_requests,
            "daemon_cpu_s": round(self.daemon_cpu_s, 3),
            "peak_rss_bytes": self.peak_rss_bytes,
        }


class Mounted:
    """A mount for the length of the block."""

    def __init__(self, bench: Workbench, server: DelayedServer, cache: Path, engine: str) -> None:
        self.top = bench.fresh("mount")
        self._bench = bench
        self._server = server
        options = [*server.options(cache), "--server", server.url]
        self._command = cvmfs_py("mount", "-f", "--engine", engine, *options, server.fqrn, str(self.top))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mounted:
        self.top.mkdir(parents=True)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._bench.programs.environment,
        )
        assert self._process.stdout is not None
        if not self._line(self._process.stdout.fileno()):
            self.__exit__()
            raise SystemExit(f"benchmarks: not mounted: {' '.join(self._command)}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        umount = program("umount")
        if umount and os.path.ismount(self.top):
            subprocess.run([umount, str(self.top)], check=False)
        with self._process:
            try:
                self._process.wait(READY_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextmanager
    def working(self) -> Iterator[Work]:
        """What happens in the block is filled in at its end."""
        work = Work()
        messages = self._messages()
        self._server.served()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew
        cpu_s = self._cpu_s()
        yield work
        work.daemon_cpu_s = self._cpu_s() - cpu_s
        work.peak_rss_bytes = self.memory_bytes("VmHWM")
        work.http_requests = self._server.served().requests
        work.messages = Counter(self._messages())
        work.messages.subtract(messages)
        work.messages = +work.messages

    def memory_bytes(self, name: str = "VmRSS") -> int:
        """VmRSS: now; VmHWM: the most."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) * 1024
        raise SystemExit("benchmarks: the daemon has ended")

    def _messages(self) -> Mapping[str, int]:
        """The counts since the mount."""
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGUSR1)
        while line := self._line(self._process.stderr.fileno()):
            head, found, counts = line.partition("counts since the mount: ")
            if found:
                requests: dict[str, int] = json.loads(counts)["requests"]
                return requests
            self._bench.say(f"the daemon says: {head}")
        raise SystemExit("benchmarks: the daemon does not tell its counts")

    def _line(self, fd: int) -> str:
        """One line, read without a buffer; empty at the end."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([fd], [], [], READY_S)
            part = os.read(fd, 1) if ready else b""
            if not part:
                return ""
            line += part
        return line.decode(errors="replace").strip()

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S


def drop_caches(what: int) -> None:
    """1: pages of files, 2: dentries and inodes, 3: both. Of the whole machine."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(str(what))
