"""Colours on terminals: who wants them, and what is coloured how. Without a terminal not a byte is different.

The order is --color, then NO_COLOR, then what the stream and TERM say. Knows the two standard streams by their numbers.
"""

from __future__ import annotations

import enum
import os
import re

MODES = ("auto", "always", "never")
# What this program says about itself begins with its name, an error also with the command's.
_LABEL = re.compile(rb"^((?:\r\033\[[KJ])?)(cvmfs-py(?: [a-z0-9.-]+)*:)(?= )", re.MULTILINE)


class Colour(enum.Enum):
    """The numbers of a terminal's own colours, which its user has chosen to be readable."""

    BAD = b"1;31"
    DOUBTFUL = b"33"
    GOOD = b"32"
    TITLE = b"1"


_mode = "auto"


def choose(mode: str) -> None:
    """What --color says: auto, always or never."""
    global _mode
    _mode = mode


def takes_colours(fd: int) -> bool:
    if _mode != "auto":
        return _mode == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.isatty(fd)
    except OSError:
        return False


def mode_of(words: list[str]) -> str:
    """What --color among the words of a command says, before they are judged: wrong usage is told in colour, too."""
    mode = "auto"
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == "--":
            break
        value = following if word == "--color" else word.partition("=")[2] if word.startswith("--color=") else ""
        if value in MODES:
            mode = value
    return mode


def paint(data: bytes, colour: Colour) -> bytes:
    return b"\033[%sm%s\033[0m" % (colour.value, data)


def paint_cell(line: bytes, cell: bytes, colour: Colour) -> bytes:
    """A line of a table with the first of its cells that reads so in colour."""
    found = re.search(rb"(?:^|(?<=  ))%s(?=  |$)" % re.escape(cell), line)
    return line if found is None else line[: found.start()] + paint(cell, colour) + line[found.end() :]


def paint_messages(data: bytes) -> bytes:
    """What goes to standard error, with the beginning of messages in colour."""

    def painted(found: re.Match[bytes]) -> bytes:
        label = found[2]
        return found[1] + paint(label, Colour.DOUBTFUL if label == b"cvmfs-py:" else Colour.BAD)

    return _LABEL.sub(painted, data)
