"""`auto` in proxy lists: the environment's `http_proxy`, or a proxy auto-configuration file.

Such files are JavaScript, which this program does not run. What it understands is the common static case: functions
that do nothing but return one constant. Anything else is refused with a clear reason.

Pure: fetching the file is the caller's.
"""

from __future__ import annotations

import re

from cvmfs_py.network.proxy_list import split_groups

LIMIT_BYTES = 1 << 20
WPAD_URL = "http://wpad/wpad.dat"

_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRING = r"\"[^\"\\\n]*\"|'[^'\\\n]*'"
_FUNCTION = re.compile(r"function\s+FindProxyForURL(Ex)?\s*\(\s*\w+\s*,\s*\w+\s*\)\s*\{")
_CONSTANT = re.compile(rf"\s*return\s*\(?\s*({_STRING})\s*\)?\s*;?\s*\}}")


class PacError(Exception):
    """A proxy auto-configuration file that cannot be used; the text says why."""


def is_auto(text: str) -> bool:
    """Whether a proxy list needs discovery."""
    return any("auto" in group for group in split_groups(text))


def expand_auto(text: str, discovered: str) -> str:
    """The list with discovered groups in place of `auto`; without any, `auto` groups fall away."""
    groups = []
    for group in split_groups(text):
        if "auto" not in group:
            groups.append("|".join(group))
        elif discovered:
            groups.append(discovered)
    return ";".join(groups)


def proxies_of_pac(data: bytes) -> str:
    """The proxy list that a file's constant answer stands for. Raises PacError."""
    text = _without_comments(data.decode("utf-8", errors="replace"))
    functions = {match[1] or "": match.end() for match in _FUNCTION.finditer(text)}
    if not functions:
        raise PacError("no function FindProxyForURL in it")
    start = functions.get("Ex", functions.get(""))
    constant = _CONSTANT.match(text, start or 0)
    if constant is None:
        raise PacError("it decides by JavaScript code, which is not evaluated; write the proxies into CVMFS_HTTP_PROXY")
    return proxies_of_answer(constant[1][1:-1])


def proxies_of_answer(answer: str) -> str:
    """`PROXY a; PROXY b; DIRECT` as a proxy list of one member a group; what is not HTTP is skipped."""
    if not answer.strip():
        return "DIRECT"
    groups = []
    for token in answer.split(";"):
        kind, _, address = token.strip().partition(" ")
        if kind == "DIRECT":
            groups.append("DIRECT")
        elif kind in ("PROXY", "HTTP", "HTTPS") and address.strip():
            scheme = "https://" if kind == "HTTPS" else ""
            groups.append(scheme + address.strip())
    return ";".join(groups)


def _without_comments(text: str) -> str:
    """Removes comments, but not what looks like one inside of a string (`http://`)."""
    return re.sub(rf"({_STRING})|{_COMMENTS.pattern}", lambda match: match[1] or " ", text, flags=re.DOTALL)
