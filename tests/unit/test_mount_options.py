"""Command lines of mount.cvmfs and cvmfs2: every form that is documented, and that nothing typed crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import CacheFullError
from catalog.errors import CatalogError
from cvmfs_py.cli.reference import run_cvmfs2, run_helper
from cvmfs_py.config.load import resolve_fqrn
from cvmfs_py.errors import ConfigError, FetchError, MountError, Refusal, TrustError, UsageError
from cvmfs_py.mount.option_words import split_words
from cvmfs_py.mount.options import Answer, MountRequest, parse_cvmfs2, parse_mount_helper
from cvmfs_py.mount.reference_codes import Cvmfs2Code, cvmfs2_code, format_failure, helper_code

HERE = Path("/here")
PINS = {"CVMFS_REPOSITORY_TAG": "", "CVMFS_REPOSITORY_DATE": "", "CVMFS_ROOT_HASH": ""}


def helper(line: str) -> MountRequest:
    request = parse_mount_helper(line.split(), HERE)
    assert isinstance(request, MountRequest)
    return request


def cvmfs2(line: str) -> MountRequest:
    request = parse_cvmfs2(line.split(), HERE)
    assert isinstance(request, MountRequest)
    return request


def test_asking_for_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (run_helper, run_cvmfs2):
        assert program(["--help"]) == program(["-h"]) == 0
        assert "example: " in capsys.readouterr().out


def test_what_mount_passes_on() -> None:
    request = helper("sft.cern.ch /cvmfs/sft.cern.ch -o rw")
    assert request == MountRequest(
        "sft.cern.ch",
        b"/cvmfs/sft.cern.ch",
        allow_other=True,
        is_system_mount=True,
        takes_mountpoint=True,
    )


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("-v a.b /m", {}),
        ("-n -v a.b /m -o rw,defaults,_netdev,nofail,noauto,user=me,x-systemd.automount,x-systemd.after=a.mount", {}),
        ("a.b /m -sv -o whatever=1", {}),
        ("-t cvmfs a.b /m", {}),
        ("-- a.b /m", {}),
        ("-f a.b /m", {"is_dry_run": True}),
        ("-nf a.b /m", {"is_dry_run": True}),
        ("-o remount a.b /m", {"is_remount": True}),
        ("a.b /m -oro,nosuid", {"kernel_options": ("ro", "nosuid")}),
        ("a.b /m -o ro -o nosuid,ro", {"kernel_options": ("ro", "nosuid")}),
        ("a.b /m -o ro,config=/a:/b/c", {"kernel_options": ("ro",), "config_files": (Path("/a"), Path("/b/c"))}),
        ("a.b /m -o config=a", {"config_files": (HERE / "a",)}),
        ("a.b /m -o uid=5,gid=6,debug", {"user_id": 5, "group_id": 6, "debug": True}),
        ("/somewhere/else/a.b /m", {}),
        ("/a.b/ /m", {}),
        ("a.b m/./n", {"mountpoint": b"/here/m/./n"}),
        (
            "a.b /m -o CVMFS_HTTP_PROXY=http://p:1|http://q:2",
            {"overrides": {"CVMFS_HTTP_PROXY": "http://p:1|http://q:2"}},
        ),
        ("a.b /m -o ro,tag=v1.2", {"kernel_options": ("ro",), "overrides": PINS | {"CVMFS_REPOSITORY_TAG": "v1.2"}}),
        ("a.b@v1.2 /m", {"overrides": PINS | {"CVMFS_REPOSITORY_TAG": "v1.2"}}),
        ("a.b /m -o date=2024-05-01", {"overrides": PINS | {"CVMFS_REPOSITORY_DATE": "2024-05-01T00:00:00Z"}}),
        ("a.b /m -o root_hash=00ff", {"overrides": PINS | {"CVMFS_ROOT_HASH": "00ff"}}),
        ("http://h:8/cvmfs/a.b /m", {"overrides": {"CVMFS_SERVER_URL": "http://h:8/cvmfs/a.b"}}),
    ],
)
def test_forms_of_the_helper(line: str, changes: dict[str, Any]) -> None:
    system = {"allow_other": True, "is_system_mount": True, "takes_mountpoint": True}
    assert helper(line) == MountRequest(**{"name": "a.b", "mountpoint": b"/m", **system, **changes})


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("a.b /m", {}),
        ("-f a.b /m", {"foreground": True}),
        ("a.b /m -f", {"foreground": True}),
        ("a.b /dev/fd/7", {"mountpoint": b"/dev/fd/7"}),
        ("a.b /dev/fd/7 -f", {"mountpoint": b"/dev/fd/7", "foreground": True}),
        ("a.b -s -d /m", {"debug": True}),
        ("-o debug,libfuse=3,config=/f a.b /m", {"debug": True, "config_files": (Path("/f"),)}),
        ("-d -o allow_other,config=/f a.b /m", {"debug": True, "allow_other": True, "config_files": (Path("/f"),)}),
        ("-o parse a.b /", {"only_parameters": True, "mountpoint": b"/"}),
        ("-k a.b /", {"only_parameters": True, "mountpoint": b"/"}),
        (
            "-osimple_options_parsing,foreground,fuse_debug a.b /m",
            {"simple_parsing": True, "foreground": True, "debug": True},
        ),
        ("-o cvmfs_suid,disable_watchdog a.b /m", {"overrides": {"CVMFS_SUID": "yes"}}),
        (
            "-o ro,nodev,system_mount,fsname=cvmfs2,allow_other,grab_mountpoint,uid=1,gid=2 a.b /m",
            {
                "kernel_options": ("ro", "nodev", "fsname=cvmfs2"),
                "allow_other": True,
                "is_system_mount": True,
                "takes_mountpoint": True,
                "user_id": 1,
                "group_id": 2,
            },
        ),
        ("-o _netdev,user,nouser,users,auto,noauto a.b /m", {}),
        ("a.b@v1 -o CVMFS_TIMEOUT=3 /m", {"overrides": PINS | {"CVMFS_TIMEOUT": "3", "CVMFS_REPOSITORY_TAG": "v1"}}),
    ],
)
def test_forms_of_cvmfs2(line: str, changes: dict[str, Any]) -> None:
    assert cvmfs2(line) == MountRequest(**{"name": "a.b", "mountpoint": b"/m", **changes})


@pytest.mark.parametrize(
    ("mountpoint", "descriptor"),
    [
        ("/dev/fd/0", 0),
        ("/dev/fd/12", 12),
        ("/dev/fd/", None),
        ("/dev/fd/1x", None),
        ("/dev/fd/1/x", None),
        ("/m", None),
    ],
)
def test_a_descriptor_is_recognised(mountpoint: str, descriptor: int | None) -> None:
    assert cvmfs2(f"a.b {mountpoint} -f").descriptor == descriptor


@pytest.mark.parametrize(
    ("line", "answer"),
    [("-h", Answer.HELP), ("a.b /m --help", Answer.HELP), ("-V", Answer.VERSION), ("--version x", Answer.VERSION)],
)
def test_questions_to_cvmfs2(line: str, answer: Answer) -> None:
    assert parse_cvmfs2(line.split(), HERE) is answer


def test_questions_to_the_helper() -> None:
    assert parse_mount_helper(["-h"], HERE) is Answer.HELP
    assert parse_mount_helper(["a.b", "/m", "--help"], HERE) is Answer.HELP


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "two arguments are needed"),
        ("a.b", "two arguments are needed"),
        ("a.b /m /n", "two arguments are needed"),
        ("a.b /m -o", "-o lacks its value"),
        ("a.b /m -x", "unknown option -x"),
        ("a.b /m -N 1", "nsenter"),
        ("a%b /m", "Invalid repository: a%b"),
        ("a.b:/x /m", "only whole repositories"),
        ("a.b@v1 /m -o tag=v2", "exclude one another"),
        ("a.b /m -o tag=v2,date=2024-01-01", "exclude one another"),
        ("a.b /m -o tga=v1", "is tag meant?"),
        ("a.b /m -o tag", "tag needs a value"),
        ("a.b /m -o CVMFS_TIMEOUT", "CVMFS_TIMEOUT needs a value"),
        ("a.b /m -o debug=1", "debug takes no value"),
        ("a.b /m -o uid=root", "a number is needed"),
    ],
)
def test_what_the_helper_refuses(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mount_helper(line.split(), HERE)
    assert words in str(caught.value)
    assert helper_code(cvmfs2_code(caught.value)) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.b", "two arguments are needed"),
        ("a.b /m more", "two arguments are needed"),
        ("a.b /m -fd", "unknown option -fd"),
        ("a.b /m -o remount", "remount"),
        ("-o", "-o lacks its value"),
        ("__RELOAD__ /socket", "no such part"),
        ("a.b /m -o foregruond", "is foreground meant?"),
    ],
)
def test_what_cvmfs2_refuses(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cvmfs2(line.split(), HERE)
    assert words in str(caught.value)
    assert cvmfs2_code(caught.value) == 2


def test_a_mount_point_is_a_path() -> None:
    for mountpoint in ("", "a\0b"):
        with pytest.raises(UsageError, match="must be a path"):
            parse_cvmfs2(["a.b", mountpoint], HERE)


def test_mount_points_are_bytes() -> None:
    request = parse_cvmfs2(["a.b", "/caf\udce9"], HERE)
    assert isinstance(request, MountRequest)
    assert request.mountpoint == b"/caf\xe9"


def test_commas_in_values() -> None:
    assert list(split_words(r"a\,b,c,,d\\e\054f,g\x")) == ["a,b", "c", r"d\e,f", "gx"]
    request = helper(r"a.b /m -o CVMFS_PUBLIC_KEY=/a\,b:/c,ro")
    assert request.overrides == {"CVMFS_PUBLIC_KEY": "/a,b:/c"}
    assert request.kernel_options == ("ro",)


def test_a_bare_name_gets_the_default_domain(tmp_path: Path) -> None:
    request = helper("atlas /m -o CVMFS_DEFAULT_DOMAIN=cern.ch")
    full = resolve_fqrn(request.name, environment={}, etc_dir=tmp_path, overrides=request.overrides)
    assert full == "atlas.cern.ch"


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["-o", "-f", "a.b", "/m", "--", "-oro,tag=", "-d"]))))
def test_nothing_typed_crashes(arguments: list[str]) -> None:
    for parse in (parse_mount_helper, parse_cvmfs2):
        try:
            request = parse(arguments, HERE)
        except UsageError:
            continue
        assert isinstance(request, Answer) or request.mountpoint.startswith(b"/")


@pytest.mark.parametrize(
    ("error", "code", "of_helper"),
    [
        (UsageError("x"), 2, 1),
        (ConfigError("x"), 2, 1),
        (MountError("x"), 4, 32),
        (TrustError(Refusal.SIGNATURE, "x"), 15, 32),
        (TrustError(Refusal.REVISION_BLACKLISTED, "x"), 25, 32),
        (FetchError("x"), 16, 32),
        (CatalogError("x"), 16, 32),
        (CacheFullError("x"), 9, 32),
        (ValueError("x"), 1, 32),
    ],
)
def test_exit_codes(error: Exception, code: int, of_helper: int) -> None:
    assert cvmfs2_code(error) == code
    assert helper_code(cvmfs2_code(error)) == of_helper


def test_codes_have_words() -> None:
    assert all(code.text for code in Cvmfs2Code)
    assert helper_code(Cvmfs2Code.OK) == 0
    assert format_failure("no such tag: v9", Cvmfs2Code.HISTORY) == "no such tag: v9 (22 - history init failure)"
