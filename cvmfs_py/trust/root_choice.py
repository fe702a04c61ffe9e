"""Which root to use: the one a server offers or the one that is here. Never back to an older one.

Compares numbers; verifies nothing. Pure; safe from any thread.
"""

from __future__ import annotations

import enum

from cvmfs_py.trust.breadcrumb import Breadcrumb


class RootChoice(enum.Enum):
    """What to do with a verified manifest."""

    SERVER = "the server has a newer root"
    LOCAL = "the local root is up to date"
    LOCAL_OFFLINE = "the server is behind; the local root stays and the repository counts as offline"


def choose_candidate(breadcrumb: Breadcrumb | None, mounted: Breadcrumb) -> Breadcrumb:
    """The local root to compare a server's with: what is mounted, unless the breadcrumb is of a newer revision.

    A breadcrumb of an older revision still raises the time before which nothing is accepted.
    """
    if breadcrumb is None:
        return mounted
    if breadcrumb.revision > mounted.revision:
        return breadcrumb
    return Breadcrumb(mounted.root_hash, max(mounted.timestamp_s, breadcrumb.timestamp_s), mounted.revision)


def choose_root(server_revision: int, candidate: Breadcrumb | None) -> RootChoice:
    """The decision for a verified manifest that is not older than the candidate's timestamp."""
    if candidate is None or server_revision > candidate.revision:
        return RootChoice.SERVER
    if server_revision < candidate.revision:
        return RootChoice.LOCAL_OFFLINE
    return RootChoice.SERVER if server_revision == 0 else RootChoice.LOCAL
