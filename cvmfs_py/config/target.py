"""What REPO[:PATH] on the command line means. Pure.

Forms: `sft.cern.ch`, `sft.cern.ch:/lcg`, `sft.cern.ch@TAG:/lcg`, `/cvmfs/sft.cern.ch/lcg`, `http://HOST/cvmfs/FQRN:/path`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from cvmfs_py.errors import UsageError

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+-]*://")  # no dots: `a.b://c` is a repository, and a path in it
_URL = re.compile(r"(?P<server>[a-zA-Z0-9+-]+://[^/]*)(?P<folder>/(?:.*/)?)(?P<last>[^/]+)/*\Z", re.DOTALL)
# The path may lack its slash, but after a tag, which may hold colons itself: generic-2024-01-31T12:00:00Z.
_NAME = r"(?P<name>[A-Za-z0-9._-]{1,60})"
_TAG = r"(?P<tag>[A-Za-z0-9._+-][A-Za-z0-9._/:+-]*?)"
_REPOSITORY = re.compile(rf"{_NAME}(?:@{_TAG}(?::(?P<path>/.*)?)?|:(?P<loose>.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A repository, perhaps where it is served and which snapshot, and a path inside (b"" is the root)."""

    name: str  # as typed: a bare name is completed with the default domain
    url: str | None
    tag: str | None
    path: bytes

    def __str__(self) -> str:
        return f"{self.name}:{os.fsdecode(self.path) or '/'}"


def parse_target(text: str) -> Target:
    prefix, rest = "", text
    if text.startswith("/cvmfs/"):
        last, _, path = text.removeprefix("/cvmfs/").partition("/")
        rest = f"{last}:/{path}"
    elif _SCHEME.match(text):
        # Folders of a server may hold colons and @; what follows the next ":/" is the path in the repository.
        scheme, _, after = text.partition("://")
        location, colon, path = after.partition(":/")
        url = _URL.match(f"{scheme}://{location}")
        if url is None or (":" in url["folder"] and scheme.lower() != "file"):
            raise _no_repository(text)
        prefix, rest = url["server"] + url["folder"], url["last"] + colon + path
    found = _REPOSITORY.match(rest)
    if found is None:
        raise _no_repository(text)
    try:
        path_bytes = os.fsencode(found["path"] or found["loose"] or "")
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} cannot be a path") from error
    name = found["name"]
    return Target(name, prefix + name if prefix else None, found["tag"], normalise(path_bytes))


def _no_repository(text: str) -> UsageError:
    return UsageError(f"{text!r} names no repository; write FQRN[@TAG][:PATH] or a URL, for example sft.cern.ch:/lcg")


def normalise(path: bytes) -> bytes:
    """An absolute path without empty and `.` parts; the root is empty. `..` stays: links decide where it leads."""
    return b"".join(b"/" + part for part in path.split(b"/") if part not in (b"", b"."))
