"""The project speaks of itself only: not of the machine, the conversation or the list of chores it was written with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.house.sources import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS = ("cache", "catalog", "cvmfs_py", "tests", "benchmarks", "conf", ".ci")
IGNORED = (TOP / "tests" / "data", TOP / "benchmarks" / "results")  # recorded, not written
UNWELCOME = re.compile(
    r"""
    (?<![\w.~-])/work(?:space)?/                                # somebody's directory
    | (?-i:\b(?:TODO|FIXME|XXX|HACK)\b)                          # chores belong elsewhere
    | \b(?:issue|ticket|pull\ request)\ \#?\d                   # and so do their numbers
    | \bas\ (?:requested|instructed|discussed)\b                # by whom?
    | \b(?:chat\ ?bot|language\ model|AI\ assistant)\b          # who typed it does not matter
    | ^(?:<{7}|={7}|>{7})(?:\ |$)                               # an unfinished merge
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)


def texts() -> Iterator[tuple[Path, str]]:
    files = [path for path in TOP.iterdir() if path.is_file() and path.name != ".git"]  # of a linked working tree
    for folder in FOLDERS:
        files += [path for path in (TOP / folder).rglob("*") if path.is_file()]
    for path in files:
        is_ignored = any(path.is_relative_to(folder) for folder in IGNORED) or "__pycache__" in path.parts
        if is_ignored or path.name == "test_manners.py":
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text


def test_no_word_of_the_workplace() -> None:
    found = []
    count = 0
    for path, text in texts():
        count += 1
        for match in UNWELCOME.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(TOP)}:{line}: {match[0]!r}")
    assert count > 50
    assert not found, "\n".join(found)


def test_unwelcome_words_are_found() -> None:
    assert UNWELCOME.search("see /work/notes.md")
    assert UNWELCOME.search("# TODO: later")
    assert UNWELCOME.search("fixes issue #12")
    assert UNWELCOME.search("a\n<<<<<<< HEAD\n")
    assert not UNWELCOME.search(
        "the /cvmfs/network/workspaces directory; a framework/working example; issue a warning; todo = [1]"
    )
