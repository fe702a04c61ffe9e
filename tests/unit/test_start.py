"""What a start costs: only what is needed is loaded, and garbage is not looked for meanwhile, but afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from pathlib import Path

# Each takes longer to import than a warm start can spare, and a warm listing needs none of them.
NOT_FOR_A_WARM_START = {
    "asyncio",
    "cvmfs_py.mount.copying",
    "cvmfs_py.network.geo",
    "cvmfs_py.network.probing",
    "cvmfs_py.network.tls",
    "cvmfs_py.publish",
    "httpcore",
    "httpx",
    "sqlite_utils",
    "zstandard",
}

RUN = """
import gc, json, sys
from cvmfs_py import __main__ as start
sys.argv[0] = "cvmfs-py"
try:
    start.main()
except SystemExit as end:
    facts = {"code": end.code, "modules": sorted(sys.modules), "collects": gc.isenabled()}
    print(json.dumps(facts), file=sys.stderr)
"""


def run(*arguments: str, environment: dict[str, str]) -> tuple[str, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", RUN, *arguments],
        capture_output=True,
        env=environment,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}


def test_a_warm_listing_loads_only_what_it_needs(tmp_path: Path, environment: dict[str, str]) -> None:
    """And the collection of garbage, turned off while modules are loaded, is on again in the end."""
    repository = Repository.create(tmp_path / "repository")
    repository.publish(Directory({"file": File(b"content")}))
    url = f"file://{repository.document_root}/cvmfs/{repository.fqrn}"
    command = ("ls", url, "--key", str(repository.master_public_key), "--cache-dir", str(tmp_path / "cache"))
    run(*command, environment=environment)  # fills the cache
    output, facts = run(*command, environment=environment)
    assert (output, facts["code"]) == ("file\n", 0)
    modules = facts["modules"]
    assert isinstance(modules, list)
    assert "cvmfs_py.mount.assemble" in modules
    assert not NOT_FOR_A_WARM_START.intersection(modules)
    assert facts["collects"]


def test_listing_does_not_ask_the_terminal_for_every_line(tmp_path: Path, environment: dict[str, str]) -> None:
    """A system call for each of a hundred thousand lines is felt."""
    code = """
import io, sys
from cvmfs_py.cli.output import write_line
class Counting(io.TextIOWrapper):
    asked = 0
    def isatty(self):
        Counting.asked += 1
        return super().isatty()
sys.stdout = Counting(io.BytesIO(), write_through=True)
for number in range(100):
    write_line(b"%d" % number)
lines = sys.stdout.buffer.getvalue().splitlines()
print(len(lines), Counting.asked, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        capture_output=True,
        env=environment,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == "100 1\n"
