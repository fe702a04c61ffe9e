"""What the soak mounts: a repository that goes on being published, and a server that fails as it is told."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mount.soak_reader import content, live_content
from tests.simulator.fault_server import Pause, Reset, Silence, answer
from tests.simulator.publisher import OwnRepository

if TYPE_CHECKING:
    import random

    from tests.simulator.fault_server import SeenRequest, Steps

FQRN = "soak.test.org"
FAULTS = ("errors", "resets", "silence", "delays", "half", "rubbish")
GRACE_S = 12.0  # for which a fault may still be felt: time-outs, and backing off
LIVE_FILES = 12
CHUNK_BYTES = 64 << 10


class Server:
    """Serves the repository, and fails as it is told."""

    def __init__(self, storage: Path, chance: random.Random) -> None:
        self._storage = storage
        self._chance = chance
        self.fault = ""
        self.faults: list[list[float]] = []  # begin and end of each time

    def __call__(self, request: SeenRequest) -> Steps:
        file = self._storage / request.path.removeprefix(f"/cvmfs/{FQRN}/")
        body = file.read_bytes() if file.is_file() else None
        whole = answer(404) if body is None else answer(200, body)
        fault = self.fault if self._chance.random() < 0.7 else ""
        if fault == "errors":
            return answer(503, b"busy")
        if fault == "resets":
            return Reset()
        if fault == "silence":
            return Silence()
        if fault == "delays":
            return [Pause(self._chance.random() * 0.4), whole]
        if fault == "half" and body:
            return [whole[: -len(body) // 2], Reset()]
        if fault == "rubbish" and body:
            return answer(200, self._chance.randbytes(len(body)))
        return whole

    def begin(self, fault: str) -> None:
        self.fault = fault
        self.faults.append([time.monotonic(), float("inf")])

    def end(self) -> None:
        if self.fault:
            self.fault = ""
            self.faults[-1][1] = time.monotonic()

    def may_be_felt(self, began_s: float, ended_s: float) -> bool:
        return any(begin <= ended_s and began_s <= end + GRACE_S for begin, end in self.faults)


class Source:
    """What is published: entries that stay, and files that change with every revision."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        """Made, and published for the first time."""
        self.tree = directory / "tree"
        sizes = {
            "chunk_min_bytes": CHUNK_BYTES // 2,
            "chunk_average_bytes": CHUNK_BYTES,
            "chunk_max_bytes": CHUNK_BYTES * 2,
        }
        (directory / "own").mkdir()
        self.own = OwnRepository(directory / "own", FQRN, ttl_s=1, **sizes)
        self.revision = 0
        self.entries: dict[str, list[object]] = {}  # as `soak_reader` takes them
        self.live = [f"live/f{number:02}" for number in range(LIVE_FILES)]
        self.program = "programs/ends"
        self._write(chance)
        self.publish()
        for directory_name, names, files in os.walk(self.tree):
            relative = os.path.relpath(directory_name, self.tree)
            self.entries["" if relative == "." else relative] = ["directory", sorted([*names, *files])]
        self.entries |= {name: ["changing"] for name in self.live} | {self.program: ["program"]}

    def publish(self) -> None:
        """A new revision, in which every changing file is another one."""
        self.revision += 1
        for name in self.live:
            path = self.tree / name
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(live_content(name, self.revision))
        self.own.publish_directory(self.tree)

    def facts(self) -> dict[str, object]:
        return {"entries": self.entries, "live": self.live, "program": self.program, "fqrn": FQRN}

    def _write(self, chance: random.Random) -> None:
        for top in ("plain", "nested", "nested/deep/er"):
            for number in range(60):
                self._file(f"{top}/file-{number:03}", chance.choice((0, 1, 100, 3000, 20_000, 60_000)))
        for number in range(800):
            self._file(f"many/file-{number:03}", 10)
        for number in range(6):
            self._file(f"large/file-{number}", 2_000_000 + number)
        for number in range(20):
            name, link = f"plain/file-{number:03}", f"plain/link-{number:03}"
            (self.tree / link).hardlink_to(self.tree / name)
            self.entries[name][2] = 2
            self.entries[link] = self.entries[name]
            symlink, target = f"nested/symlink-{number}", f"../{name}"
            (self.tree / symlink).symlink_to(target)
            self.entries[symlink] = ["link", target]
        for top in ("nested", "nested/deep", "large"):
            self._file(f"{top}/.cvmfscatalog", 0)
        program = self.tree / self.program
        program.parent.mkdir()
        program.write_bytes(Path("/bin/true").resolve().read_bytes())
        program.chmod(0o755)

    def _file(self, name: str, size: int) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name, size))
        self.entries[name] = ["file", size, 1, name]
