"""A soak: readers of a mount that is never left in peace, and what the daemon holds when they have gone.

    ./dev soak --seconds 600 --engine channel --seed 1

Readers (`soak_reader`) do random things and check every answer; meanwhile they are killed and interrupted, the server
fails in every way, revisions are published, the kernel's caches are dropped, and the cache is too small for everything.
Twice all come to rest: at half time and at the end, and the daemon must hold no more the second time than the first.
Everything is chosen by the seed, which is told; what meets what is up to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvmfs_py.fuse import syscalls
from cvmfs_py.mount.engines import ENGINES
from tests.mount.soak_world import FAULTS, FQRN, Server, Source
from tests.simulator.command import Client
from tests.simulator.fault_server import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable

READERS = 4
CACHE_MIB = 12  # less than half of the content
LONGEST_S = 60.0  # that an operation may take, whatever happens
REST_S = 60.0  # in which everything has to come to an end
CALM_S = 3.0  # without any change
GROWTH_BYTES = 8 << 20  # of the daemon's memory from one rest to the next
KEPT_OPEN = 300  # objects: those that were read last, those that may be read next, and catalogs
READER = Path(__file__).with_name("soak_reader.py")


@dataclass(slots=True)
class Held:
    """What the daemon holds while nobody wants anything."""

    descriptors: Counter[str]  # by what they lead to
    memory_bytes: int
    threads: int
    now: dict[str, int]  # the daemon's own words

    def __str__(self) -> str:
        descriptors = ", ".join(f"{kind} {count}" for kind, count in sorted(self.descriptors.items()))
        words = ", ".join(f"{name} {count}" for name, count in self.now.items())
        return f"{words}; descriptors: {descriptors}; threads {self.threads}; memory {self.memory_bytes >> 10} KiB"


@dataclass(slots=True)
class Report:
    """What happened, and what was wrong with it."""

    done: int = 0
    interrupted: int = 0
    longest_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)  # while the server failed
    chaos: Counter[str] = field(default_factory=Counter)
    rests: list[Held] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.done:,} operations, {self.interrupted} interrupted, the longest took {self.longest_s:.1f} s",
                f"errors while the server failed: {dict(self.errors)}",
                f"meanwhile: {dict(self.chaos)}",
                *(f"at rest: {held}" for held in self.rests),
                *(f"WRONG: {each}" for each in self.wrong),
            ]
        )


class Daemon:
    """The mount, with what it says in a file: a pipe that nobody empties would stop it."""

    def __init__(self, client: Client, mountpoint: Path, engine: str, directory: Path) -> None:
        mountpoint.mkdir()
        self.mountpoint = mountpoint
        self.log = directory / "daemon.log"
        words = client.command("mount", "-f", "--engine", engine, FQRN, str(mountpoint))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                words, cwd=directory, env=client.environment, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.end()
            raise SystemExit(f"not mounted: {self.log.read_text()}")

    def end(self) -> int:
        with suppress(OSError):
            syscalls.unmount(str(self.mountpoint), lazily=True)
        with self.process:
            try:
                return self.process.wait(REST_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                return -signal.SIGKILL

    def held(self) -> Held:
        place = f"/proc/{self.process.pid}"
        descriptors: Counter[str] = Counter()
        for number in os.listdir(f"{place}/fd"):
            with suppress(FileNotFoundError):
                descriptors[kind_of(os.readlink(f"{place}/fd/{number}"))] += 1
        lines = Path(f"{place}/smaps_rollup").read_text(encoding="ascii").splitlines()
        (memory_kib,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return Held(descriptors, memory_kib << 10, len(os.listdir(f"{place}/task")), self._now())

    def _now(self) -> dict[str, int]:
        before = self._told()
        self.process.send_signal(signal.SIGUSR1)
        limit_s = time.monotonic() + REST_S
        while len(told := self._told()) == len(before):
            assert time.monotonic() < limit_s, "the daemon does not tell its counts"
            time.sleep(0.01)
        now: dict[str, int] = json.loads(told[-1])["now"]
        return now

    def _told(self) -> list[str]:
        lines = self.log.read_text(errors="replace").split("\n")[:-1]
        return [line.partition("counts since the mount: ")[2] for line in lines if "counts since the mount: " in line]


def kind_of(target: str) -> str:
    """What a descriptor leads to, without what tells one of its kind from another."""
    if "/cache/objects/" in target:
        return "object"
    if "/cache/" in target:
        return "cache"
    return target.partition(":")[0] if ":[" in target else target.rpartition("/")[2]


class Reader:
    """A process that reads, and what it says of it."""

    def __init__(self, seed: int, top: Path, facts: Path, directory: Path) -> None:
        self._output = directory / f"reader-{seed}"
        self._errors = directory / f"reader-{seed}.errors"
        words = [sys.executable, "-I", "-S", str(READER), str(seed), str(top), str(facts)]
        with open(self._output, "wb") as output, open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(words, cwd="/", stdout=output, stderr=errors)
        self.spoke_s = time.monotonic()
        self._taken = 0

    def lines(self) -> list[dict[str, Any]]:
        """What it has said since the last call."""
        lines = self._output.read_bytes()[self._taken :].split(b"\n")[:-1]
        self._taken += sum(len(line) + 1 for line in lines)
        if lines:
            self.spoke_s = time.monotonic()
        return [json.loads(line) for line in lines]

    @property
    def has_spoken(self) -> bool:
        return self._taken > 0

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(LONGEST_S)

    @property
    def last_words(self) -> str:
        return self._errors.read_text(errors="replace").strip().rpartition("\n")[2]


class Soak:
    """One run."""

    def __init__(self, directory: Path, engine: str, seed: int) -> None:
        self.report = Report()
        self._directory = directory
        self._engine = engine
        self._chance = random.Random(seed)
        self._serial = seed * 1000
        self._source = Source(directory, self._chance)
        self._server = Server(self._source.own.storage, random.Random(seed))
        self._facts = directory / "facts.json"
        self._facts.write_text(json.dumps(self._source.facts()))
        self._readers: list[Reader] = []
        self._chaos: tuple[tuple[str, Callable[[], None]], ...] = (
            *[("readers interrupted", self._interrupt)] * 6,
            *[("readers killed", self._kill)] * 3,
            *[("faults of the server", self._fail)] * 3,
            *[("revisions", self._source.publish)] * 2,
            ("dentries dropped", lambda: self._drop(2)),
            ("pages dropped", lambda: self._drop(1)),
        )

    def run(self, seconds: float) -> Report:
        with ExitStack() as held:
            server = held.enter_context(FaultServer(self._server))
            key = self._source.own.place.public_key_file
            limits = {"TIMEOUT": "3", "TIMEOUT_DIRECT": "3", "MAX_RETRIES": "1", "KCACHE_TIMEOUT": "1"}
            client = Client(
                self._directory, FQRN, [server.url], key, QUOTA_LIMIT=str(CACHE_MIB), STRICT_MOUNT="no", **limits
            )
            daemon = Daemon(client, self._directory / "mnt", self._engine, self._directory)
            try:
                for _ in range(2):
                    self._disturb(daemon, seconds / 2)
                    self._rest(daemon)
            finally:
                for reader in self._readers:
                    reader.process.kill()
                self._server.end()
                code = daemon.end()
            if code:
                self.report.wrong.append(f"the daemon ended with {code}")
            self._judge(daemon.log)
        return self.report

    def _disturb(self, daemon: Daemon, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            while len(self._readers) < READERS:
                self._serial += 1
                self._readers.append(Reader(self._serial, daemon.mountpoint, self._facts, self._directory))
            time.sleep(self._chance.random() * 0.5)
            name, act = self._chance.choice(self._chaos)
            act()
            self.report.chaos[name] += 1
            self._listen()

    def _rest(self, daemon: Daemon) -> None:
        """All readers go, the kernel forgets, and the daemon is looked at when it holds nothing that it need not."""
        self._server.end()
        for reader in self._readers:
            reader.end(signal.SIGTERM)
        self._listen()
        self._readers.clear()
        limit_s = time.monotonic() + REST_S
        calm_since_s, last = time.monotonic(), None
        while time.monotonic() < limit_s and time.monotonic() < calm_since_s + CALM_S:
            for _ in range(3):  # a directory is forgotten after what is in it
                self._drop(2)
            time.sleep(0.5)
            held = daemon.held()
            now = held.now["lookups"], held.now["tasks"], held.threads, held.descriptors
            if now != last:
                calm_since_s, last = time.monotonic(), now
        self.report.rests.append(held)

    def _listen(self) -> None:
        report = self.report
        for reader in list(self._readers):
            for said in reader.lines():
                report.done += said.get("done", 0)
                report.interrupted += said.get("interrupted", 0)
                report.longest_s = max(report.longest_s, said.get("longest", 0.0))
                if "wrong" in said:
                    report.wrong.append(said["wrong"])
                if "error" in said:
                    self._note_error(f"{said['what']}: {os.strerror(said['error'])}", said["began"], said["ended"])
            code = reader.process.poll()
            if code is not None:
                self._readers.remove(reader)
                now_s = time.monotonic()
                if code == -signal.SIGBUS:  # a page of a mapped file could not be had
                    self._note_error("SIGBUS", now_s - 1, now_s)
                elif code not in (-signal.SIGKILL, -signal.SIGTERM):
                    report.wrong.append(f"a reader ended with {code}: {reader.last_words}")
            elif time.monotonic() - reader.spoke_s > LONGEST_S:
                report.wrong.append(f"a reader has said nothing for {LONGEST_S:g} s")
                reader.end(signal.SIGKILL)

    def _note_error(self, what: str, began_s: float, ended_s: float) -> None:
        if self._server.may_be_felt(began_s, ended_s):
            self.report.errors[what.rpartition(": ")[2]] += 1
        else:
            self.report.wrong.append(f"{what}, while nothing failed")

    def _judge(self, log: Path) -> None:
        wrong = self.report.wrong
        first, last = self.report.rests
        for held in self.report.rests:
            if held.now["lookups"]:
                wrong.append(f"{held.now['lookups']} lookups are left")
            if held.now["pins"] > KEPT_OPEN or held.descriptors["object"] > 2 * KEPT_OPEN:
                wrong.append(f"{held.now['pins']} objects are open")
        for kind in {*first.descriptors, *last.descriptors} - {"object"}:
            if last.descriptors[kind] > first.descriptors[kind] + 2:
                wrong.append(f"descriptors of {kind}: {first.descriptors[kind]}, then {last.descriptors[kind]}")
        if last.now["tasks"] > first.now["tasks"]:
            wrong.append(f"tasks: {first.now['tasks']}, then {last.now['tasks']}")
        if last.memory_bytes > first.memory_bytes + GROWTH_BYTES:
            wrong.append(f"memory: {first.memory_bytes:,}, then {last.memory_bytes:,}")
        text = log.read_text(errors="replace")
        for bad in ("Traceback", "never closed", "NoProgress"):
            if bad in text:
                wrong.append(f"the daemon's log has {bad}: {text[text.index(bad) - 200 :][:1500]}")

    # --- what happens to them

    def _interrupt(self) -> None:
        ready = [reader for reader in self._readers if reader.has_spoken]
        if ready:
            self._chance.choice(ready).process.send_signal(signal.SIGUSR2)

    def _kill(self) -> None:
        if self._readers:
            self._chance.choice(self._readers).process.kill()

    def _fail(self) -> None:
        self._server.begin(self._chance.choice(FAULTS))
        time.sleep(self._chance.random() * 2)
        self._server.end()

    @staticmethod
    def _drop(what: int) -> None:
        Path("/proc/sys/vm/drop_caches").write_text(str(what))


def main() -> int:
    parser = argparse.ArgumentParser("./dev soak", description="Shakes a mount, and tells whether anything was wrong.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.engine}, {arguments.seconds:g} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-soak-") as directory:
        report = Soak(Path(directory), arguments.engine, seed).run(arguments.seconds)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
