"""What requests are waiting for at this moment, in words, for whoever has a user to tell it to.

Keeps notes only: managers write them, nobody here decides or waits. One board for the process, as for logs, because
who asks for something is far from who looks on.

Concurrency: for one event loop; a note belongs to the task that made it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Wait:
    """One request under way."""

    what: str  # the object or document
    since: float  # of the event loop's clock, as all times here
    host: str = ""  # empty: it is not known yet whom to ask
    proxy: str = "DIRECT"
    trouble: str = ""  # how the last attempt ended
    again_at: float = 0.0

    def describe(self, now: float) -> str:
        if not self.host:
            return f"waiting {_seconds(now - self.since)} for {self.what}: finding out which servers and proxies to ask"
        server, fqrn = _split(self.host)
        what = f"{self.what} of {fqrn}" if fqrn and self.what.startswith(".cvmfs") else self.what
        way = server if self.proxy == "DIRECT" else f"{server} via {_split(self.proxy)[0]}"
        if self.again_at > now:
            return f"trying again in {_seconds(self.again_at - now)}: {what} from {way} ({self.trouble})"
        before = f" ({self.trouble} before)" if self.trouble else ""
        return f"waiting {_seconds(now - self.since)} for {what} from {way}{before}"


class Waits:
    """The requests under way, the oldest first."""

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}

    def begin(self, what: str, now: float) -> Wait:
        wait = Wait(what, now)
        self._waits[id(wait)] = wait
        return wait

    def end(self, wait: Wait) -> None:
        self._waits.pop(id(wait), None)

    def describe(self, now: float, *, longer_than_s: float) -> str:
        """In one line, what has been waited for longest; empty when there is no wait that long."""
        oldest = next(iter(self._waits.values()), None)
        if oldest is None or now - oldest.since < longer_than_s:
            return ""
        # One that is being tried says more than one that queues for a connection.
        told = next((wait for wait in self._waits.values() if wait.host), oldest)
        others = len(self._waits) - 1
        return told.describe(now) + (f" (and {others} more)" if others else "")


def _split(url: str) -> tuple[str, str]:
    """The short name of a server, and of the repository that it is asked for."""
    scheme, _, rest = url.partition("://")
    if scheme == "file" or not rest:
        return url, ""
    return rest.partition("/")[0], url.rpartition("/")[2] if "/" in rest else ""


def _seconds(time_s: float) -> str:
    return f"{max(time_s, 0):.0f} s"


WAITS = Waits()
