"""What a daemon may use of the machine: file descriptors. Changes this process only."""

from __future__ import annotations

import resource

ENOUGH = 65536
CATALOGS = 64  # with up to 1 MiB of pages each, and two descriptors


def raise_descriptor_limit(enough: int = ENOUGH) -> int:
    """As many descriptors as this process may have, up to what is enough; the limit that is now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else enough
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def attached_catalogs() -> int:
    """How many catalogs of one revision may be open at once: not more than an eighth of all descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CATALOGS if soft == resource.RLIM_INFINITY else max(4, min(CATALOGS, soft // 16))
