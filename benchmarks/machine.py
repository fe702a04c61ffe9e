"""Facts about the machine that a run was on, without which its numbers say little."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("trio", "httpx", "cryptography")
_PROBE_FILES = 200


def facts(scratch: Path) -> dict[str, str]:
    """What is printed above the table. Measures one thing: what a small file costs in the scratch directory."""
    return {
        "commit": _commit(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {_distribution()}",
        "python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "scratch directory": f"{scratch} on {_file_system(scratch)}, {shutil.disk_usage(scratch).free / 2**30:.0f} GiB"
        f" free; a new file of 1 KiB: {new_file_s(scratch) * 1e6:.0f} us",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "/etc/cvmfs": "exists, and is read as on any machine" if os.path.isdir("/etc/cvmfs") else "does not exist",
    }


def new_file_s(scratch: Path) -> float:
    """What it costs to write a small file under one name and move it to another, as a cache and a copy do."""
    directory = scratch / "probe"
    directory.mkdir(exist_ok=True)
    serial = time.monotonic_ns()
    start = time.perf_counter()
    for number in range(_PROBE_FILES):
        path = directory / f"{serial}.{number}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"x" * 1024)
        os.close(fd)
        os.rename(path, f"{path}.done")
    return (time.perf_counter() - start) / _PROBE_FILES


def _commit() -> str:
    top = Path(__file__).parents[1]
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=top, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _file_system(path: Path) -> str:
    best, kind = "", "an unknown file system"
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        for line in stream:
            _, place, name, *_ = line.split()
            if len(place) >= len(best) and Path(path.resolve(), "x").is_relative_to(place):
                best, kind = place, name
    return kind
