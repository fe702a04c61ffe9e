"""What is printed where: bytes into pipes, nothing dangerous on terminals, progress only where somebody looks."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import CacheBusyError, CacheError, CacheFullError, CacheReadOnlyError, ObjectCorruptError
from catalog.errors import CatalogError
from cvmfs_py import errors
from cvmfs_py.cli.failures import describe, report, unwrap
from cvmfs_py.cli.output import counted, date_text, one_line, size_text, table

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = b"caf\xc3\xa9 \x1b[2J\r\x07 \xc2\x9b5n \xff"
PRINT = """
import sys
from cvmfs_py.cli.output import write_json_line, write_line
write_line(bytes.fromhex(sys.argv[1]))
write_json_line({"path": bytes.fromhex(sys.argv[1]).decode("latin-1")})
sys.stdout.flush()
"""


def on_terminal(code: str, *words: str, columns: int = 80, **environment: str) -> bytes:
    """What a program shows whose standard streams are a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-I", "-c", code, *words]
    variables = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
        "COLUMNS": str(columns),
        **environment,
    }
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # nobody has the other end open any more
                break
        os.close(ours)
    assert process.returncode == 0, shown
    return shown


def test_names_cannot_move_the_cursor_of_a_terminal() -> None:
    shown = on_terminal(PRINT, HOSTILE.hex())
    line, record, rest = shown.split(b"\r\n")
    assert line.decode() == "café ?[2J?? ?5n \N{REPLACEMENT CHARACTER}"
    for data in (line, record):
        assert not any(byte < 0x20 or byte == 0x7F for byte in data)
        assert b"\xc2\x9b" not in data
    assert rest == b""


def test_pipes_get_the_bytes_and_json_has_one_character_a_byte() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", PRINT, HOSTILE.hex()], capture_output=True, check=True)
    record = done.stdout.removeprefix(HOSTILE + b"\n")
    assert len(record) < len(done.stdout)
    assert json.loads(record)["path"].encode("latin-1") == HOSTILE
    assert record.isascii()


# texts


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("timestamp_s", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (4_000_000_000, "2096-10-02T07:06:40Z"),
        (2**63 - 1, f"second {2**63 - 1}"),
        (-(2**63), f"second {-(2**63)}"),
        (253_402_300_800, "second 253402300800"),  # the year 10000
    ],
)
def test_dates(timestamp_s: int, text: str) -> None:
    assert date_text(timestamp_s) == text


@given(st.integers(-(2**70), 2**70))
def test_every_second_has_a_text(timestamp_s: int) -> None:
    assert date_text(timestamp_s)


def test_numbers_have_their_nouns() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(0, "file") == "0 files"
    assert counted(12345, "entry", "entries") == "12,345 entries"


def test_tables() -> None:
    assert table([["A", "LONG", ""], ["aaa", "b", "c"]]) == ["A    LONG", "aaa  b     c"]
    assert table([]) == []


@given(st.text())
def test_a_message_is_one_line(text: str) -> None:
    line = one_line(text)
    assert line.splitlines() in ([], [line])
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in line)


# errors and exit codes

CODES = {
    errors.CvmfsError("x"): 5,
    errors.UsageError("x"): 2,
    errors.ConfigError("x"): 2,
    errors.MountError("x"): 3,
    errors.TrustError(errors.Refusal.SIGNATURE, "x"): 4,
    errors.FetchError("x"): 5,
    errors.ObjectGoneError("x"): 5,
    errors.IntegrityError("x"): 5,
    errors.FsError(errno.ENOENT, "x"): 5,
    errors.NoProgressError("x"): 5,
    CacheError("x"): 5,
    CacheFullError("x"): 5,
    CacheBusyError("x"): 5,
    CacheReadOnlyError("x"): 5,
    ObjectCorruptError("x"): 5,
    CatalogError("x"): 5,
    OSError(errno.ENOSPC, "x"): 5,
}


@pytest.mark.parametrize("error", CODES, ids=lambda error: type(error).__name__)
def test_exit_codes(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("ls", error) == CODES[error]
    assert capsys.readouterr().err == "cvmfs-py ls: x\n"
    assert report("ls", BaseExceptionGroup("many", [BaseExceptionGroup("more", [error])])) == CODES[error]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 0)])
def test_quiet_ends(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("ls", BaseExceptionGroup("many", [error])) == code
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_goes_before_every_error() -> None:
    inner = BaseExceptionGroup("inner", [ValueError("x"), KeyboardInterrupt()])
    assert isinstance(unwrap(BaseExceptionGroup("outer", [OSError("y"), inner])), KeyboardInterrupt)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.CvmfsError("two\n  lines\x1b[2J"), "two lines?[2J"),
        (OSError(errno.ENOENT, "No such file", b"/caf\xe9"), "/caf\udce9: No such file"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError(errno.EBADF, None), "EBADF"),
        (
            errors.FetchError(
                "no luck", (errors.Attempt("http://h", "DIRECT", "dead"), errors.Attempt("http://h", "p", "ill"))
            ),
            "no luck (tried http://h: dead; http://h via p: ill)",
        ),
    ],
)
def test_descriptions(error: Exception, text: str) -> None:
    assert describe(error) == text


def attempts(*routes: str, reason: str = "connection refused") -> tuple[errors.Attempt, ...]:
    """Of hosts, or of HOST>PROXY."""
    pairs = [route.partition(">")[::2] for route in routes]
    return tuple(errors.Attempt(host, proxy or "DIRECT", reason) for host, proxy in pairs)


@pytest.mark.parametrize(
    ("tried", "text"),
    [
        (attempts("a"), "a: connection refused"),
        (attempts("a", "a"), "a: connection refused (2 times)"),
        (attempts("a", "b", "c", "d"), "4 servers: connection refused"),
        (attempts("a", "b", "a", "b"), "2 servers: connection refused"),
        (attempts("a>p", "b>p"), "2 servers via p: connection refused"),
        (attempts("a>p", "a>q"), "a via 2 proxies: connection refused"),
        (attempts("a>p", "a"), "a directly and via p: connection refused"),
        (attempts("a>p", "a>q", "b"), "2 servers directly and via 2 proxies: connection refused"),
        (
            attempts("a", "b") + attempts("c", reason="timeout") + attempts("d", "e", reason="HTTP 503"),
            "2 servers: connection refused; c: timeout; 2 servers: HTTP 503",
        ),
    ],
)
def test_many_servers_with_one_reason_are_one_phrase(tried: tuple[errors.Attempt, ...], text: str) -> None:
    error = errors.FetchError("no luck", tried)
    assert describe(error) == f"no luck (tried {text})"
    for attempt in tried:
        assert str(attempt) in error.in_full
        assert str(attempt) in errors.in_full(error)


def test_what_nobody_expected_is_one_line_and_a_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "state" / "log"
    monkeypatch.setattr("cvmfs_py.logs.log_path", lambda: log)
    with pytest.raises(ZeroDivisionError) as caught:
        print(1 // len(capsys.readouterr().out))
    assert report("ls", caught.value) == 5
    shown = capsys.readouterr().err
    assert (
        shown
        == f"cvmfs-py ls: internal error, please report it: ZeroDivisionError: {caught.value} (details in {log})\n"
    )
    assert "Traceback (most recent call last)" in log.read_text()
    assert str(caught.value) in log.read_text()
