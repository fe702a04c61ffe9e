"""The errors of the client, one class per reaction. Pure; prints nothing, maps nothing to exit codes but by attribute.

Messages are for users: what happened, what was tried, what to do next, in one line.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class CvmfsError(Exception):
    """Anything the user can be told about in one line."""

    exit_code = 5


class UsageError(CvmfsError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(CvmfsError):
    """A parameter, key file or configuration file is wrong or missing."""

    exit_code = 2


class NoSnapshotError(ConfigError):
    """There is no snapshot of the name, date or root hash that is asked for."""


class MountError(CvmfsError):
    """A mount could not be made or kept."""

    exit_code = 3


class Refusal(enum.Enum):
    """Why something that a server sent is not trusted. The value is the reason in words."""

    MALFORMED = "is malformed"
    TOO_LARGE = "is larger than allowed"
    BODY_HASH = "does not match its own hash"
    WRONG_NAME = "is for another repository"
    WRONG_ROOT_PATH = "is not for the root of a repository"
    INCOMPLETE = "lacks a required field"
    SIGNATURE = "has an invalid signature"
    CERTIFICATE_HASH = "is not the certificate that the manifest names"
    CERTIFICATE_MALFORMED = "is not a usable certificate"
    CERTIFICATE_NOT_LISTED = "is not on the whitelist"
    CERTIFICATE_BLACKLISTED = "is blacklisted"
    WHITELIST_EXPIRED = "has expired"
    FOREIGN_KEY = "is not signed by any of the configured master keys"
    UNSUPPORTED = "uses a verification scheme that is not supported"
    REVISION_BLACKLISTED = "is a blacklisted revision"
    OUTDATED = "is older than what was already seen"


class TrustError(CvmfsError):
    """Something a server sent is not trusted, for one exact reason."""

    exit_code = 4

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to fetch something: over which host and proxy, and how it ended."""

    host: str
    proxy: str  # "DIRECT" when no proxy was used
    reason: str

    def __str__(self) -> str:
        via = "" if self.proxy == "DIRECT" else f" via {self.proxy}"
        return f"{self.host}{via}: {self.reason}"


class FetchError(CvmfsError):
    """An object could not be fetched; carries every attempt."""

    def __init__(self, message: str, attempts: tuple[Attempt, ...] = ()) -> None:
        self.attempts = attempts
        self._message = message
        tried = "; ".join(_summarised(attempts))
        super().__init__(f"{message} (tried {tried})" if tried else message)

    @property
    def in_full(self) -> str:
        """With the name of every server and proxy that was tried, for logs."""
        counts = Counter(map(str, self.attempts))
        tried = "; ".join(_repeated(text, count) for text, count in counts.items())
        return f"{self._message} (tried {tried})" if tried else self._message


def in_brief(error: BaseException) -> str:
    """Why it failed, in few words: without what was wanted, and from whom."""
    if isinstance(error, FetchError) and error.attempts:
        return ", ".join(dict.fromkeys(attempt.reason for attempt in error.attempts))
    text = str(error)
    return text.partition(": ")[0] if isinstance(error, TrustError) else text


def in_full(error: BaseException) -> str:
    """What an error says, with all that is too long for a terminal."""
    return error.in_full if isinstance(error, FetchError) else str(error)


def _summarised(attempts: tuple[Attempt, ...]) -> Iterator[str]:
    """One phrase for each reason: many servers that are down are mostly down for the same one."""
    by_reason: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_reason.setdefault(attempt.reason, []).append(attempt)
    for reason, alike in by_reason.items():
        hosts = {attempt.host: None for attempt in alike}
        proxies = {attempt.proxy: None for attempt in alike}
        if len(hosts) == len(proxies) == 1:
            yield _repeated(str(alike[0]), len(alike))
            continue
        yield f"{_named(hosts, 'servers')}{_via(proxies)}: {reason}"


def _via(proxies: Collection[str]) -> str:
    others = [name for name in proxies if name != "DIRECT"]
    if not others:
        return ""
    way = " directly and" if len(others) < len(proxies) else ""
    return f"{way} via {_named(others, 'proxies')}"


def _named(names: Collection[str], plural: str) -> str:
    return next(iter(names)) if len(names) == 1 else f"{len(names)} {plural}"


def _repeated(text: str, count: int) -> str:
    return text if count == 1 else f"{text} ({count} times)"


class ObjectGoneError(FetchError):
    """Every server says that the object does not exist."""


class IntegrityError(CvmfsError):
    """Bytes arrived, or were found, that are not the object they should be."""


class FsError(CvmfsError):
    """An ordinary answer of a file system: no such file, not a directory, and so on."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class PublishError(CvmfsError):
    """A repository could not be made, changed or published; what is served is as it was before."""


class NoProgressError(CvmfsError):
    """An operation asked for what it already had: a bug of this program."""
