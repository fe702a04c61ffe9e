"""Maps of user and group numbers, as CVMFS_UID_MAP and CVMFS_GID_MAP name them.

A file has lines `FROM TO`; `*` for FROM is everybody else. Reads that file, knows no accounts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.config.files import read_small_file
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LINE = re.compile(r"(\*|[0-9]{1,10})\s+([0-9]{1,10})\Z")
_LARGEST = (1 << 32) - 2  # the kernel takes -1 for no owner at all, and shows its overflow number instead
_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class IdMap:
    """Numbers to numbers; a number that is not named stays, or becomes the default where there is one."""

    numbers: Mapping[int, int]
    default: int | None = None

    def map(self, number: int) -> int:
        return self.numbers.get(number, number if self.default is None else self.default)


def load_id_map(path: Path) -> IdMap:
    try:
        return parse_id_map(os.fsdecode(read_small_file(path, _LIMIT_BYTES)), str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"the map of numbers {path} does not exist") from error


def parse_id_map(text: str, origin: str) -> IdMap:
    numbers: dict[int, int] = {}
    default: int | None = None
    for line_number, line in enumerate(text.split("\n"), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.match(content)
        if match is None:
            raise ConfigError(f"{origin}, line {line_number}: {content!r} is not two numbers")
        for word in match.groups():
            if word != "*" and int(word) > _LARGEST:
                raise ConfigError(f"{origin}, line {line_number}: {word} is no owner; the largest is {_LARGEST}")
        if match[1] == "*":
            default = int(match[2])
        else:
            numbers[int(match[1])] = int(match[2])
    return IdMap(numbers, default)
