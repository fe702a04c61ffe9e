"""A soak: readers of mounts that are never left in peace, and what the daemons hold when they have gone.

    ./dev soak --seconds 600 --engine channel --seed 1

Two daemons share one cache that is too small for everything: one follows a repository that goes on being published, one
is pinned to its first revision. Readers (`soak_reader`) do random things and check every answer; meanwhile they are
killed and interrupted, the server fails in every way, and the kernel's caches are dropped. Twice all come to rest: at
half time and at the end, and the daemons must hold no more the second time than the first.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvmfs_py.mount.engines import ENGINES
from tests.mount.soak_daemon import Daemon, DaemonGoneError
from tests.mount.soak_world import DOWN, FAULTS, FIRST, FQRN, Server, Source
from tests.rights import why_not
from tests.simulator.command import Client
from tests.simulator.fault_server import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable

READERS = 4  # one in READERS of the pinned mount
CACHE_MIB = 5  # a quarter of the content
LONGEST_S = 60.0  # that an operation may take, whatever happens
SAMPLE_S = 2.0
REMEMBERED_S = 8.0  # for which the kernel keeps the names of a revision that was superseded, if it does at all
READER = Path(__file__).with_name("soak_reader.py")


@dataclass(slots=True)
class Report:
    """What happened, and what was wrong with it."""

    done: int = 0
    interrupted: int = 0
    longest_s: float = 0.0
    answers: int = 0  # of the server
    errors: Counter[str] = field(default_factory=Counter)  # while the server failed
    chaos: Counter[str] = field(default_factory=Counter)
    daemons: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.done:,} operations, {self.interrupted} interrupted, the longest took {self.longest_s:.1f} s",
                f"{self.answers:,} answers of the server; errors while it failed: {dict(self.errors)}",
                f"meanwhile: {dict(self.chaos)}",
                *self.daemons,
                *(f"WRONG: {each}" for each in self.wrong),
            ]
        )


class Reader:
    """A process that reads, and what it says of it."""

    def __init__(self, seed: int, top: Path, facts: Path, revision: int) -> None:
        self._output = facts.with_name(f"reader-{seed}")
        self._errors = facts.with_name(f"reader-{seed}.errors")
        words = [sys.executable, "-I", "-S", str(READER), str(seed), str(top), str(facts), str(revision)]
        with open(self._output, "wb") as output, open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(words, cwd="/", stdout=output, stderr=errors)
        self.is_of_pinned = revision > 0
        self.spoke_s = time.monotonic()
        self._taken = 0

    def lines(self) -> list[dict[str, Any]]:
        """What it has said since the last call."""
        with open(self._output, "rb") as file:
            file.seek(self._taken)
            lines = file.read().split(b"\n")[:-1]
        self._taken += sum(len(line) + 1 for line in lines)
        if lines:
            self.spoke_s = time.monotonic()
        return [json.loads(line) for line in lines]

    @property
    def has_spoken(self) -> bool:
        return self._taken > 0

    def end(self, number: int) -> bool:
        """Whether it ended: the kernel lets nobody die who waits for an answer that is being written."""
        self.process.send_signal(number)
        try:
            self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            return False
        self._output.unlink()
        return True

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
        self._http = FaultServer(self._server)
        self._facts = directory / "facts.json"
        self._facts.write_text(json.dumps(self._source.facts()))
        self._readers: list[Reader] = []
        self._daemons: list[Daemon] = []  # live, pinned
        self._remembered_until_s = 0.0
        self._chaos: tuple[tuple[str, Callable[[], None]], ...] = (
            *[("", self._interrupt)] * 6,  # these count themselves
            ("", self._kill),  # seldom: only who lives for a while can be shown something old
            *[("faults of the server", self._fail)] * 3,
            *[("", self._publish)] * 2,
            *[("", self._forget)] * 3,
            *[("pages of the cache dropped", self._cool)] * 2,
        )

    def run(self, seconds: float) -> Report:
        with ExitStack() as held:
            self._http.__enter__()
            held.callback(lambda: self._http.stop())
            held.callback(self._server.end)
            held.callback(self._end_daemons)
            held.callback(lambda: [reader.process.kill() for reader in self._readers])
            self._daemons.append(self._daemon("live"))
            self._daemons.append(self._daemon("pinned", "--tag", FIRST))
            try:
                for _ in range(2):
                    self._disturb(seconds / 2)
                    self._rest()
            except DaemonGoneError as error:
                self.report.wrong.append(str(error))
        self._judge()
        return self.report

    def _daemon(self, name: str, *options: str) -> Daemon:
        limits = {"TIMEOUT": "3", "TIMEOUT_DIRECT": "3", "MAX_RETRIES": "1", "KCACHE_TIMEOUT": "1"}
        cache = {"PY_CACHE_DIR": str(self._directory / "cache"), "QUOTA_LIMIT": str(CACHE_MIB), "STRICT_MOUNT": "no"}
        key = self._source.own.place.public_key_file
        client = Client(self._directory / name, FQRN, [self._http.url], key, **limits, **cache)
        log = self._directory / f"{name}.log"
        return Daemon(client, self._directory / f"mnt-{name}", log, "--engine", self._engine, *options)

    def _end_daemons(self) -> None:
        for daemon in self._daemons:
            code = daemon.end()
            if code:
                self.report.wrong.append(f"the daemon ended with {code}")

    def _disturb(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        sample_s = time.monotonic() + SAMPLE_S
        while time.monotonic() < until_s:
            while len(self._readers) < READERS:
                self._start_reader()
            time.sleep(self._chance.random() * 0.5)
            name, act = self._chance.choice(self._chaos)
            act()
            if name:
                self.report.chaos[name] += 1
            self._listen()
            for daemon in self._daemons:
                daemon.check_alive()
            if time.monotonic() > sample_s:
                sample_s += SAMPLE_S
                for daemon in self._daemons:
                    daemon.sample()

    def _start_reader(self) -> None:
        self._serial += 1
        live, pinned = self._daemons
        if any(reader.is_of_pinned for reader in self._readers):
            reader = Reader(self._serial, live.mountpoint, self._facts, 0)
        else:
            reader = Reader(self._serial, pinned.mountpoint, self._facts, self._source.first_revision)
        self._readers.append(reader)

    def _rest(self) -> None:
        """All readers go, the kernel forgets, and the daemons are looked at when they hold no more than they need."""
        self._server.end()
        self._listen()
        for reader in self._readers:
            if not reader.end(signal.SIGTERM):
                self.report.wrong.append(f"a reader does not end {LONGEST_S:g} s after SIGTERM")
        self._readers.clear()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Daemon.rest, self._daemons))

    def _listen(self) -> None:
        report = self.report
        for reader in list(self._readers):
            code = reader.process.poll()
            for said in reader.lines():
                report.done += said.get("done", 0)
                report.interrupted += said.get("interrupted", 0)
                report.longest_s = max(report.longest_s, said.get("longest", 0.0))
                if "wrong" in said:
                    report.wrong.append(said["wrong"])
                if "error" in said:
                    self._note_error(f"{said['what']}: {os.strerror(said['error'])}", said["began"], said["ended"])
            if code is not None:
                self._readers.remove(reader)
                now_s = time.monotonic()
                if code == -signal.SIGBUS:  # a page of a mapped file could not be had
                    self._note_error("SIGBUS", now_s - 1, now_s)
                elif code not in (-signal.SIGKILL, -signal.SIGTERM):
                    report.wrong.append(f"a reader ended with {code}: {reader.last_words}")
            elif time.monotonic() - reader.spoke_s > LONGEST_S:
                report.wrong.append(f"a reader has said nothing for {LONGEST_S:g} s")
                self._readers.remove(reader)
                if not reader.end(signal.SIGKILL):
                    report.wrong.append("and it does not die")

    def _note_error(self, what: str, began_s: float, ended_s: float) -> None:
        if self._server.may_be_felt(began_s, ended_s) and what.rpartition(": ")[2] in ("SIGBUS", "Input/output error"):
            self.report.errors[what.rpartition(": ")[2]] += 1
        else:
            self.report.wrong.append(f"{what}, while nothing failed that would excuse it")

    def _judge(self) -> None:
        report = self.report
        report.answers = self._server.answers
        if report.longest_s > LONGEST_S:
            report.wrong.append(f"an operation took {report.longest_s:.0f} s")
        for daemon in self._daemons:
            name = daemon.log.stem
            report.daemons += [f"{name} at rest: {held}" for held in daemon.rests]
            before, after = (each >> 10 for each in daemon.busy_bytes())
            report.daemons.append(
                f"{name} at work: memory {before} KiB before half time, {after} KiB after it (medians)"
            )
            report.wrong += [f"{name}: {fault}" for fault in daemon.faults()]

    # --- what happens to them

    def _interrupt(self) -> None:
        ready = [reader for reader in self._readers if reader.has_spoken]
        if ready:
            self.report.chaos["readers interrupted"] += 1
            number = self._chance.choice((signal.SIGUSR1, signal.SIGUSR2))
            self._chance.choice(ready).process.send_signal(number)

    def _kill(self) -> None:
        if self._readers:
            self.report.chaos["readers killed"] += 1
            self._chance.choice(self._readers).process.kill()

    def _fail(self) -> None:
        fault = self._chance.choice(FAULTS)
        self._server.begin(fault)
        if fault == DOWN:
            self._http.stop()
        for _ in range(self._chance.randrange(8)):
            time.sleep(0.25)
            if self._chance.random() < 0.7:  # in the midst of what they wait for
                self._chance.choice((*[self._interrupt] * 6, self._kill))()
        if fault == DOWN:
            self._http = FaultServer(self._server, port=self._http.port)
            self._http.__enter__()
        self._server.end()

    def _cool(self) -> None:
        """Half of the objects in our cache are on the disk only."""
        for place, _, names in os.walk(self._directory / "cache" / "objects"):
            for name in names:
                if self._chance.random() < 0.5:
                    try:
                        fd = os.open(os.path.join(place, name), os.O_RDONLY)
                    except FileNotFoundError:  # evicted
                        continue
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(fd)

    def _publish(self) -> None:
        self.report.chaos["revisions"] += 1
        self._source.publish()
        if self._chance.random() < 0.6:
            self._remembered_until_s = time.monotonic() + REMEMBERED_S

    def _forget(self) -> None:
        """The kernel forgets names; not always, because those that it remembers have to become new ones, too."""
        if time.monotonic() < self._remembered_until_s:
            return
        if self._chance.random() < 0.8:
            self.report.chaos["names of a mount dropped"] += 1
            self._chance.choice(self._daemons).shrink()
        else:
            self.report.chaos["all dentries dropped"] += 1
            Path("/proc/sys/vm/drop_caches").write_text("2")


def _end(*_: object) -> None:
    """Nothing stays mounted, however often it is asked for."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> int:
    parser = argparse.ArgumentParser("./dev soak", description="Shakes a mount, and tells whether anything was wrong.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    if reason := why_not("mounting"):
        parser.exit(3, f"./dev soak: it {reason}\n")
    seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.engine}, {arguments.seconds:g} s", flush=True)
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-soak-") as directory:
        report = Soak(Path(directory), arguments.engine, seed).run(arguments.seconds)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
