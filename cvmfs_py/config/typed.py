"""From the text of a parameter to its value: one function per kind.

Pure. Files and the environment are read as the reference client reads them: a number is the digits at the beginning,
anything that is not a word for yes is no. The command line is held to more: there a wrong value is an error. What is
set to nothing counts as not set (a file with a syntax error sets all its parameters to nothing, and no timeout at all
would be a bad answer to that); only a switch that is set to nothing is off.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import ContentHash, parse_hash
from cvmfs_py.config.parameters import COMMAND_LINE, Kind, Parameter, ParameterSpec, XattrVisibility
from cvmfs_py.config.parse import is_decimal, is_integer, parse_decimal, parse_integer, parse_switch
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | bool | int | float | Path | ContentHash | tuple[str, ...] | tuple[int, ...] | tuple[Path, ...] | None

_ID = re.compile(r"[0-9]{1,10}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")


def parse_value(spec: ParameterSpec, parameters: Mapping[str, Parameter], known: Mapping[str, ParameterSpec]) -> Value:
    """The value in force: what is set, else the value of the parameter it follows, else the default."""
    parameter = parameters.get(spec.name)
    if parameter is not None and parameter.source == COMMAND_LINE:
        complaint = find_fault(spec.kind, parameter.value)
        if complaint is not None:
            raise ConfigError(f"{spec.name}: {complaint}")
    text = parameter.value if parameter is not None else None
    if not text and spec.like is not None:
        return parse_value(known[spec.like], parameters, known)
    if not text and not (text == "" and spec.kind is Kind.SWITCH):
        text = spec.default
    return _parse_kind(spec, text)


def find_fault(kind: Kind, text: str) -> str | None:
    """What is wrong with the text for this kind, in words; None if nothing."""
    text = text.strip()
    if kind is Kind.SECONDS:
        if not is_decimal(text):
            return f"{text!r} is not a number of {kind.value}"
        if text.startswith("-"):
            return f"{text!r} is negative"
    elif kind in (Kind.INTEGER, Kind.QUOTA):
        if not is_integer(text):
            return f"{text!r} is not a whole number"
        if text.startswith("-") and kind is not Kind.QUOTA:
            return f"{text!r} is negative"
    elif kind is Kind.SWITCH and parse_switch(text) is None:
        return f"{text!r} is neither yes nor no"
    elif kind is Kind.IDS:
        wrong = [word for word in _split(text, ",") if not _ID.match(word)]
        return f"{wrong[0]!r} is not the number of a group" if wrong else None
    elif kind is Kind.VISIBILITY and text not in (word.value for word in XattrVisibility):
        return f"{text!r} is none of {kind.value}"
    return None


def _parse_kind(spec: ParameterSpec, text: str | None) -> Value:
    kind = spec.kind
    if kind in (Kind.TEXT, Kind.VISIBILITY):
        return text or ""
    if kind is Kind.OPTIONAL_TEXT:
        return text or None
    if kind is Kind.SWITCH:
        return bool(parse_switch(text or ""))
    if kind is Kind.NONEMPTY:
        return bool(text)
    if kind is Kind.PATH:
        return Path(text) if text else None
    if kind is Kind.PATHS:
        return tuple(Path(word) for word in _split(text, ":"))
    if kind is Kind.URLS:
        return tuple(word.rstrip("/") for word in _split(text, ";"))
    if kind is Kind.NAMES:
        return tuple(_split(text, ","))
    if kind is Kind.IDS:
        return tuple(int(word) for word in _split(text, ",") if _ID.match(word))
    if kind is Kind.HASH:
        return _parse_root_hash(spec.name, text)
    if kind is Kind.TIMESTAMP:
        return _parse_timestamp(spec.name, text)
    return _parse_number(kind, text or "0")


def _parse_number(kind: Kind, text: str) -> int | float | None:
    if kind is Kind.SECONDS:
        return max(0.0, parse_decimal(text))
    number = parse_integer(text)
    if kind is Kind.QUOTA:
        return number << 20 if number > 0 else None
    return max(0, number)


def _parse_root_hash(name: str, text: str | None) -> ContentHash | None:
    text = (text or "").strip().lower()
    if not text:
        return None
    content_hash = parse_hash(text)
    # 32 digits would be MD5, which never is an address
    if content_hash is None or len(content_hash.digest) != 20:
        if text.strip("0") == "":
            return None
        raise ConfigError(
            f"{name}: {text!r} is no hash of a root catalog (40 hexadecimal digits and perhaps -shake128)"
        )
    return content_hash


def _parse_timestamp(name: str, text: str | None) -> int | None:
    if not text:
        return None
    import calendar
    import time

    try:
        if not _DATE.match(text):
            raise ValueError(text)
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError as error:
        raise ConfigError(f"invalid timestamp in {name}: {text}. Use YYYY-MM-DDTHH:MM:SSZ") from error


def _split(text: str | None, separator: str) -> list[str]:
    return [word.strip() for word in (text or "").split(separator) if word.strip()]
