"""The examples in conf/ are right: other programs read them, and so does this one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cvmfs_py.mount.options import MountRequest, parse_mount_helper

CONF = Path(__file__).parents[2] / "conf"
UNITS = sorted((CONF / "systemd").iterdir())


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)


def fstab_lines() -> list[list[str]]:
    lines = (CONF / "fstab.example").read_text().splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.needs("findmnt")
def test_the_fstab_is_one_for_mount() -> None:
    lines = fstab_lines()
    assert len(lines) > 3
    assert all(len(fields) == 6 for fields in lines)
    done = run("findmnt", "--tab-file", CONF / "fstab.example", "--raw", "--noheadings", "-o", "SOURCE,TARGET,FSTYPE")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [fields[:3] for fields in lines]


@pytest.mark.parametrize("fields", fstab_lines(), ids=lambda fields: str(fields[1]))
def test_the_helper_understands_the_fstab(fields: list[str]) -> None:
    source, mountpoint, kind, options, *_ = fields
    request = parse_mount_helper([source, mountpoint, "-o", f"rw,{options}"], Path("/"))
    assert isinstance(request, MountRequest)
    assert kind == "cvmfs"
    assert request.mountpoint == os.fsencode(mountpoint)
    assert "," not in "".join(request.overrides.values())


@pytest.mark.parametrize("name", ["sft.cern.ch", "a.b", "9.x", "a-b_c.d.e"])
def test_the_map_of_automount_knows_repositories(name: str) -> None:
    done = run(CONF / "auto.cvmfs", name)
    assert (done.returncode, done.stderr) == (0, "")
    entry = re.fullmatch(r"-fstype=(\w+),(\S+) :(\S+)\n", done.stdout)
    assert entry is not None
    assert entry[1] == "cvmfs"
    request = parse_mount_helper([entry[3], f"/cvmfs/{name}", "-o", f"rw,{entry[2]}"], Path("/"))
    assert isinstance(request, MountRequest)
    assert request.name == name


NO_NAMES = [
    ".Trash",
    "autorun",
    ".xdg",
    "a.b.",
    "-a.b",
    "a.b/c",
    "a b.c",
    "a.b\n",
    "",
    "é.b",
    "a.b:c",
    "a.$(id)",
    "*.b",
]


@pytest.mark.parametrize("words", [[name] for name in NO_NAMES] + [[], ["a.b", "c.d"]])
def test_the_map_says_nothing_to_anything_else(words: list[str]) -> None:
    for language in ("C", "C.UTF-8"):
        done = run(CONF / "auto.cvmfs", *words, LC_ALL=language)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_the_entry_for_the_map() -> None:
    lines = [line for line in (CONF / "cvmfs.autofs").read_text().splitlines() if line and not line.startswith("#")]
    (entry,) = [line.split() for line in lines]
    assert entry[:2] == ["/cvmfs", "/etc/auto.cvmfs"]
    assert all(re.fullmatch(r"--timeout=\d+", option) for option in entry[2:])


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    """With a program in the place of ours, which it looks for."""
    for path in UNITS:
        text = path.read_text().replace("/usr/local/bin/cvmfs-py", "/bin/true")
        (tmp_path / path.name.replace("@.", "@test.example.org.")).write_text(text)
    tested = tmp_path / unit.name.replace("@.", "@test.example.org.")
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tested)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.needs("systemd-analyze")
def test_systemd_would_find_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "cvmfs-sft.cern.ch.mount"
    broken.write_text((CONF / "systemd" / broken.name).read_text().replace("Where=/cvmfs/", "Where=/elsewhere/"))
    assert run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", broken).returncode != 0


def test_units_are_named_after_their_place() -> None:
    for path in UNITS:
        where = re.search(r"^Where=(.*)$", path.read_text(), re.MULTILINE)
        if where is not None:
            assert path.stem == where[1].strip("/").replace("/", "-")
