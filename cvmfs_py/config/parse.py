"""Text to parameters: which lines assign, what the simple syntax means, and the words for yes, no and numbers.

Pure. Runs no shell: `shell` does that for files whose values are shell expressions, with the same test for lines.

The line test is that of the reference client: everything from the first `#` is cut, even inside quotes; what remains
must have a `=`; the part before it, without one leading `readonly`, `export` or `eval`, must be a name. So `A=1; B=2`
assigns only A and `if [ "$A" = x ]` assigns nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OPTION_NAME = re.compile(r"[A-Z0-9_]+\Z")
_PREFIXES = ("readonly ", "export ", "eval ")
_BLANKS = " \t\r"
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")
_DECIMAL = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)")
# far beyond any meaning, and small enough for every arithmetic and system call behind it
_LARGEST_NUMBER = 2**53

_ON = frozenset(("yes", "on", "1", "true"))
_OFF = frozenset(("no", "off", "0", "false"))


def _assigned_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        name, equals, value = line.partition("#")[0].partition("=")
        if not equals:
            continue
        name = name.strip(_BLANKS)
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name = name[len(prefix) :].strip(_BLANKS)
                break
        if _IDENTIFIER.match(name) and "\0" not in value:
            yield name, value.strip(_BLANKS)


def assigned_names(text: str) -> tuple[str, ...]:
    """The names that a file assigns, each once, in the order of the file."""
    return tuple(dict.fromkeys(name for name, _ in _assigned_lines(text)))


def parse_simple(text: str) -> dict[str, str]:
    """The simple syntax: the text behind the first `=`, without surrounding quotes, and nothing expanded."""
    values: dict[str, str] = {}
    for name, value in _assigned_lines(text):
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[name] = value
    return values


def parse_overrides(options: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE of the command line; any name of capitals is accepted, because variant symlinks may use it."""
    overrides: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{option!r} is no NAME=VALUE")
        check_option_name(name)
        overrides[name] = value
    return overrides


def check_option_name(name: str) -> None:
    if not _OPTION_NAME.match(name):
        raise ConfigError(
            f"{name!r} is no name of a parameter: names are capitals, digits and underscores, such as CVMFS_HTTP_PROXY"
        )


def parse_switch(text: str) -> bool | None:
    """True or False for the words of the field in any case; None for anything else."""
    word = text.strip().lower()
    if word in _ON:
        return True
    return False if word in _OFF else None


def parse_integer(text: str) -> int:
    """The number at the beginning of the text, 0 if there is none."""
    match = _INTEGER.match(text)
    return int(_bounded(int(match[1][:20]))) if match else 0


def parse_decimal(text: str) -> float:
    """The number, possibly with a fraction, at the beginning of the text, 0 if there is none."""
    match = _DECIMAL.match(text)
    return _bounded(float(match[1])) if match else 0.0


def is_integer(text: str) -> bool:
    match = _INTEGER.fullmatch(text.rstrip())
    return match is not None


def is_decimal(text: str) -> bool:
    match = _DECIMAL.fullmatch(text.rstrip())
    return match is not None


def _bounded(number: float) -> float:
    return min(max(number, -_LARGEST_NUMBER), _LARGEST_NUMBER)
