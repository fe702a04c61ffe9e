"""The conditions of find(1): what of an entry they look at, and how they are written. Wrong ones are UsageErrors.

Pure but for the time of a file here. Times are those of the catalogs, whole seconds as find(1) counts them.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import re
import stat
from typing import TYPE_CHECKING, TypeAlias

from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catalog.directory import Located

Condition: TypeAlias = "Callable[[Located], bool]"
_KINDS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
}
_UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([+-]?)([0-9]{1,18})([bcwkMG]?)\Z")
_DAYS = re.compile(r"([+-]?)([0-9]{1,9})\Z")
_DAY_S = 86_400
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def are_named(names: Sequence[str], names_of_any_case: Sequence[str], paths: Sequence[str]) -> Condition:
    """One of these patterns matches."""
    of_name = [_compile(each) for each in names] + [_compile(each, re.IGNORECASE) for each in names_of_any_case]
    of_path = [_compile(each) for each in paths]

    def holds(located: Located) -> bool:
        path = _text(located.path) or "/"
        name = path.rpartition("/")[2] or "/"
        return any(each.match(name) for each in of_name) or any(each.match(path) for each in of_path)

    return holds


def are_of_kinds(text: str) -> Condition:
    letters = text.split(",")
    for letter in letters:
        if letter not in _KINDS:
            raise UsageError(f"-type {text}: {letter!r} is none of {', '.join(_KINDS)}")
    kinds = frozenset(_KINDS[letter] for letter in letters)
    return lambda located: stat.S_IFMT(located.entry.mode) in kinds


def are_of_size(text: str) -> Condition:
    found = _SIZE.match(text)
    if found is None:
        raise UsageError(f"-size {text}: write for example +10M, -4k or 100c")
    wanted, unit_bytes = int(found[2]), _UNITS[found[3]]
    compares = _comparison(found[1])
    return lambda located: compares(-(-_size_of(located) // unit_bytes), wanted)


def are_of_age(text: str, now_s: float) -> Condition:
    found = _DAYS.match(text)
    if found is None:
        raise UsageError(f"-mtime {text}: write for example -7 for the last week, or +365")
    wanted, compares = int(found[2]), _comparison(found[1])
    return lambda located: compares(int(now_s - located.entry.mtime_s) // _DAY_S, wanted)


def are_younger(text: str, *, is_file: bool) -> Condition:
    """Than a file here, or than a time in UTC."""
    limit_ns = _time_of_file(text) if is_file else _time_of_text(text)
    return lambda located: located.entry.mtime_s * 1_000_000_000 + located.entry.mtime_ns > limit_ns


def _compile(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """As find(1) reads them: a backslash takes the meaning of what follows, [^a] is [!a]."""
    plain = _ESCAPED.sub(lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], pattern)
    return re.compile(fnmatch.translate(plain.replace("[^", "[!")), flags)


def _text(data: bytes) -> str:
    """So that `?` is a character where it can be; the arguments of the command are read in the same way."""
    return data.decode("utf-8", "surrogateescape")


def _size_of(located: Located) -> int:
    """A link is as long as its target; the number of a device is no size."""
    entry = located.entry
    if entry.is_symlink:
        return len(entry.symlink)
    return entry.size if entry.is_regular or entry.is_directory else 0


def _comparison(sign: str) -> Callable[[int, int], bool]:
    if sign == "+":
        return lambda found, wanted: found > wanted
    if sign == "-":
        return lambda found, wanted: found < wanted
    return lambda found, wanted: found == wanted


def _time_of_file(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise UsageError(f"-newer {path}: {error.strerror}") from error


def _time_of_text(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"-newermt {text}: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, in UTC") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000_000_000
