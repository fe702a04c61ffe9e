"""The ordered list of hosts and which of them is in use.

Pure; shared by all requests of one manager, so that one request's discovery helps the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class HostChain:
    """A ring of hosts with one current host."""

    def __init__(self, hosts: Sequence[str], reset_after_s: float) -> None:
        self._reset_after_s = reset_after_s
        self._left_first_at: float | None = None
        self.hosts = tuple(hosts)
        self.index = 0
        self.failovers = 0

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def current(self) -> str:
        return self.hosts[self.index]

    def choose_other(self, failed: Collection[str]) -> str | None:
        """The current host, or else the next one with which a request has not had bad luck; None: there is none."""
        for step in range(len(self.hosts)):
            host = self.hosts[(self.index + step) % len(self.hosts)]
            if host not in failed:
                return host
        return None

    def replace(self, hosts: Sequence[str]) -> None:
        """A new list, for example a sorted one; the first host is the current one."""
        self.hosts = tuple(hosts)
        self.index = 0
        self._left_first_at = None

    def expire(self, now: float) -> bool:
        """Back to the first host when it is time; tells whether that happened."""
        if self._left_first_at is None or not self._reset_after_s:
            return False
        if now <= self._left_first_at + self._reset_after_s:
            return False
        self.index = 0
        self._left_first_at = None
        return True

    def switch_from(self, host: str, now: float) -> str | None:
        """The next host in the ring becomes current, unless another request has already left `host`."""
        if len(self.hosts) < 2 or self.current != host:
            return None
        self.index = (self.index + 1) % len(self.hosts)
        self.failovers += 1
        if self.index == 0:
            self._left_first_at = None
        elif self._left_first_at is None:
            self._left_first_at = now
        return self.current
