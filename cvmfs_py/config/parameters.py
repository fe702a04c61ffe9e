"""What a parameter is, and the one table of every parameter that this program reads.

Pure. The table in `parameter_table` is the only place where a name, its default, its unit and its sentence of
documentation are written down; settings, checks and the printed reference are made from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """How the text of a parameter is read; the value is the unit or form for people."""

    TEXT = "text"
    OPTIONAL_TEXT = "text, unset by default"
    SWITCH = "yes or no"
    NONEMPTY = "on when not empty"
    INTEGER = "number"
    SECONDS = "seconds"
    QUOTA = "MiB, 0 or less for no limit"
    PATH = "path"
    PATHS = "paths with : between"
    URLS = "list with ; between"
    HASH = "hash in hexadecimal digits"
    TIMESTAMP = "YYYY-MM-DDTHH:MM:SSZ (UTC)"
    NAMES = "names with , between"
    IDS = "numbers with , between"
    VISIBILITY = "rootonly, always or never"


class XattrVisibility(enum.Enum):
    """Which entries list the magic extended attributes. The value is the word for it."""

    ROOT_ONLY = "rootonly"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One line of the table."""

    name: str
    kind: Kind
    field: str | None  # the field of Settings; None: the value matters to configuration files alone
    default: str | None
    meaning: str
    group: str
    combined: bool = False  # the field is made of several parameters by a rule of its own
    like: str | None = None  # where unset, this parameter's value applies


@dataclass(frozen=True, slots=True)
class Assignment:
    """One value that some source gave."""

    value: str
    source: str  # a path, or one of the marks below


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that is set, with everything that was ever assigned to it, in order; the last one is in force."""

    name: str
    trace: tuple[Assignment, ...]

    @property
    def value(self) -> str:
        return self.trace[-1].value

    @property
    def source(self) -> str:
        return self.trace[-1].source


BUILTIN = "@builtin@"
ENVIRONMENT = "@environment@"
COMMAND_LINE = "@command-line@"
