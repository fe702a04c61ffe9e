"""Configuration files as people edit them: a parameter is set or removed, and comments and order stay.

Knows the simple syntax, in a form that a shell reads in the same way. What a value means is for others. Files are
replaced whole or not at all. Concurrency: of two writers at once the last one wins.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.config.files import read_small_file
from cvmfs_py.config.parse import assigned_names, parse_simple
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT_BYTES = 1 << 20
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_PLAIN = re.compile(r"[0-9A-Za-z/:._,@%+=-]*\Z")
_SPECIAL_IN_QUOTES = re.compile(r'["$`\\]')


def load_text(path: Path) -> str:
    """The text of a file; nothing where there is none. Bytes that are not UTF-8 survive `store_text`."""
    try:
        return os.fsdecode(read_small_file(path, _LIMIT_BYTES))
    except FileNotFoundError:
        return ""


def store_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Writes a file anew. One that exists keeps its mode, and one that is reached by a link stays there."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            mode = path.stat().st_mode & 0o777
        try:
            fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as stream:
                stream.write(os.fsencode(text))
                os.fchmod(fd, mode)
                stream.flush()
                os.fsync(fd)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The text with these parameters set: in the line that sets one now, else at the end."""
    for name, value in values.items():
        text = _with_value(text, name, value)
    return text


def without_value(text: str, name: str) -> str:
    """The text without the lines that set a parameter."""
    return "".join(line for line in _LINE.findall(text) if not _sets(line, name))


def format_assignment(name: str, value: str) -> str:
    """A line, without its end."""
    quoted = value
    if not _PLAIN.match(value):
        quoted = f"'{value}'" if "'" not in value else f'"{value}"'
    line = f"{name}={quoted}"
    is_shell_safe = "'" not in value or not _SPECIAL_IN_QUOTES.search(value)
    if not is_shell_safe or parse_simple(line) != {name: value}:
        raise ConfigError(
            f"{name}: {value!r} cannot be written into a configuration file, which knows no # and no line ends in a "
            "value, and not both kinds of quotes"
        )
    return line


def _with_value(text: str, name: str, value: str) -> str:
    assignment = format_assignment(name, value)
    lines = _LINE.findall(text)
    for number in range(len(lines) - 1, -1, -1):  # of several the last one counts
        line = lines[number]
        if _sets(line, name):
            before = line[: line.index(name)]
            _, mark, comment = line.rstrip("\r\n").partition("#")
            end = line[len(line.rstrip("\r\n")) :]
            lines[number] = before + assignment + (f"  {mark}{comment}" if mark else "") + end
            return "".join(lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join(lines) + assignment + "\n"


def _sets(line: str, name: str) -> bool:
    return assigned_names(line) == (name,)
