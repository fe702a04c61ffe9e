"""What the soak mounts: a repository that goes on being published, and a server that fails as it is told."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mount.soak_reader import XATTR, content, live_content, mode_of, mtime_of, turning_names
from tests.simulator.fault_server import Pause, Reset, Silence, answer
from tests.simulator.publisher import OwnRepository

if TYPE_CHECKING:
    import random

    from tests.simulator.fault_server import SeenRequest, Steps

FQRN = "soak.test.org"
DOWN = "down"  # nobody listens; the others are ways to answer
FAULTS = ("errors", "resets", "silence", "delays", "half", "rubbish", DOWN)
FIRST = "first"  # the tag of the first revision
GRACE_S = 12.0  # for which a fault may still be felt: time-outs, and backing off
LIVE_FILES = 12
SHIFTS = tuple(f"shifting/{number:02}" for number in range(12))
TURNING = ("turning", "nested/turning", "live/turning")
CHUNK_BYTES = 64 << 10


class Server:
    """Serves the repository, and fails as it is told."""

    def __init__(self, storage: Path, chance: random.Random) -> None:
        self._storage = storage
        self._chance = chance
        self.fault = ""
        self.faults: list[list[float]] = []  # begin and end of each time
        self.answers = 0

    def __call__(self, request: SeenRequest) -> Steps:
        file = self._storage / request.path.removeprefix(f"/cvmfs/{FQRN}/")
        self.answers += 1
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
            return [Pause(self._chance.random()), whole]
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
    """What is published: entries that stay, and files and directories that change with every revision."""

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
        self.revision = 1  # empty
        self.published = directory / "published"  # tells readers which revision they may see
        self.entries: dict[str, list[object]] = {}  # as `soak_reader` takes them
        self.live = [f"live/f{number:02}" for number in range(LIVE_FILES)]
        self.program = "programs/ends"
        self._write(chance)
        self.publish(tag=FIRST)
        self.first_revision = self.revision
        for directory_name, names, files in os.walk(self.tree):
            relative = os.path.relpath(directory_name, self.tree)
            if relative in TURNING:
                names.clear()
                self.entries[relative] = ["turning"]
            else:
                self.entries["" if relative == "." else relative] = ["directory", sorted([*names, *files])]
        changing = [*self.live, *(f"{top}/revision" for top in SHIFTS)]
        self.entries |= {f"{top}/.cvmfscatalog": ["marker"] for top in SHIFTS}
        self.entries |= {name: ["changing"] for name in changing} | {self.program: ["program"]}

    def publish(self, **wishes: str) -> None:
        """A new revision, in which every changing file is another one."""
        self.revision += 1
        new = self.published.with_suffix(".new")
        new.write_text(str(self.revision))
        new.replace(self.published)
        for name in self.live:
            path = self.tree / name
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(live_content(name, self.revision))
        for top in TURNING:
            shutil.rmtree(self.tree / top, ignore_errors=True)
            (self.tree / top).mkdir(parents=True)
            for name in turning_names(self.revision):
                (self.tree / top / name).write_bytes(name.encode())
        for top in SHIFTS:
            (self.tree / top).mkdir(parents=True, exist_ok=True)
            (self.tree / top / ".cvmfscatalog").touch()
            file = self.tree / top / "revision"
            file.unlink(missing_ok=True)
            file.write_bytes(b"%08d" % self.revision)
        assert self.own.publish_directory(self.tree, **wishes).revision == self.revision

    def facts(self) -> dict[str, object]:
        return {
            "entries": self.entries,
            "live": self.live,
            "turning": TURNING,
            "shifts": SHIFTS,
            "program": self.program,
            "fqrn": FQRN,
            "published": str(self.published),
        }

    def _write(self, chance: random.Random) -> None:
        for top in ("plain", "nested", "nested/deep/er"):
            for number in range(60):
                self._file(f"{top}/file-{number:03}", chance.choice((0, 1, 100, 3000, 20_000, 60_000)))
        for number in range(2000):  # more than the kernel asks for at once
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
        path.chmod(mode_of(name))
        os.utime(path, (mtime_of(name), mtime_of(name)))
        attribute = f"of {name}" if size == 3000 else ""
        if attribute:
            os.setxattr(path, XATTR, attribute.encode())
        self.entries[name] = ["file", size, 1, name, attribute]
