"""How names and values are printed: raw bytes into pipes, without control characters on a terminal, JSON as latin-1."""

from __future__ import annotations

import datetime
import json
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

from cvmfs_py.cli.colours import paint_cell, takes_colours
from cvmfs_py.numerals import counted as counted

if TYPE_CHECKING:
    from cvmfs_py.cli.colours import Colour

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def write_line(line: bytes, cell: str = "", colour: Colour | None = None) -> None:
    """Writes a line to standard output. A terminal gets `?` for control characters, which names may hold.

    `cell` is what is shown in colour where that is wanted: a word between columns of blanks.
    """
    stream = sys.stdout
    is_terminal = _is_terminal(stream)
    if is_terminal:
        line = _CONTROL.sub("?", line.decode("utf-8", "replace")).encode("utf-8", "replace")
    if colour is not None and takes_colours(1):
        line = paint_cell(line, cell.encode(), colour)
    if is_terminal:
        stream.write(line.decode("utf-8", "replace") + "\n")
    else:
        stream.buffer.write(line + b"\n")


@lru_cache(maxsize=1)
def _is_terminal(stream: TextIO) -> bool:
    """Asked once: each question is a system call, and listings have many lines."""
    return stream.isatty()


def write_json_line(value: Any) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")  # any option would build a new encoder each time


def write_json(value: Any) -> None:
    sys.stdout.buffer.write(json.dumps(value, indent=2).encode() + b"\n")


def latin1(data: bytes) -> str:
    """Bytes as JSON can carry them, one character a byte."""
    return data.decode("latin-1")


def size_text(size_bytes: float) -> str:
    """A size for people: 3 significant digits, binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")


def one_line(text: str) -> str:
    """A message on one line, without what could move the cursor of a terminal."""
    return _CONTROL.sub("?", " ".join(text.split()))


def date_text(timestamp_s: int) -> str:
    """A time in UTC, or the bare number of seconds where no calendar has it."""
    try:
        return f"{datetime.datetime.fromtimestamp(timestamp_s, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"second {timestamp_s}"


def table(rows: list[list[str]]) -> list[str]:
    """Rows as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
