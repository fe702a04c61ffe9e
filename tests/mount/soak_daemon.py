"""The daemon of a soak: what it holds while nobody wants anything of it, and what of that is too much."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.syscalls import MountFlag
from tests.mount.soak_world import FQRN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulator.command import Client

REST_S = 60.0  # in which everything has to come to an end
CALM_S = 3.0  # without any change
GROWTH_BYTES = 8 << 20  # of the daemon's memory from one rest to the next
GROWTH_BUSY_BYTES = 16 << 20  # and of the median while it works: what is under way differs
THREADS = 24  # those that wait for disks, those of trio, and the one of the loop
KEPT = 128 + 64  # objects that are kept open: read last, and opened ahead for programs
ROOM = 2  # descriptors of a kind, besides objects, that may come and go
SPARE_TASKS = 2  # with which libfuse's loop waits for requests
CONNECTIONS = 16  # that are kept for the next download, and what an event loop has
_COUNTS = "counts since the mount: "
# What a daemon says while servers fail, and nothing else.
_EXPECTED = re.compile(
    r"EIO at \w+: cannot fetch [^(]+\(tried http://|"
    rf"{re.escape(FQRN)}: (no news, going on with what is known: |a server answers again$)"
)


class DaemonGoneError(Exception):
    """It has ended, and nobody has asked for that."""


@dataclass(slots=True)
class Held:
    """What the daemon holds."""

    descriptors: Counter[str]  # by what they lead to
    memory_bytes: int
    threads: int
    now: dict[str, int]  # the daemon's own words
    idle_tasks: int  # when it was mounted

    def __str__(self) -> str:
        descriptors = ", ".join(f"{kind} {count}" for kind, count in sorted(self.descriptors.items()))
        words = ", ".join(f"{name} {count}" for name, count in self.now.items())
        return f"{words}; descriptors: {descriptors}; threads {self.threads}; memory {self.memory_bytes >> 10} KiB"

    def excess(self) -> Iterator[str]:
        """What may not be held by a mount without users, whatever happened to it."""
        now = self.now
        for what in ("waiting_requests", "lookups", "downloads"):
            if now[what]:
                yield f"{what} left: {now[what]}"
        if now["pins"] != now["catalogs"] + now["kept_objects"]:
            yield f"pins: {now['pins']}, but {now['catalogs']} catalogs and {now['kept_objects']} kept objects"
        if now["kept_objects"] > KEPT:
            yield f"objects kept open: {now['kept_objects']}"
        # SQLite has one more of a catalog, unless that was evicted at the moment when it was opened.
        pinned, objects = now["catalogs"] + now["kept_objects"], self.descriptors["object"]
        if not pinned <= objects <= pinned + now["catalogs"]:
            yield f"descriptors of objects: {objects}, not one a kept object and one or two a catalog"
        if now["tasks"] > self.idle_tasks + SPARE_TASKS:
            yield f"tasks: {now['tasks']}, and {self.idle_tasks} at the beginning"
        if self.descriptors["socket"] > CONNECTIONS:
            yield f"sockets: {self.descriptors['socket']}"
        if self.threads > THREADS:
            yield f"threads: {self.threads}"


class Daemon:
    """A mount, with what it says in a file: a pipe that nobody empties would stop it."""

    def __init__(self, client: Client, mountpoint: Path, log: Path, *options: str) -> None:
        mountpoint.mkdir()
        self.mountpoint = mountpoint
        self.log = log
        self.rests: list[Held] = []
        self.idle_tasks = 0
        self.samples: list[tuple[float, int]] = []  # of its memory while it works
        words = client.command("mount", "-f", *options, FQRN, str(mountpoint))
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                words, cwd=client.directory, env=client.environment, stdout=subprocess.PIPE, stderr=file
            )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.end()
            raise SystemExit(f"not mounted: {self.log.read_text()}")
        time.sleep(1)  # what was needed to begin ends
        self.check_alive()
        self.idle_tasks = self.held().now["tasks"]

    def end(self) -> int:
        with suppress(OSError):
            syscalls.unmount(str(self.mountpoint), lazily=True)
        with self.process:
            try:
                return self.process.wait(REST_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                return -signal.SIGKILL

    def shrink(self) -> None:
        """Makes the kernel forget the names of this mount that nobody uses, and so their inodes and pages."""
        flags = MountFlag.REMOUNT | MountFlag.READ_ONLY | MountFlag.NO_SUID | MountFlag.NO_DEVICES
        syscalls.mount("", str(self.mountpoint), "", flags)

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            words = self.log.read_text(errors="replace")[-3000:]
            raise DaemonGoneError(f"the daemon ended with {self.process.returncode}, and its last words are: {words}")

    def sample(self) -> None:
        self.check_alive()
        self.samples.append((time.monotonic(), self._memory_bytes()))

    def rest(self) -> None:
        """Waits until it holds no more than it need, and notes that."""
        limit_s = time.monotonic() + REST_S
        calm_since_s, last = time.monotonic(), None
        while time.monotonic() < limit_s and time.monotonic() < calm_since_s + CALM_S:
            for _ in range(3):  # a directory is forgotten after what is in it
                self.shrink()
            time.sleep(0.5)
            held = self.held()
            state = held.now, held.threads, held.descriptors
            if state != last or any(held.excess()):
                calm_since_s, last = time.monotonic(), state
        self.rests.append(held)

    def held(self) -> Held:
        place = f"/proc/{self.process.pid}"
        descriptors: Counter[str] = Counter()
        for number in os.listdir(f"{place}/fd"):
            with suppress(FileNotFoundError):
                descriptors[kind_of(os.readlink(f"{place}/fd/{number}"))] += 1
        threads = len(os.listdir(f"{place}/task"))
        return Held(descriptors, self._memory_bytes(), threads, self._now(), self.idle_tasks)

    def faults(self) -> Iterator[str]:
        """What was wrong with it, from first to last."""
        for line in unexpected(self.log.read_text(errors="replace")):
            yield f"the daemon says: {line[:1500]}"
        for held in self.rests:
            yield from held.excess()
        if len(self.rests) < 2:
            return
        first, last = self.rests
        for kind in {*first.descriptors, *last.descriptors} - {"object", "socket"}:
            if last.descriptors[kind] > first.descriptors[kind] + ROOM:
                yield f"descriptors of {kind}: {first.descriptors[kind]}, then {last.descriptors[kind]}"
        if last.memory_bytes > first.memory_bytes + GROWTH_BYTES:
            yield f"memory at rest: {first.memory_bytes:,}, then {last.memory_bytes:,}"
        before, after = self.busy_bytes()
        if after > before + GROWTH_BUSY_BYTES:
            yield f"memory while it works: {before:,}, then {after:,}"

    def busy_bytes(self) -> tuple[int, int]:
        """The median of its memory while it works: at the end of the first half, in the second half."""
        sizes = [size for _, size in self.samples]
        middle = len(sizes) // 2
        if not middle:
            return 0, 0
        return int(statistics.median(sizes[middle // 2 : middle])), int(statistics.median(sizes[middle:]))

    def _memory_bytes(self) -> int:
        """Resident. The proportional size changes with every other Python that starts."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        (memory_kib,) = (int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        return memory_kib << 10

    def _now(self) -> dict[str, int]:
        before = self._told()
        self.process.send_signal(signal.SIGUSR1)
        limit_s = time.monotonic() + REST_S
        while len(told := self._told()) == len(before):
            self.check_alive()
            assert time.monotonic() < limit_s, "the daemon does not tell its counts"
            time.sleep(0.01)
        now: dict[str, int] = json.loads(told[-1])["now"]
        return now

    def _told(self) -> list[str]:
        lines = self.log.read_text(errors="replace").split("\n")[:-1]
        return [line.partition(_COUNTS)[2] for line in lines if _COUNTS in line]


def unexpected(log: str) -> Sequence[str]:
    """What a daemon has no reason to say when nothing but its servers fails. Lines that belong together are one."""
    said: list[str] = []
    for line in log.splitlines():
        if line.startswith("cvmfs-py: ") or not said:
            said.append(line.removeprefix("cvmfs-py: "))
        else:
            said[-1] += "\n" + line
    return [each for each in said if "\n" in each or not (each.startswith(_COUNTS) or _EXPECTED.match(each))]


def kind_of(target: str) -> str:
    """What a descriptor leads to, without what tells one of its kind from another."""
    if "/cache/objects/" in target:
        return "object"
    if "/cache/" in target:
        return "cache"
    return target.partition(":")[0] if ":[" in target else target.rpartition("/")[2]
