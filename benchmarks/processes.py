"""Starts programs and measures them from outside: time, CPU time, peak memory.

The environment that a user may have (CVMFS_* variables, files below the home directory, Python's settings) is kept
away from what is measured. Synchronous; one program at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCHER = Path(__file__).with_name("measured.py")
_TOP = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program cost."""

    wall_s: float
    user_s: float
    system_s: float
    peak_rss_bytes: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


class Programs:
    """Programs that run in one scratch directory."""

    def __init__(self, scratch: Path) -> None:
        home = scratch / "home"
        home.mkdir(exist_ok=True)
        self._scratch = scratch
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CVMFS_", "PYTHON", "XDG_"))}
        self.environment = {**kept, "HOME": str(home)}

    def measure(self, command: Sequence[str], *, output: Path | None = None) -> Cost:
        """Runs a program to its end. Its standard output goes to a file, or nowhere."""
        reading, writing = os.pipe()
        try:
            with open(output or os.devnull, "wb") as stream:
                finished = subprocess.run(
                    [sys.executable, "-I", "-S", str(_LAUNCHER), str(writing), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.PIPE,
                    env=self.environment,
                    cwd=self._scratch,
                    pass_fds=(writing,),
                    check=False,
                )
            os.close(writing)
            writing = -1
            with open(reading, "rb", closefd=False) as pipe:
                answer = pipe.read()
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        result = json.loads(answer) if answer else {"exit_code": finished.returncode}
        if result.pop("exit_code") or not answer:
            said = finished.stderr.decode(errors="replace").strip()
            raise SystemExit(f"benchmarks: this command has failed: {' '.join(command)}\n{said}")
        return Cost(**result)

    def run_module(self, module: str, *arguments: str, given: str = "") -> str:
        """Runs a module of this package in a process of its own; returns what it printed."""
        finished = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            env=self.environment,
            cwd=_TOP,
            check=True,
            text=True,
        )
        return finished.stdout


def python(code: str) -> list[str]:
    """A command that runs Python code without anything of the user's."""
    return [sys.executable, "-I", "-c", code]


def cvmfs_py(*arguments: str) -> list[str]:
    """The command as users start it."""
    script = Path(sys.executable).with_name("cvmfs-py")
    start = [str(script)] if script.exists() else [sys.executable, "-I", "-m", "cvmfs_py"]
    return [*start, *arguments]


def program(name: str) -> str | None:
    """The full path of a program of the system."""
    return shutil.which(name)
