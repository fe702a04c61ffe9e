"""The line about waits: its words, and that it never covers what somebody wants to read."""

from __future__ import annotations

import sys

import pytest

from cvmfs_py.network.waits import Wait, Waits
from tests.simulator.terminal import Terminal

ERASE = "\r\033[J"
HOST = "http://a.example.org:8000/cvmfs/test.example.org"
DRAW = """
import os, sys
from cvmfs_py.cli import streams
from cvmfs_py.cli.waiting_line import WAITING_LINE, WaitingLine
streams.guard()
WAITING_LINE.begin(quiet="quiet" in sys.argv)
WAITING_LINE.offer("too early")
WAITING_LINE._silence_s = 0.0
for stream, text in ((sys.stdout, "a\\n"), (sys.stderr, "b\\n"), (sys.stdout, "no end"), (sys.stdout, "\\n"),
                     (sys.stderr, "\\r\\033[Kprogress")):
    WAITING_LINE.offer("for \\x1b[2J x")
    stream.write(text)
    stream.flush()
WAITING_LINE.offer("y" * 100)
WAITING_LINE.withdraw()
WAITING_LINE.withdraw()
print("end")
sys.stdout.flush()
"""


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (Wait("object 12", 0.0), "waiting 7 s for object 12: finding out which servers and proxies to ask"),
        (Wait("file /x", 0.0, HOST), "waiting 7 s for file /x from a.example.org:8000"),
        (
            Wait(".cvmfspublished", 5.0, HOST),
            "waiting 2 s for .cvmfspublished of test.example.org from a.example.org:8000",
        ),
        (Wait("file /x", 0.0, HOST, "http://p:3128"), "waiting 7 s for file /x from a.example.org:8000 via p:3128"),
        (
            Wait("file /x", 0.0, HOST, trouble="no answer"),
            "waiting 7 s for file /x from a.example.org:8000 (no answer before)",
        ),
        (
            Wait("file /x", 0.0, HOST, trouble="HTTP 503", again_at=9.2),
            "trying again in 2 s: file /x from a.example.org:8000 (HTTP 503)",
        ),
        (Wait("file /x", 0.0, "file:///srv/x"), "waiting 7 s for file /x from file:///srv/x"),
    ],
)
def test_words(wait: Wait, text: str) -> None:
    assert wait.describe(7.0) == text


def test_the_longest_wait_is_told() -> None:
    waits = Waits()
    assert waits.describe(9.0, longer_than_s=0.0) == ""
    queued = waits.begin("file /queued", 0.0)
    tried = waits.begin("file /tried", 1.0)
    tried.host = HOST
    assert waits.describe(1.0, longer_than_s=2.0) == ""
    assert waits.describe(4.0, longer_than_s=2.0) == "waiting 3 s for file /tried from a.example.org:8000 (and 1 more)"
    waits.end(tried)
    assert waits.describe(4.0, longer_than_s=2.0).startswith("waiting 4 s for file /queued: ")
    waits.end(queued)
    waits.end(queued)
    assert waits.describe(9.0, longer_than_s=0.0) == ""


def test_it_makes_room_for_everything_else() -> None:
    words = [sys.executable, "-I", "-c", DRAW]
    with Terminal(words, columns=40) as terminal:
        pass
    line = f"{ERASE}for ?[2J x\r"
    expected = f"{line}{ERASE}a\r\n{line}{ERASE}b\r\n{line}{ERASE}no end\r\n{line}{ERASE}\r\033[Kprogress"
    assert terminal.text == f"{expected}{ERASE}{'y' * 36}...\r{ERASE}end\r\n"
    assert terminal.code == 0
    with Terminal([*words, "quiet"]) as terminal:
        pass
    assert terminal.text == "a\r\nb\r\nno end\r\n\r\033[Kprogressend\r\n"
