"""What is printed of a configuration, and what is found wrong with it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cvmfs_py.config.check import Finding, check_settings
from cvmfs_py.config.parameter_table import specs
from cvmfs_py.config.show import format_parameters, format_reference, format_trace, quote_value
from tests.unit.config_machine import FQRN, SERVER, Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def good(machine: Machine) -> Machine:
    machine.etc_files(
        {
            "default.conf": "CVMFS_HTTP_PROXY=http://proxy:3128\nCVMFS_SHARED_CACHE=yes\nCVMFS_CACHE_x_TYPE=ram\n",
            "domain.d/example.org.conf": SERVER,
            "keys/example.org.pub": "key",
        }
    )
    machine.environment["CVMFS_PY_CACHE_DIR"] = str(machine.home / "cache")
    return machine


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("", ""),
        ("http://a:80/b_c-d,e.f", "http://a:80/b_c-d,e.f"),
        ("a;b", "'a;b'"),
        ("a b", "'a b'"),
        ("it's", "'it\\'s'"),
        ("@x@", "'@x@'"),
        ("é", "'é'"),
        ("a\n", "'a\n'"),
    ],
)
def test_quoting(value: str, quoted: str) -> None:
    assert quote_value(value) == quoted


def test_the_dump(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_B='a;b'\nCVMFS_A=1\n", "default.local": "CVMFS_A=2\n"})
    machine.environment["CVMFS_C"] = "3"
    assert format_parameters(machine.load(overrides={"CVMFS_D": ""})) == (
        f"CVMFS_A=2    # from {machine.etc}/default.local\n"
        f"CVMFS_B='a;b'    # from {machine.etc}/default.conf\n"
        "CVMFS_C=3    # from @environment@\n"
        "CVMFS_D=    # from @command-line@\n"
    )


def test_the_dump_can_be_evaluated(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_A='a;b|c d $HOME `x` \\\\ @'\n"})
    dump = format_parameters(machine.load(), with_defaults=True)
    result = subprocess.run(
        ["/bin/sh", "-c", 'eval "$(cat)"; echo "$CVMFS_A"; echo "$CVMFS_TIMEOUT"'],
        input=dump,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["a;b|c d $HOME `x` \\ @", "5"]


def test_the_dump_with_defaults_has_every_parameter(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_TIMEOUT=7\n"})
    lines = format_parameters(machine.load(), with_defaults=True).splitlines()
    assert {line.partition("=")[0] for line in lines} == set(specs())
    assert lines == sorted(lines, key=lambda line: line.partition("=")[0])
    assert f"CVMFS_TIMEOUT=7    # from {machine.etc}/default.conf" in lines
    assert "CVMFS_TIMEOUT_DIRECT=10    # from @builtin@" in lines
    assert "CVMFS_SERVER_URL=" in lines


def test_the_trace(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_A=1\n", "default.local": "CVMFS_A='2 3'\n"})
    machine.environment["CVMFS_A"] = "4"
    assert format_trace(machine.load()) == (
        "CVMFS_A=4    # from @environment@\n"
        f"    was '2 3'    # from {machine.etc}/default.local\n"
        f"    was 1    # from {machine.etc}/default.conf\n"
    )


def test_the_reference_has_every_parameter_once() -> None:
    text = format_reference()
    for name in specs():
        assert text.count(f"| `{name}` |") == 1
    for line in text.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") == 5, line


def findings_of(machine: Machine, **options: Any) -> list[Finding]:
    return check_settings(machine.load(**options))


def test_nothing_is_wrong(good: Machine) -> None:
    assert findings_of(good) == []
    assert check_settings(good.load("")) == []


@pytest.mark.parametrize(
    ("text", "is_error", "words"),
    [
        ("CVMFS_HTTP_PROXY=", False, "CVMFS_HTTP_PROXY is not set"),
        ("CVMFS_HTTP_PROXY=http://proxy", False, "'http://proxy' has no port"),
        ("CVMFS_HTTP_PROXY='http://a:1 http://b:2'", False, "is no proxy"),
        ("CVMFS_HTTP_PROXY=http://a:b", False, "is no proxy"),
        ("CVMFS_HTTP_PROXY=direct", False, "is written DIRECT"),
        ("CVMFS_HTTP_PROXY='p:1|q:2;r'", False, "'r' has no port"),
        ("CVMFS_SERVER_URL=s1.example.org/cvmfs", True, "does not begin with http://"),
        ("CVMFS_SERVER_URL=http:///cvmfs", True, "names no host"),
        ("CVMFS_SERVER_URL='http://a/x http://b/x'", True, "blank"),
        ("CVMFS_SERVER_URL=http://a:b/x", True, "is no URL"),
        ("CVMFS_SERVER_URL=http://[a/x", True, "is no URL"),
        ("CVMFS_SERVER_URL=http://a/@repo@", True, "template"),
        ("CVMFS_SERVER_URL=", True, "no server is known"),
        ("CVMFS_TIMEOUT=5s", True, "CVMFS_TIMEOUT in"),
        ("CVMFS_QUOTA_LIMIT=4GB", True, "not a whole number"),
        ("CVMFS_USE_GEOAPI=nein", True, "neither yes nor no"),
        ("CVMFS_QUOTA_LIMIT=20", False, "less than 64 MiB"),
        ("CVMFS_HTP_PROXY=http://a:1", False, "is CVMFS_HTTP_PROXY meant?"),
        ("CVMFS_TIMEOUT_DIREKT=1", False, "is CVMFS_TIMEOUT_DIRECT meant?"),
        ("CVMFS_PUBLIC_KEY=/none.pub", True, "/none.pub does not exist"),
        ("CVMFS_KEYS_DIR=/none", True, "/none does not exist"),
        ("CVMFS_BLACKLIST=/proc", True, "not a regular file"),
        ("CVMFS_ALIEN_CACHE=/none", True, "/none does not exist"),
        ("CVMFS_UID_MAP=map", False, "depends on the current directory"),
        ("CVMFS_A=(", False, "ends its shell"),
    ],
)
def test_what_is_found(good: Machine, text: str, is_error: bool, words: str) -> None:
    good.etc_files({f"config.d/{FQRN}.local": text + "\n"})
    found = [finding for finding in findings_of(good) if words in finding.message]
    assert [finding.is_error for finding in found] == [is_error], findings_of(good)
    assert str(found[0]).startswith("Error: " if is_error else "Warning: ")


def test_two_places_for_a_cache(good: Machine) -> None:
    del good.environment["CVMFS_PY_CACHE_DIR"]
    overrides = {"CVMFS_CACHE_DIR": str(good.home / "a"), "CVMFS_CACHE_BASE": str(good.home / "b")}
    assert any("both CVMFS_CACHE_DIR and" in finding.message for finding in findings_of(good, overrides=overrides))
    assert good.load(overrides=overrides).cache_dir == good.home / "a" / "cvmfs-py"


def test_names_for_variant_links_are_no_typing_errors(good: Machine) -> None:
    good.etc_files({"default.local": "CVMFS_SITE_SOFTWARE=1\nSITE=2\nTIMEOUT=3\n"})
    assert findings_of(good) == []


def test_what_comes_later_is_told_but_no_fault(good: Machine) -> None:
    good.etc_files({"default.local": "CVMFS_NFILES=8192\nCVMFS_DNS_SERVER=192.0.2.1\nCVMFS_USER=\n"})
    (found,) = findings_of(good)
    assert str(found) == "Note: without effect in this version: CVMFS_DNS_SERVER, CVMFS_NFILES"
    assert not found.is_error


def test_warnings_from_elsewhere_are_findings_too(good: Machine) -> None:
    assert [str(finding) for finding in check_settings(good.load(), ["the sky falls"])] == ["Warning: the sky falls"]


def test_errors_come_first(good: Machine) -> None:
    good.etc_files({"default.local": "CVMFS_HTTP_PROXY=http://a\nCVMFS_TIMEOUT=x\n"})
    assert [finding.is_error for finding in findings_of(good)] == [True, False]
