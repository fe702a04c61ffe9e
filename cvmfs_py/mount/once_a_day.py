"""Says something once a day, however many processes would say it: a small file remembers when it was said last.

Concurrency: for any number of processes; one that would have to wait for another one lets that one say it. Where
nothing can be remembered everything is said. A clock that jumps back lets it be said once more, and never silences it.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86400.0
_LIMIT_BYTES = 32


def is_due(memo: Path, now_s: float) -> bool:
    """Whether it is to be said now; from then on it counts as said."""
    try:
        fd = os.open(memo, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said_s = _parse_time(os.pread(fd, _LIMIT_BYTES, 0))
        if said_s is not None and 0 <= now_s - said_s < DAY_S:
            return False
        with suppress(OSError):  # a full disk
            os.pwrite(fd, b"%d\n" % now_s, 0)
            os.ftruncate(fd, len(b"%d\n" % now_s))
        return True
    except BlockingIOError:  # another process says it at this moment
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def _parse_time(text: bytes) -> int | None:
    found = re.fullmatch(rb"([0-9]{1,15})\n", text)
    return None if found is None else int(found[1])
