"""Configuration files that are edited: what is written is read as it was meant, and the rest stays as it is."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.config.parse import parse_simple
from cvmfs_py.config.user_file import format_assignment, load_text, store_text, with_values, without_value
from cvmfs_py.config.value_check import check_assignment
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """# mine
CVMFS_A=1
  export CVMFS_B='b c'   # why
not a line
CVMFS_A=2 # of two the last
"""


def test_a_value_is_replaced_where_it_is() -> None:
    assert with_values(TEXT, {"CVMFS_B": "x;y"}) == TEXT.replace("CVMFS_B='b c'   # why", "CVMFS_B='x;y'  # why")
    assert with_values(TEXT, {"CVMFS_A": "3"}) == TEXT.replace("CVMFS_A=2 #", "CVMFS_A=3  #")


def test_a_new_value_comes_last() -> None:
    assert with_values("", {"CVMFS_C": "", "CVMFS_D": "1"}) == "CVMFS_C=\nCVMFS_D=1\n"
    assert with_values("# end", {"CVMFS_C": "1"}) == "# end\nCVMFS_C=1\n"
    assert with_values("CVMFS_AB=1\r\n", {"CVMFS_A": "1"}) == "CVMFS_AB=1\r\nCVMFS_A=1\n"
    assert with_values("CVMFS_A=0\r\n", {"CVMFS_A": "1"}) == "CVMFS_A=1\r\n"


def test_a_value_is_removed() -> None:
    assert parse_simple(without_value(TEXT, "CVMFS_A")) == {"CVMFS_B": "b c"}
    assert without_value(TEXT, "CVMFS_A").startswith("# mine\n  export")
    assert without_value(TEXT, "CVMFS_X") == TEXT


@pytest.mark.parametrize(
    "value",
    ["", "1", "http://a:80/@fqrn@", "a;b|c", "a  b", "$HOME", "it's", 'say "x"', "`id`", "a\\b", "\u00e9\u2028"],
)
def test_both_syntaxes_read_what_was_written(value: str) -> None:
    line = format_assignment("NAME", value)
    assert parse_simple(line) == {"NAME": value}
    shell = subprocess.run(["/bin/sh", "-c", f'{line}\nprintf %s "$NAME"'], capture_output=True, check=True)
    assert shell.stdout.decode() == value


@pytest.mark.parametrize("value", ["a#b", "a\nb", "a\0b", "it's $HOME", "'\""])
def test_what_cannot_be_written_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be written into a configuration file"):
        format_assignment("NAME", value)


def test_a_file_keeps_its_mode_its_place_and_its_bytes(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "default.conf", tmp_path / "default.conf"
    real.parent.mkdir()
    real.write_bytes(b"# caf\xe9\n")
    real.chmod(0o600)
    link.symlink_to(real)
    store_text(link, with_values(load_text(link), {"CVMFS_A": "1"}))
    assert real.read_bytes() == b"# caf\xe9\nCVMFS_A=1\n"
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert os.listdir(real.parent) == ["default.conf"]
    assert load_text(tmp_path / "none") == ""
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        store_text(real / "x", "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cvmfs_timeout", "1", "is no name of a parameter"),
        ("CVMFS_TIMEOUT", "soon", "'soon' is not a number of seconds"),
        ("CVMFS_QUOTA_LIMIT", "4G", "'4G' is not a whole number"),
        ("CVMFS_USE_GEOAPI", "maybe", "'maybe' is neither yes nor no"),
        ("CVMFS_KEYS_DIR", "keys", "depends on the current directory"),
        ("CVMFS_PUBLIC_KEY", "/a.pub:b.pub", "'b.pub' depends on the current directory"),
        ("CVMFS_SERVER_URL", "http://a/@fqrn@;b", "'b' does not begin with http://"),
        ("CVMFS_ROOT_HASH", "12", "is no hash of a root catalog"),
        ("CVMFS_REPOSITORY_DATE", "yesterday", "invalid timestamp"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_assignment(name, value)


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("CVMFS_QUOTA_LIMT", "1", "CVMFS_QUOTA_LIMT is unknown; is CVMFS_QUOTA_LIMIT meant?"),
        ("CVMFS_OF_MINE", "1", "CVMFS_OF_MINE is unknown; `cvmfs-py config parameters` lists those that are known"),
        ("CVMFS_DNS_SERVER", "1.1.1.1", "CVMFS_DNS_SERVER is without effect in this version"),
        ("CVMFS_HTTP_PROXY", "http://squid;DIRECT", "CVMFS_HTTP_PROXY: 'http://squid' has no port"),
        ("CVMFS_HTTP_PROXY", "http://squid:3128;DIRECT", None),
        ("CVMFS_SERVER_URL", "http://a/@fqrn@;http://b/cvmfs/@org@", None),
        ("CVMFS_TIMEOUT", "", None),
        ("SITE", "here", None),
    ],
)
def test_a_doubtful_value_is_warned_of(name: str, value: str, warning: str | None) -> None:
    assert check_assignment(name, value) == (() if warning is None else (warning,))
