"""What a daemon may use of the machine: descriptors, and how far the kernel reads ahead on its mount."""

from __future__ import annotations

import resource
from contextlib import suppress

ENOUGH = 65536
READAHEAD_KIB = 1024
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


def raise_readahead(device: str | None) -> None:
    """Lets the kernel ask for as much at once as it can: 128 KiB unless root says so. For others it stays as it is."""
    if device is not None:
        with suppress(OSError), open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as setting:
            setting.write(str(READAHEAD_KIB))
