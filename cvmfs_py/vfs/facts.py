"""What only a running mount knows and its magic attributes tell: hosts, counters, keys, the log. Pure.

The mount gives a callable for each fact; which attribute shows it, and how, is for `magic`. All run in the thread of
whoever asks for the attribute; those in `values` must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from catalog.opened import OpenObject

    Fact: TypeAlias = Callable[[], str | int | Sequence[str]]

REPOSITORIES = b"user.cvmfspy_repositories"  # of the top of every repository: those that are attached, one a line
NO_METAINFO = b"metainfo not available"
LOG_LINES = 10
LOG_LINE_LIMIT = 4096  # characters

TEXT_FACTS = (
    "cvmfspy_offline",
    "external_timeout",
    "hitrate",
    "inode_max",
    "maxfd",
    "ncleanup24",
    "nclg",
    "ndiropen",
    "ndownload",
    "nioerr",
    "nopen",
    "pid",
    "proxy",
    "rx",
    "speed",
    "timeout",
    "timeout_direct",
    "timestamp_last_ioerr",
    "uptime",
    "usedfd",
    "useddirp",
    "version",
)
LIST_FACTS = ("external_host_list", "host_list", "logbuffer", "proxy_list", "proxy_list_external", "pubkeys")
FACT_NAMES = frozenset((*TEXT_FACTS, *LIST_FACTS, "expires"))


class NotHashed(Exception):  # not an error, but an answer, as NotLocal is
    """The whole content of an object has to be read first, which takes too long for an operation."""

    def __init__(self, content_hash: ContentHash) -> None:
        super().__init__(content_hash)
        self.content_hash = content_hash


@dataclass(frozen=True, slots=True)
class MountFacts:
    """What a running mount knows. An attribute whose fact is not given does not exist.

    The facts have the names in `FACT_NAMES`: those of their attributes without `user.`, and for the hosts that of the
    list. Lists are sequences: hosts from the active one on, proxies group by group, public keys as PEM texts, log lines
    in the order in which they are shown. `expires` is in minutes. `cvmfspy_offline` says why no server was heard when
    they were asked last for what is newest; empty: one was, or nobody is asked.
    """

    values: Mapping[str, Fact] = field(default_factory=dict)
    # the hash of the cached object, computed anew, or in words why there is none; NotHashed until somebody has done it
    local_hash: Callable[[ContentHash], str] | None = None
    metainfo: Callable[[OpenObject], bytes] | None = None  # may raise NotLocal; see `read_metainfo`

    def text(self, name: str) -> str:
        """A fact that is one text."""
        value = self.values[name]()
        return str(value) if isinstance(value, (str, int)) else "\n".join(value)

    def sequence(self, name: str) -> Sequence[str]:
        """A fact that is a list."""
        value = self.values[name]()
        return (str(value),) if isinstance(value, (str, int)) else value

    def log(self) -> str:
        """The last lines of the log, with a limit for each."""
        lines = self.sequence("logbuffer")[:LOG_LINES]
        return "".join(
            f"{line}\n" if len(line) <= LOG_LINE_LIMIT else f"{line[:LOG_LINE_LIMIT]} <snip>\n" for line in lines
        )


def read_metainfo(ref: ObjectRef | None, open_object: OpenObject) -> bytes:
    """The metainfo object that a manifest names, or that there is none. May raise NotLocal."""
    if ref is None:
        return NO_METAINFO
    local = open_object(ref)
    try:
        return local.read()
    finally:
        local.close()
