"""A small repository to be tampered with, an untouched copy of it, and clients that judge them. No test in itself."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

from tests.compat.whole_tree import describe, opened, read_whole
from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.schema import NEWEST
from tests.simulator.tree import Directory, File, Symlink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulator.command import Finished

FQRN = "tampered.example.org"
NOISE = random.Random(3).randbytes(60_000)


def ordinary_tree() -> Directory:
    return Directory(
        {
            "file": File(b"what was signed\n" * 100),
            "other": File(b"what was SIGNED\n" * 100),  # of the same size
            "link": Symlink("file"),
            "chunked": File(NOISE, chunk_sizes=20_000),
            "plain": File(NOISE[:5000], compression="none"),
            "nested": Directory({"inner": File(NOISE[:300])}, nested=True),
        }
    )


class World:
    """`repository` is for tampering; `good_root` keeps what it was like when `keep_good` was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = Repository.create(directory / "repository", FQRN)
        self.tree = ordinary_tree()
        self.repository.publish(self.tree, tag="v1")
        self.good_root = directory / "good"
        self.keep_good()

    def keep_good(self) -> None:
        shutil.rmtree(self.good_root, ignore_errors=True)
        self.copy_to(self.good_root)

    def copy_to(self, document_root: Path) -> None:
        # Hard links do: files of a web root are replaced, never written to.
        shutil.copytree(self.repository.document_root, document_root, copy_function=os.link)

    def client(self, *servers: str, name: str = "client", **parameters: str) -> Client:
        return Client(self.directory / name, FQRN, servers, self.repository.master_public_key, **parameters)

    async def check_everything(self, client: Client, *, warnings: int = 0) -> None:
        """All that was published last is there, and the right data."""
        async with opened(client) as repository:
            assert len(repository.warnings) == warnings, repository.warnings
            assert await read_whole(repository) == describe(self.tree, NEWEST)


def check_failure(done: Finished, command: str, code: int, *words: str, warnings: int = 0) -> None:
    """One line that begins with the command, after these many warnings; and nothing like a traceback."""
    assert done.code == code, done
    lines = done.error_lines
    assert len(lines) == 1 + warnings, done
    assert all(line.startswith("cvmfs-py: ") for line in lines[:-1]), done
    assert lines[-1].startswith(f"cvmfs-py {command}: "), done
    for word in words:
        assert word in lines[-1], done
    assert "internal error" not in done.errors, done
