"""What a cache remembers of a repository's roots: the last one that was adopted, and whose tags were read last.

Nothing that is remembered is trusted: documents are verified anew whenever they are read. Fetches nothing.

Synchronous; small files beside the cached objects. Several processes may share them: the last writer wins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache.errors import CacheError
from cvmfs_py.errors import Refusal, TrustError
from cvmfs_py.trust.breadcrumb import Breadcrumb
from cvmfs_py.trust.stored import StoredTrust
from cvmfs_py.trust.trusted_state import TrustedState

if TYPE_CHECKING:
    from cache.store import Store
    from cvmfs_py.trust.blacklist import Blacklist
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.trusted_state import TrustedRoot

_log = logging.getLogger(__name__)
UNANSWERED_S = 180  # after a failure, as long as mounted repositories wait until they ask again


@dataclass(frozen=True, slots=True)
class Known:
    """The last adopted root, as far as it can be vouched for now."""

    minimum: Breadcrumb | None = None  # nothing older is accepted
    usable: Breadcrumb | None = None  # may be the root when no server can be asked
    trusted: TrustedRoot | None = None  # what vouches for it; None: it is from a preloaded cache


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one repository in one store."""

    fqrn: str
    store: Store
    master_keys: tuple[MasterKey, ...]
    blacklist: Blacklist
    warnings: list[str]  # grows: what the user should know although it works

    def known(self) -> Known:
        """What the store remembers, and what the lower caches were preloaded with."""
        known = self._remembered()
        for tier in self.store.lower:
            data = tier.read_breadcrumb_bytes(self.fqrn)
            preloaded = None if data is None else Breadcrumb.parse(data)
            if preloaded is not None and (known.minimum is None or preloaded.revision > known.minimum.revision):
                known = Known(preloaded, preloaded)
        return known

    def last_vouched(self) -> TrustedRoot | None:
        """A manifest that was verified before, for its root or its tags: the newest, but rather one with tags here."""
        found: list[TrustedRoot] = []
        for what in ("trust", "tags", "pinned"):
            try:
                trusted = self._reaccept(what)
            except TrustError as error:
                _log.info("a manifest that is known cannot be used: %s", error)
            else:
                found += [] if trusted is None else [trusted]

        def value_of(trusted: TrustedRoot) -> tuple[bool, int]:
            history_ref = trusted.manifest.history_ref
            return history_ref is not None and self.store.has(history_ref), trusted.manifest.revision

        return max(found, key=value_of, default=None)

    def keep_root(self, breadcrumb: Breadcrumb, trusted: TrustedRoot) -> None:
        """This root was adopted. Its catalog must be here already, so that no offline start misses it."""
        self._write("trust", trusted.stored)
        name, data = f"cvmfschecksum.{self.fqrn}", breadcrumb.format()
        try:
            if self.store.read_state(name) != data:
                self.store.write_state(name, data)
        except CacheError as error:
            _log.info("the breadcrumb was not written: %s", error)

    def keep_tags(self, trusted: TrustedRoot) -> None:
        """The tags of this manifest were read, and are here. That says nothing about its root."""
        known = self.last_vouched()
        if known is None or known.manifest.revision < trusted.manifest.revision:
            self._write("tags", trusted.stored)

    def keep_pinned(self, trusted: TrustedRoot) -> None:
        """The tags of this manifest stay in the cache, because a tree that is pinned by one of them does."""
        self._write("pinned", trusted.stored)

    def is_unanswered(self, now: float) -> bool:
        """Whether servers were waited for in vain a moment ago, by this process or another one."""
        data = self.store.read_state(f"{self.fqrn}.unanswered")
        return data is not None and data.isdigit() and 0 <= now - int(data) < UNANSWERED_S

    def keep_unanswered(self, now: float) -> None:
        if not self.is_unanswered(now):  # an impatient try is none: now and then there has to be a patient one
            self._write_hint(b"%d" % now)

    def keep_answered(self) -> None:
        if self.store.read_state(f"{self.fqrn}.unanswered") is not None:
            self._write_hint(b"")

    def _write_hint(self, data: bytes) -> None:
        try:
            self.store.write_state(f"{self.fqrn}.unanswered", data)
        except CacheError as error:
            _log.info("not remembered if servers answer: %s", error)

    def _remembered(self) -> Known:
        """The root that was adopted last. A repository of other keys is another repository, and does not count."""
        try:
            trusted = self._reaccept("trust")
        except TrustError as error:
            _log.info("the last known root cannot be used: %s", error)
            if error.reason is Refusal.FOREIGN_KEY:
                return Known()
        else:
            if trusted is not None:
                return Known(trusted.breadcrumb, trusted.breadcrumb, trusted)
        data = self.store.read_state(f"cvmfschecksum.{self.fqrn}")
        return Known(None if data is None else Breadcrumb.parse(data))

    def _reaccept(self, what: str) -> TrustedRoot | None:
        """The documents that were kept under this name, verified anew; None if there are none."""
        data = self.store.read_state(f"{self.fqrn}.{what}")
        if data is None:
            return None
        return TrustedState(self.fqrn, self.master_keys, self.blacklist).reaccept(StoredTrust.decode(data))

    def _write(self, what: str, stored: StoredTrust) -> None:
        name = f"{self.fqrn}.{what}"
        if _has_same_documents(self.store.read_state(name), stored):
            return  # so that a cache which cannot be written serves without a word as long as nothing changes
        try:
            self.store.write_state(name, stored.encode())
        except CacheError as error:
            self.warnings.append(f"an offline start of {self.fqrn} will not find this revision: {error}")


def _has_same_documents(data: bytes | None, stored: StoredTrust) -> bool:
    if data is None:
        return False
    try:
        before = StoredTrust.decode(data)
    except TrustError:
        return False
    return replace(before, accepted_at_s=stored.accepted_at_s) == stored
